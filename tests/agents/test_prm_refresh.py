import pytest
import torch

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.prm_refresh import PRMRefresh
from codegym import Task, Verdict, load_tasks
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram, SampledProgram

TASK = load_tasks("stepwise", limit=1, horizons=(2, 2))[0]
SHAPE = TinyModelConfig(
    vocab_size=300, hidden_size=16, n_layers=1, n_heads=2, n_kv_heads=1, intermediate_size=16
)


class AllRight:
    """Labels every line right and remembers what it was asked."""

    source = "all right"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def label(self, programs, tasks: dict[str, Task]) -> list[LabeledProgram]:
        assert all(program.task_id in tasks for program in programs)
        self.asked.append([program.program_id for program in programs])
        return [LabeledProgram(program=p, labels=(1.0,) * len(p.lines), source=self.source) for p in programs]


@pytest.fixture
def prm() -> ProcessRewardModel:
    tokenizer = train_tokenizer([TASK.prompt + TASK.reference], SHAPE.vocab_size)
    return ProcessRewardModel.from_backbone(make_tiny_model(tokenizer, SHAPE, seed=0), tokenizer)


def programs(prm: ProcessRewardModel, count: int = 3) -> list[SampledProgram]:
    return [
        SampledProgram(
            program_id=f"p/{number}",
            task_id=TASK.task_id,
            policy="p",
            prompt_ids=tuple(prm.tokenizer.encode(TASK.prompt)),
            token_ids=(*prm.tokenizer.encode(TASK.reference), prm.tokenizer.eos_token_id),
            completion=TASK.reference,
            finished=True,
            verdict=Verdict.PASSED,
            results=(True,),
        )
        for number in range(count)
    ]


def refresh_of(prm: ProcessRewardModel, labeler: AllRight | None) -> PRMRefresh:
    refresh = PRMRefresh(prm, {TASK.task_id: TASK}, learning_rate=1e-2, seed=5)
    refresh.labeler = labeler
    return refresh


def test_a_refresh_labels_the_programs_and_moves_the_very_model(prm):
    labeler, before = AllRight(), prm.identity
    refresh = refresh_of(prm, labeler)
    metrics = refresh(programs(prm))
    assert labeler.asked == [["p/0", "p/1", "p/2"]]
    assert metrics["refresh_programs"] == 3
    assert prm.identity != before
    losses = [refresh(programs(prm))["refresh_loss"] for _ in range(8)]
    assert losses[-1] < metrics["refresh_loss"]


def test_without_a_labeler_it_says_so(prm):
    with pytest.raises(ValueError, match="needs a labeler"):
        refresh_of(prm, None)(programs(prm))


def test_saved_and_loaded_it_goes_on_with_the_same_bits(prm, tmp_path):
    refresh = refresh_of(prm, AllRight())
    refresh(programs(prm))
    (tmp_path / "state").mkdir()
    refresh.save(tmp_path / "state")
    other = ProcessRewardModel.from_backbone(make_tiny_model(prm.tokenizer, SHAPE, seed=9), prm.tokenizer)
    resumed = refresh_of(other, AllRight())
    resumed.load(tmp_path / "state")
    assert other.identity == prm.identity
    assert resumed.n_done == 1
    for one in (refresh, resumed):
        one(programs(prm))
    for mine, theirs in zip(prm.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
