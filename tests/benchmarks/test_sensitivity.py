"""The sensitivity study: variants differ in one thing, what they part from, and the report by hand."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tyro
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.run_folder import RunFolder, RunFolderError, open_run
from agents.stages import STAGES, Context
from agents.stages.rl import Arm
from benchmarks import sensitivity
from benchmarks.ablation import ARMS as ABLATION_ARMS
from benchmarks.ablation import ARMS_OF, cell_config
from benchmarks.sensitivity import VARIANTS, Options, Variant, check_base, stages
from benchmarks.sensitivity_report import accuracy_figure, join_rates, model_of, variant_table, write_report
from benchmarks.study.base import MADE_BY
from codegym import load_tasks
from codegym.storage import append_rows, read_rows
from codegym.testing import ScriptedJudge, judgement
from prm.labeling import read_labels
from prm.model import ProcessRewardModel

CONFIG = cell_config("smoke", "sparse", 0)


# --- variants ---


def choices(name):
    """All that makes a variant, or an arm of the ablation, as flat settings."""
    config = cell_config("small", "sparse", 0)
    variant = VARIANTS.get(name) or Variant(varies="", arm=ABLATION_ARMS[name])
    flat = flatten(asdict(variant.settings(config)))
    flat |= {f"arm.{key}": value for key, value in asdict(replace(variant.arm, name="")).items()}
    return flat | {"completer": variant.completer, "prm_layers": variant.prm_layers}


def flatten(settings, prefix=""):
    flat = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


CHANGED = {
    "no_refresh": "arm.refresh",
    "statement": "dense.unit",
    "paper_form": "dense.form",
    "paper_head": "prm.head",
    "revised_only": "selection.strategy",
    "one_layer": "prm_layers",
    "few_exact": "label.programs_per_task",
    "few_k8": "label.source",
    "few_k2": "label.k",
    "few_cool": "label.temperature",
    "few_by_trained": "completer",
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_from_what_it_stands_against_in_one_thing(name):
    mine, other = choices(name), choices(VARIANTS[name].against)
    changed = {key for key in mine if mine[key] != other[key]}
    if name == "lambda_quarter":  # one weight for failing programs and one for passing ones
        assert changed == {"dense.lambda_fail", "dense.lambda_pass"}
    elif name == "from_checkpoints":  # as many programs: one of each checkpoint in the place of the start's
        assert changed == {"label.policies", "label.programs_per_task"}
        label = cell_config("small", "sparse", 0).label
        assert mine["label.checkpoints"] * mine["label.programs_per_task"] == label.programs_per_task
    else:
        assert changed == {CHANGED[name]}


def test_every_variant_stands_against_another_one_or_an_arm_of_the_ablation():
    for name, variant in VARIANTS.items():
        assert variant.against in {*VARIANTS, *ARMS_OF["sparse"]} - {name}
    told = [(variant.varies, variant.against) for variant in VARIANTS.values()]
    assert len(set(told)) == len(told)
    assert set(sensitivity.SMOKE) <= set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_makes_anew_what_its_change_reaches(name):
    """Programs and labels reach all that comes after, head and size the reward model, the rest the arm."""
    change = "label.policies" if name == "from_checkpoints" else CHANGED.get(name, "dense.lambda_fail")
    begins = {"completer": "baseline", "label": "baseline", "prm": "label", "selection": "label"}
    reached = begins.get(change.split(".")[0], "label" if change == "prm_layers" else "prm")
    assert VARIANTS[name].shares == reached
    works = list(stages(name, VARIANTS[name], Path("base")))
    assert works == ["baseline", "collect", "label", "prm", "accuracy", name, "test"]


def test_the_paper_s_weights_are_those_of_its_form():
    form = Arm(name="x", scheme="process", scheme_options={"form": "mean"})
    dense = VARIANTS["paper_form"].settings(CONFIG).dense
    assert (dense.lambda_fail, dense.lambda_pass) == (0.25, 0.025)
    assert dense.form == form.scheme_options["form"]


# --- what they part from ---


def make_base(out, stages=tuple(MADE_BY), config=CONFIG):
    start = out / "start/sft"
    start.mkdir(parents=True, exist_ok=True)
    run = open_run(out / "sparse/0", asdict(config))
    (run.path / "baseline").mkdir()
    for stage in stages:
        if MADE_BY[stage].endswith("jsonl"):
            append_rows(run.path / MADE_BY[stage], [{}])
        (run.path / "prm").mkdir(exist_ok=True)
        run.finish(stage, seconds=1.0, metrics={})
    return run.path


@pytest.mark.parametrize("cell", [None, "no_refresh/0"])
def test_without_the_ablation_nothing_is_begun(cell, tmp_path, monkeypatch):
    told = ["x", "--scale", "smoke", "--out", str(tmp_path / "o"), "--base", str(tmp_path / "base")]
    monkeypatch.setattr("sys.argv", [*told, *(("--cell", cell) if cell else ())])
    with pytest.raises(
        FileNotFoundError, match=r"'baseline': run python -m benchmarks\.ablation --scale smoke"
    ):
        sensitivity.main()
    make_base(tmp_path / "base", stages=("baseline", "collect"))
    with pytest.raises(FileNotFoundError, match="base/sparse/0 has not finished 'label'"):
        sensitivity.main()
    assert not (tmp_path / "o").exists()


def test_an_ablation_of_another_scale_is_refused(tmp_path):
    make_base(tmp_path / "base", config=cell_config("small", "sparse", 0))
    options = Options(scale="smoke", out=tmp_path / "o", base=tmp_path / "base")
    with pytest.raises(RunFolderError, match="scale 'small' instead of 'smoke'"):
        check_base(options, [0])
    check_base(replace(options, scale="small", variants=("no_refresh",)), [0])


def test_an_arm_that_completes_must_have_been_trained(tmp_path):
    base = make_base(tmp_path / "base")
    options = Options(scale="smoke", out=tmp_path / "o", base=tmp_path / "base", variants=("few_by_trained",))
    with pytest.raises(FileNotFoundError, match="base/sparse/0 has not finished the arm 'both'"):
        check_base(options, [0])
    RunFolder(base).finish("both", seconds=1.0, metrics={})
    check_base(options, [0])
    (base / "stages/both.json").unlink()
    check_base(replace(options, variants=("few_k8",)), [0])


# --- a smaller reward model ---


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([task.prompt + task.reference for task in load_tasks("stepwise", limit=4)], 320)


def llama(tokenizer, seed=0):
    shape = TinyModelConfig(
        vocab_size=320, hidden_size=16, n_layers=3, n_heads=2, n_kv_heads=1, intermediate_size=16
    )
    return make_tiny_model(tokenizer, shape, seed=seed)


def qwen(tokenizer):
    """An architecture whose settings list the kind of every layer."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=320, hidden_size=16, head_dim=8, intermediate_size=16, num_hidden_layers=3,
            num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip


def test_another_policy_s_completions_label_the_programs_of_the_start(tokenizer, tmp_path):
    config = replace(
        CONFIG,
        rl=replace(CONFIG.rl, max_new_tokens=6),
        label=replace(CONFIG.label, k=2, source="binary_search"),
    )
    for seed, place in ((0, "start"), (1, "base/both/policy")):
        llama(tokenizer, seed).save_pretrained(tmp_path / place)
        tokenizer.save_pretrained(tmp_path / place)
    variant = VARIANTS["few_by_trained"]
    completers = []
    for name, stage in (
        ("own", STAGES["label"]),
        ("other", stages("few_by_trained", variant, tmp_path / "base")["label"]),
    ):
        context = Context(open_run(tmp_path / name, {}), config)
        context._judge = ScriptedJudge(lambda task, source: judgement(task, 0))
        context.__dict__["train_tasks"] = load_tasks("stepwise", limit=2)
        (context.path / "sft").symlink_to(tmp_path / "start")
        STAGES["collect"].work(context, lambda *_: None)
        stage.work(context, lambda *_: None)
        rows = read_labels(context.path / "labels.jsonl")
        assert [row.program.policy for row in rows] == ["sft"] * 2 * config.label.programs_per_task
        completers.append({row.completer for row in rows if row.completer})
    assert [len(names) for names in completers] == [1, 1]
    assert completers[0] != completers[1]


@pytest.mark.parametrize("make", [llama, qwen])
def test_the_first_layers_of_a_policy_are_a_model_of_their_own(make, tokenizer, tmp_path, capfd):
    whole = make(tokenizer)
    whole.save_pretrained(tmp_path / "sft")
    tokenizer.save_pretrained(tmp_path / "sft")
    capfd.readouterr()
    sensitivity.save_first_layers(tmp_path / "sft", 1, tmp_path / "backbone")
    assert "UNEXPECTED" not in "".join(capfd.readouterr())
    cut = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone")
    assert cut.config.num_hidden_layers == len(cut.model.layers) == 1
    kept = {name: value for name, value in whole.state_dict().items() if ".layers." not in name}
    kept |= {name: value for name, value in whole.state_dict().items() if ".layers.0." in name}
    assert {name: value.tolist() for name, value in cut.state_dict().items()} == {
        name: value.tolist() for name, value in kept.items()
    }
    assert ProcessRewardModel.from_backbone(tmp_path / "backbone") is not None


# --- the report ---


def mark(run, stage, accuracy):
    quality = {"programs": 9, "local_auc": "0.750 [0.700, 0.800]", "first_error_accuracy": accuracy}
    run.finish(stage, seconds=1.0, metrics={"validation": {"all": quality}})


def test_accuracy_and_drift_by_hand(tmp_path, cells):
    for seed, accuracy in enumerate(("0.500 [0.400, 0.600]", "0.700")):
        folder = tmp_path / "out/few_k8" / str(seed)
        mark(RunFolder(folder), "accuracy", accuracy)
        mark(RunFolder(folder), "prm", "0.999")  # on its own labels, which are not exact
        cells.write_curve(folder / "few_k8", {"gap": float, "lines": lambda i: 2.0 * i}, n=8)
    found = model_of(tmp_path / "out", tmp_path / "base", "few_k8", (0, 1))
    assert found == {"local_auc": 0.75, "first_error_accuracy": pytest.approx(0.6), "gap": 7.5, "lines": 16.0}
    assert model_of(tmp_path / "out", tmp_path / "base", "absent", (0, 1)) == {}


def test_what_could_not_be_measured_is_left_out(tmp_path):
    mark(RunFolder(tmp_path / "base/0"), "prm", "-")
    RunFolder(tmp_path / "base/1").finish("prm", seconds=1.0, metrics={"validation": {}})
    assert model_of(tmp_path / "out", tmp_path / "base", "both", (0, 1)) == {"local_auc": 0.75}


@pytest.fixture
def study(tmp_path, cells):
    """Two variants and an ablation, one seed; the ablation has other tasks too, and another order."""
    out, base = tmp_path / "out", tmp_path / "base/sparse"
    for name, flags in {"no_refresh": [1, 0], "few_exact": [0, 0]}.items():
        cells.write_flags(out / name / "0/test.jsonl", {name: flags}, (2, 2))
        mark(RunFolder(out / name / "0"), "accuracy", "0.500")
    rows = [
        cells.row(arm, task, horizon, task == "t1", decoding)
        for arm in ("both", "value")
        for task, horizon in (("t9", 1), ("t1", 2), ("t0", 2))
        for decoding in ("sampled", "greedy")
    ]
    cells.write(base / "0/test.jsonl", rows)
    mark(RunFolder(base / "0"), "prm", "0.600")
    return out, base


def test_variants_are_paired_with_the_ablation_s_arms_task_by_task(study):
    out, base = study
    names = ["no_refresh", "few_exact"]
    assert {arm for arm, _ in join_rates(out, base, names, [0], (2, 2))[0]} == set(names)  # not tested yet
    RunFolder(base / "0").finish("test", seconds=1.0, metrics={})
    rates, tasks = join_rates(out, base, names, [0], (2, 2))
    assert list(tasks) == ["t0", "t1"]
    assert rates["no_refresh", "sampled"].tolist() == [[1, 0]]
    assert rates["both", "sampled"].tolist() == [[0, 1]]
    assert ("value", "sampled") not in rates


def test_other_tasks_are_an_error_even_if_they_have_as_many_steps(study, cells):
    out, base = study
    cells.write(out / "few_cool/0/test.jsonl", [cells.row("few_cool", f"u{n}", 2, True) for n in range(2)])
    with pytest.raises(ValueError, match="few_cool was tested on other tasks of 2-2 steps than no_refresh"):
        join_rates(out, base, ["no_refresh", "few_cool"], [0], (2, 2))


def test_the_report(study):
    out, base = study
    RunFolder(base / "0").finish("test", seconds=1.0, metrics={})
    told = {name: (VARIANTS[name].varies, VARIANTS[name].against) for name in ("no_refresh", "few_exact")}
    text = write_report(out, base, told, [0], CONFIG, "python -m x --y")
    assert "with one seed they say nothing of how seeds differ" in text
    rows = list(read_rows(out / "rows.jsonl"))
    found = {
        (row["arm"], row["other"]): row["value"]
        for row in rows
        if row["measure"] == "difference" and row["decoding"] == "sampled"
    }
    assert found == {
        ("no_refresh", "both"): 0.0, ("few_exact", "no_refresh"): -0.5, ("few_exact", "both"): -0.5
    }  # fmt: skip
    page = (out / "report.md").read_text()
    assert "| both | 0.500" in page
    assert f"| no_refresh | {told['few_exact'][0]} |" in page
    assert "python -m x --y\n" in page
    assert write_report(out, base, told, [0], CONFIG, "python -m x --y") == text


def test_tables_and_figures_of_what_is_missing():
    nan = float("nan")
    passes = [
        {"measure": "pass", "arm": "a", "decoding": "sampled", "value": 0.5, "low": nan, "high": nan},
        {"measure": "pass", "arm": "b", "decoding": "greedy", "value": 0.5, "low": 0.4, "high": 0.6},
    ]
    models = [{"arm": "a", "first_error_accuracy": 0.5}, {"arm": "b", "gap": np.float64(0.25)}, {"arm": "c"}]
    table = variant_table(passes, models, ["a", "b", "c"], {"a": ("x", "both")})
    assert table.rows == [
        ["a", "0.500", "-", "-", "0.500", "-", "-", "both", "x"],
        ["b", "-", "0.500 [0.400, 0.600]", "-", "-", "0.250", "-", "-", "an arm of the ablation"],
        ["c", *["-"] * 7, "an arm of the ablation"],
    ]
    assert "<svg" in accuracy_figure(passes, models)
    assert json.dumps(models[2]) == '{"arm": "c"}'


def test_the_figure_shows_every_reward_model_once():
    accuracies = {
        "both": (0.9, 0.7),
        "no_refresh": (0.9, 0.7),
        "few_k8": (0.8, 0.7),
        "paper_head": (0.9, 0.5),
    }
    passes = [
        {"measure": "pass", "arm": arm, "decoding": "sampled", "value": 0.5, "low": 0.4, "high": 0.6}
        for arm in accuracies
    ]
    models = [
        {"arm": arm, "local_auc": auc, "first_error_accuracy": first}
        for arm, (auc, first) in accuracies.items()
    ]
    figure = accuracy_figure(passes, models)
    assert [arm for arm in accuracies if f">{arm}<" in figure or f"<!-- {arm} -->" in figure] == [
        "both",
        "few_k8",
        "paper_head",
    ]


def test_variants_that_are_asked_for_reach_the_cells_command(tmp_path):
    options = Options(variants=("no_refresh", "few_k2"), out=tmp_path)
    assert options.chosen == ("no_refresh", "few_k2")
    again = tyro.cli(Options, args=options.arguments())
    assert again == options


def test_all_variants_are_made_unless_some_are_asked_for():
    assert Options().chosen == tuple(VARIANTS)
    assert Options(scale="smoke").chosen == sensitivity.SMOKE


@pytest.mark.parametrize(("variants", "problem"), [(("nope",), "nope"), ((), "must not be empty")])
def test_variants_that_do_not_exist_are_refused(variants, problem):
    with pytest.raises(ValueError, match=problem):
        Options(variants=variants)
