"""The model card of a trained reward model: `README.md` beside the weights, and the plot of its training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from codegym.storage import write_text
from prm.bootstrap import Estimate
from prm.config import PRMConfig
from prm.heads import read_at_newline, sum_over_tokens
from prm.model import ProcessRewardModel
from prm.plots import training_curves
from prm.program import LabeledProgram
from prm.selection import label_statistics
from prm.training_report import PRMReport

CARD_FILE = "README.md"
CURVE_FILE = "curve.svg"

READ_FROM: dict[Callable[..., Tensor], str] = {
    sum_over_tokens: "the sum of its tokens' outputs",
    read_at_newline: "the output at the token that covers its newline",
}
"""What a head's reading is called; another goes by its function's name."""
SPEAKS_OF = {
    True: 'is the logit of "this line is right, given that all lines before it are"',
    False: "speaks of the whole program up to it",
}


def write_model_card(
    folder: Path,
    model: ProcessRewardModel,
    report: PRMReport,
    config: PRMConfig,
    labeled: Sequence[LabeledProgram],
) -> None:
    """Write the card and the plot; the same run gives the same bytes.

    Args:
        folder: The model's.
        model: As it was saved.
        report: Of its training.
        config: How it was trained.
        labeled: All programs of the run, held-out ones included.
    """
    write_text(folder / CURVE_FILE, training_curves(report.curve))
    write_text(folder / CARD_FILE, model_card(model, report, config, label_statistics(labeled)))


def model_card(
    model: ProcessRewardModel, report: PRMReport, config: PRMConfig, statistics: Mapping[str, Any]
) -> str:
    """The card as Markdown with the hub's YAML metadata.

    Args:
        model: As it was saved.
        report: Of its training.
        config: How it was trained.
        statistics: Of the labels, by `prm.selection.label_statistics`.
    """
    environment = Environment(
        loader=PackageLoader("prm", "templates"),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown; every name in it is quoted as code
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": _code, "share": _share}
    backbone, read = model.backbone, model.line_head.read
    return environment.get_template("model_card.md.j2").render(
        report=report,
        settings=_settings(config),
        statistics=statistics,
        held_out={name: str(Estimate(**values)) for name, values in report.held_out.items()},
        head=model.head_name,
        reads=f"{READ_FROM.get(read, read.__name__.replace('_', ' '))} {SPEAKS_OF[model.line_head.per_line]}",
        architecture=type(backbone).__name__,
        base=_public_name(backbone.config.name_or_path),
        n_weights=sum(weight.numel() for weight in model.parameters()),
        n_tokens=len(model.tokenizer),
        adapter=config.lora is not None,
        curve=CURVE_FILE,
    )


def _public_name(source: str) -> str:
    """A hub name as it is; of a folder its own name, because where it lies is nobody's business."""
    return (Path(source).name if Path(source).exists() else source) or "a model object"


def _settings(config: PRMConfig) -> dict[str, Any]:
    settings = asdict(config)
    lora = settings.pop("lora") or {}
    return settings | {f"lora.{name}": value for name, value in lora.items()}


def _code(value: object) -> str:
    """Quoted as code, so that no name can write Markdown of its own."""
    return "`" + str(value).replace("`", "'").replace("|", "/").replace("\n", " ") + "`"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
