import json
import subprocess
import sys
from pathlib import Path

import pytest

from agents.cli import COMMANDS, SUMMARY, main
from agents.commands.psgpo import parse
from agents.config import SCALES, PipelineConfig
from codegym import UnknownNameError, load_tasks


def test_every_command_has_a_summary():
    assert COMMANDS.keys() == SUMMARY.keys()


def test_without_a_command_the_usage_lists_them(capsys):
    assert main([]) == 2
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in COMMANDS)


def test_an_unknown_command_lists_the_choices(capsys):
    assert main(["psgop"]) == 2
    error = capsys.readouterr().err
    assert "unknown command 'psgop' (did you mean 'psgpo'?)" in error
    assert ", ".join(sorted(COMMANDS)) in error


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_sets_every_default(scale):
    assert parse(["--scale", scale]).config == SCALES[scale]


def test_options_override_the_scale():
    options = parse(["--scale", "smoke", "--rl.kl-coef", "0.5", "--seed", "7", "--out", "x/y"])
    assert options.out == Path("x/y")
    assert options.config.rl.kl_coef == 0.5
    assert options.config.rl.n_iterations == SCALES["smoke"].rl.n_iterations
    assert options.config.sft.seed == options.config.prm.seed == options.config.seed == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scale", "huge"], "unknown scale 'huge'; choose from full, small, smoke"),
        (["--tasks", "stepwize"], "unknown task source 'stepwize' (did you mean 'stepwise'?)"),
        (["--judge", "lokal"], "unknown judge 'lokal' (did you mean 'local'?)"),
        (["--rl.sampler", "vvlm"], "unknown sampler 'vvlm'"),
        (["--stage", "trian"], "unknown stage 'trian'"),
        (["--train-tasks", "0"], "train_tasks must be at least 1, got 0"),
        (["--rl-horizons", "0", "3"], "1 <= shortest <= longest, got (0, 3)"),
        (["--eval-horizons", "5", "2"], "1 <= shortest <= longest, got (5, 2)"),
        (["--sft-horizons", "1", "3"], "sft_horizons must cover rl_horizons, got (1, 3) and (9, 12)"),
        (["--no-baseline"], "there are no checkpoints of it whose programs could be labelled"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(arguments, said, capsys, tmp_path):
    assert main(["psgpo", "--out", str(tmp_path / "run"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rl.kl-coeff", "0.1"], "--rl.kl-coef"),
        (["--sft.seed", "7"], "--sft.seed"),
        (["--prm.seed", "5"], "--prm.seed"),
        (["--rl.clip-range", "2"], "clip_range must be in (0, 1), got 2.0"),
        (["--dense.lambda-fail", "5"], "a failing program could earn 4.75"),
        (["--dense.refresh-learning-rate", "-1"], "refresh_learning_rate must be finite"),
        (["--label.k", "0"], "k must be at least 1, got 0"),
        (["--label.source", "oracle"], "Invalid choice"),
        (["--seed", "x"], "'x'"),
    ],
)
def test_an_unknown_option_or_a_bad_field_is_named(arguments, said, capsys):
    with pytest.raises(SystemExit) as error:
        main(["psgpo", *arguments])
    assert error.value.code == 2
    assert said in capsys.readouterr().err


def test_a_foreign_folder_is_refused(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["psgpo", "--out", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_stage_alone_needs_the_stages_it_reads_from(capsys, tmp_path):
    assert main(["psgpo", "--scale", "smoke", "--out", str(tmp_path), "--stage", "prm"]) == 2
    assert "stage 'prm' reads what stage 'label' writes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{tmp}/nowhere", "--model must name the folder of a causal LM, got {tmp}/nowhere"),
        ("./nowhere", "--model must name the folder of a causal LM, got ./nowhere"),
        ("{tmp}/empty", "--model must name the folder of a causal LM, got {tmp}/empty"),
        ("{tmp}/file", "--model must name the folder of a causal LM, got {tmp}/file"),
        ("{tmp}/bare", "--model {tmp}/bare could not be loaded"),
    ],
)
def test_a_model_that_is_not_there_exits_2_and_leaves_the_folder_to_other_settings(
    model, said, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text('{"model_type": "llama"}')
    run = ["psgpo", "--scale", "smoke", "--out", str(tmp_path / "run")]
    assert main([*run, "--model", model.format(tmp=tmp_path)]) == 2
    assert said.format(tmp=tmp_path) in capsys.readouterr().err
    assert main([*run, "--stage", "prm"]) == 2
    assert "stage 'prm' reads what stage 'label' writes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [(IsADirectoryError, 2), (NotADirectoryError, 2), (PermissionError, 2), (BrokenPipeError, None)],
)
def test_a_path_that_cannot_be_used_exits_2_and_other_errors_are_not_hidden(
    error, status, monkeypatch, capsys
):
    def command(argv):
        raise error(1, "why", "a/b")

    monkeypatch.setattr("agents.commands.tasks.main", command)
    if status is None:
        with pytest.raises(error):
            main(["tasks"])
    else:
        assert main(["tasks"]) == status
        assert capsys.readouterr().err == "codegym: [Errno 1] why: 'a/b'\n"


def test_an_unknown_task_source_is_an_error_of_the_config_itself():
    with pytest.raises(UnknownNameError, match=r"choose from .*stepwise"):
        PipelineConfig(tasks="nope")


@pytest.mark.parametrize(
    "config", [{"eval_horizons": ()}, {"rl_horizons": (9, 13)}, {"sft_horizons": (10, 12)}]
)
def test_horizons_that_cannot_be_used_are_an_error_of_the_config_itself(config):
    with pytest.raises(ValueError, match="horizons must"):
        PipelineConfig(**config)


def test_tasks_lists_sources_and_shows_one(capsys):
    assert main(["tasks"]) == 0
    assert "stepwise" in capsys.readouterr().out
    assert main(["tasks", "stepwise", "--split", "test", "--limit", "2", "--show", "2"]) == 0
    shown = capsys.readouterr().out
    for task in load_tasks("stepwise", split="test", limit=2):
        assert task.task_id in shown
        assert task.prompt in shown


@pytest.fixture
def task():
    return load_tasks("stepwise", limit=1)[0]


def test_judge_tells_right_from_wrong(task, tmp_path, capsys):
    right, wrong, whole = tmp_path / "right.py", tmp_path / "wrong.py", tmp_path / "whole.py"
    right.write_text(task.reference)
    wrong.write_text("    return v0\n    syntax error\n")
    whole.write_text(task.prompt + task.reference)
    assert main(["judge", str(right), "--task", task.task_id, "--completion"]) == 0
    assert "passed, 8 of 8 tests" in capsys.readouterr().out
    assert main(["judge", str(whole), "--task", task.task_id]) == 0
    capsys.readouterr()
    assert main(["judge", str(right), str(wrong), "--task", task.task_id, "--completion", "--json"]) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["verdict"] for record in records] == ["passed", "syntax_error"]
    assert records[1]["error_line"] == task.prompt.count("\n") + 2
    assert records[0]["tests_passed"] == records[0]["tests_total"] == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.py", "--task", "{id}"], "missing.py"),
        (["{folder}", "--task", "{id}"], "Is a directory: '{folder}'"),
        (["{file}/x", "--task", "{id}"], "Not a directory: '{file}/x'"),
        (["{file}", "--task", "nowhere/1"], "unknown task source 'nowhere'"),
        (["{file}", "--task", "stepwise/train-2-12-0/x"], "stepwise/train-2-12-0/x"),
        (["{file}", "--task", "{id}", "--judge", "lokal"], "unknown judge 'lokal'"),
    ],
)
def test_bad_input_to_judge_exits_2_and_says_why(arguments, said, task, tmp_path, capsys):
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    filled = [argument.format(id=task.task_id, file=file, folder=tmp_path) for argument in arguments]
    assert main(["judge", *filled]) == 2
    assert said.format(file=file, folder=tmp_path) in capsys.readouterr().err


def test_commands_that_need_no_model_do_not_load_torch():
    code = (
        "import sys, agents.cli; agents.cli.main(['tasks']); "
        "assert not {'torch', 'transformers', 'stable_baselines3'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
