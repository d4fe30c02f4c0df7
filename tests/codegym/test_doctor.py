"""The doctor finds planted flaws, each once and at the right task, and nothing in a clean set."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import (
    AssertionTest,
    CallTest,
    Episode,
    StdioTest,
    Task,
    TaskError,
    UnknownNameError,
    Verdict,
    load_tasks,
    make_judge,
    make_scheme,
)
from codegym.doctor import CHECKS, Examination, Severity, examine
from codegym.doctor.hacking import spoil
from codegym.doctor.marks import FEWEST_NODES, marks_of
from codegym.doctor.running import TRIVIAL, stub
from codegym.judge.codec import MAX_DEPTH
from codegym.rewards.probes import PROBES, probe_returns
from codegym.rewards.process import ProcessReward
from codegym.table import resolve
from codegym.testing import ScriptedJudge, ScriptedScorer, judgement
from codegym.verdict import Judgement

REFERENCE = """    total = 0
    for number in numbers:
        if number > {n}:
            total = total + number * {n}
    return total
"""


def expected(numbers, n):
    return sum(number * n for number in numbers if number > n)


def sound(n, split="train", **changes):
    """One of many clean tasks, no two of them the same."""
    task = Task(
        task_id=f"mine/{n}",
        prompt=f'def solve(numbers):\n    """Sum {n} times each number above {n}."""\n',
        entry_point="solve",
        tests=tuple(
            CallTest(args=(numbers,), expected=expected(numbers, n))
            for numbers in ([], [n, n + 1], [n + 2, 1, n + 9])
        ),
        split=split,
        reference=REFERENCE.format(n=n),
    )
    return replace(task, **changes)


CLEAN = [sound(n, split) for n, split in enumerate(["train", "train", "validation", "test", "test"], start=2)]


@pytest.fixture(scope="module")
def judge():
    with make_judge("local", workers=1) as judge:
        yield judge


def by_reference(task, source):
    """Judges as the tests would where every program is the reference, a stub or spoilt."""
    solves = task.reference is not None and task.assemble(task.reference) in source
    return judgement(task, len(task.tests) if solves else 0)


def found(diagnosis):
    return [(f.check, f.task_id) for findings in diagnosis.findings.values() for f in findings]


# ---------------------------------------------------------------- planted flaws, really run


def test_a_clean_set_has_no_findings(judge):
    diagnosis = examine(
        CLEAN, judge=judge, scheme=make_scheme("pass_fail"), benchmarks={"other": [sound(90)]}
    )
    assert found(diagnosis) == []
    assert tuple(diagnosis.findings) == tuple(CHECKS)
    assert (diagnosis.n_tasks, diagnosis.n_references) == (5, 5)
    assert diagnosis.gains == dict.fromkeys(PROBES, 0.0)


def test_a_wrong_reference_is_found(judge):
    wrong = sound(9, reference=REFERENCE.format(n=8))
    diagnosis = examine([*CLEAN, wrong], judge=judge)
    assert found(diagnosis) == [("reference", "mine/9")]
    (finding,) = diagnosis.findings["reference"]
    assert finding.severity is Severity.ERROR
    assert finding.message.startswith("the reference gives wrong_answer, 1 of 3 tests")


def test_a_reference_that_raises_is_found_with_its_line(judge):
    broken = sound(9, reference="    return nothing\n")
    (finding,) = examine([broken], judge=judge).findings["reference"]
    assert "runtime_error" in finding.message
    assert "line 3" in finding.message


def test_a_flaky_test_is_found(judge):
    code = "import random\nassert candidate([99]) == 99 * 9 and random.random() < 0.5\n"
    flaky = sound(9, tests=(AssertionTest(code=code),) * 4)
    diagnosis = examine([*CLEAN, flaky], judge=judge, repeats=12)
    assert found(diagnosis) == [("flaky", "mine/9")]


def test_a_flaky_reference_is_found(judge):
    reference = "    import time\n" + REFERENCE.format(n=9).replace(
        "total\n", "total + time.time_ns() // 7 % 2\n"
    )
    flaky = sound(9, reference=reference, tests=(*sound(9).tests,) * 4)
    diagnosis = examine([*CLEAN, flaky], judge=judge, repeats=12)
    assert found(diagnosis) == [("flaky", "mine/9")]


def test_a_slow_reference_is_found(judge):
    wait = "    import time\n    while time.process_time() < {seconds}:\n        pass\n"
    slow = sound(9, reference=wait.format(seconds=0.6) + REFERENCE.format(n=9), tests=sound(9).tests[:1])
    diagnosis = examine([*CLEAN, slow], judge=judge, repeats=1, time_limit_s=1.0)
    assert found(diagnosis) == [("head_room", "mine/9")]
    (finding,) = diagnosis.findings["head_room"]
    assert finding.severity is Severity.WARNING
    assert "of 1 CPU seconds" in finding.message


def test_a_test_that_an_empty_program_passes_is_found(judge):
    diagnosis = examine([*CLEAN, sound(9, tests=(AssertionTest(code="pass\n"),))], judge=judge)
    assert found(diagnosis) == [("trivial", "mine/9")]
    (finding,) = diagnosis.findings["trivial"]
    assert finding.message == "programs that solve nothing pass: empty, pass, return None, raise"


@pytest.mark.parametrize(
    ("code", "passing"),
    [
        ("pass\n", "pass, return None, raise"),
        ("assert candidate([99]) in (None, 891)\n", "pass, return None"),
        ("try:\n    candidate([99])\nexcept RuntimeError:\n    pass\n", "pass, return None, raise"),
    ],
)
def test_a_test_that_nothing_passes_is_found(judge, code, passing):
    # a prompt of prose leaves the entry point undefined where the program is empty
    prose = sound(9, prompt='"""Sum."""\n', reference="def solve(numbers):\n" + REFERENCE.format(n=9))
    diagnosis = examine([*CLEAN, replace(prose, tests=(AssertionTest(code=code),))], judge=judge)
    assert found(diagnosis) == [("trivial", "mine/9")]
    assert diagnosis.findings["trivial"][0].message.endswith(passing)


def test_programs_that_read_stdin_are_examined_too(judge):
    task = Task(
        task_id="echo",
        prompt="Print the input.",
        entry_point=None,
        tests=(StdioTest(stdin="a\n", stdout="a\n"),),
        reference="print(input())\n",
        prompt_is_code=False,
    )
    silent = replace(task, task_id="silent", prompt="Be silent.", tests=(StdioTest(stdin="a", stdout=""),))
    diagnosis = examine([task, replace(silent, reference="pass\n")], judge=judge)
    assert found(diagnosis) == [("trivial", "silent")]
    assert diagnosis.findings["trivial"][0].message.endswith("empty, pass, return None")


def test_a_hostile_message_stays_on_one_line(judge):
    hostile = sound(9, reference='    raise ValueError("\\x1b[2J\\nfine")\n')
    (finding,) = examine([hostile], judge=judge).findings["reference"]
    assert finding.message.isprintable()


def test_several_flaws_are_told_apart(judge):
    planted = [
        *CLEAN,
        sound(9, reference=REFERENCE.format(n=8)),
        replace(CLEAN[0], task_id="copy"),
        replace(CLEAN[0], task_id="leak", split="test"),
        sound(10, tests=(AssertionTest(code="pass\n"),)),
        sound(11, tests=(CallTest(args=(object(),), expected=0),)),
    ]
    assert found(examine(planted, judge=judge)) == [
        ("tests", "mine/11"),
        ("reference", "mine/9"),
        ("trivial", "mine/10"),
        ("duplicates", "copy"),
        ("leaks", "leak"),
    ]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_bundled_tasks_have_no_errors(judge, split):
    tasks = load_tasks("stepwise", split=split, limit=22)
    diagnosis = examine(tasks, judge=judge, scheme=make_scheme("pass_rate"), repeats=2, n_probed=8)
    assert diagnosis.count(Severity.ERROR) == 0
    assert set(diagnosis.gains) == set(PROBES)


# ---------------------------------------------------------------- tests that cannot be run


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("tests", "problem"),
    [
        ((), "no tests"),
        ((CallTest(args=(object(),), expected=1),), "not plain data"),
        ((CallTest(args=(1,), expected=nested(MAX_DEPTH + 2)),), "deeper than"),
        ((AssertionTest(code="assert (\n"),), "no Python"),
    ],
)
def test_tests_that_cannot_be_run_are_found_without_running(tests, problem):
    judge = ScriptedJudge(by_reference)
    diagnosis = examine([sound(9, tests=tests), *CLEAN], judge=judge)
    assert found(diagnosis) == [("tests", "mine/9")]
    assert problem in diagnosis.findings["tests"][0].message
    assert all(task.task_id != "mine/9" for batch in judge.batches for task, _ in batch)


def test_a_set_of_nothing_but_broken_tasks_is_examined():
    judge = ScriptedJudge(by_reference)
    assert found(examine([sound(9, tests=())], judge=judge, scheme=make_scheme("pass_fail"))) == [
        ("tests", "mine/9")
    ]


# ---------------------------------------------------------------- duplicates, leaks, benchmarks

OVERLAP = ("duplicates", "leaks", "benchmarks")


def overlap(*tasks, benchmarks=None):
    return examine(tasks, judge=ScriptedJudge(by_reference), checks=OVERLAP, benchmarks=benchmarks)


RENAMED = """    # the same, spelt otherwise
    result   = 0
    for x in numbers:
        if x > 2: result = result + x * 2
    return result
"""


def renamed(split):
    """The task CLEAN[0] in other words, with other names and white space, and with other tests."""
    return replace(
        CLEAN[0],
        task_id="renamed",
        prompt='def other(numbers: list) -> int:\n    """Another text."""\n',
        entry_point="other",
        tests=(CallTest(args=([50],), expected=100),),
        split=split,
        reference=RENAMED,
    )


def test_a_task_with_renamed_variables_in_another_split_is_a_leak():
    diagnosis = overlap(*CLEAN, renamed("test"))
    assert found(diagnosis) == [("leaks", "renamed")]
    (finding,) = diagnosis.findings["leaks"]
    assert finding.severity is Severity.ERROR
    assert finding.message == "the same reference in split 'test' as 'mine/2' in split 'train'"


def test_a_task_with_renamed_variables_in_its_split_is_a_duplicate():
    diagnosis = overlap(*CLEAN, renamed("train"))
    assert found(diagnosis) == [("duplicates", "renamed")]
    (finding,) = diagnosis.findings["duplicates"]
    assert (finding.severity, finding.message) == (Severity.WARNING, "the same reference as 'mine/2'")


def test_a_prompt_with_other_white_space_and_case_is_the_same():
    spelt = replace(
        sound(9),
        prompt=CLEAN[0].prompt.upper().replace(" ", "  "),
        prompt_is_code=False,
        tests=(StdioTest(stdin="", stdout="1"),),
        entry_point=None,
    )
    assert overlap(CLEAN[0], spelt).findings["duplicates"][0].message == "the same prompt as 'mine/2'"


def test_tests_in_another_order_for_another_name_are_the_same():
    one = sound(8, tests=tuple(AssertionTest(code=f"assert solve({n}) == {n}\n") for n in (1, 2)))
    other = sound(9, tests=tuple(AssertionTest(code=f"assert  work({n})  == {n}") for n in (2, 1)))
    assert found(overlap(one, replace(other, entry_point="work"))) == [("duplicates", "mine/9")]
    assert found(overlap(one, other)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"comparison": "equal"},
        {"expected": 3},
        {"args": (True,)},
    ],
)
def test_other_tests_are_other_tasks(change):
    test = CallTest(args=(1,), expected=2)
    assert found(overlap(sound(8, tests=(test,)), sound(9, tests=(replace(test, **change),)))) == []


def test_an_id_that_occurs_twice_is_found():
    assert overlap(sound(8), sound(9, task_id="mine/8")).findings["duplicates"][0].message == (
        "the same id as 'mine/8'"
    )


def test_a_copy_is_one_finding_that_says_what_is_the_same():
    (finding,) = overlap(sound(8), sound(8)).findings["duplicates"]
    assert finding.message == "the same id and prompt and tests and reference as 'mine/8'"


def test_short_references_say_nothing():
    tasks = [sound(n, reference="    return numbers[0]\n") for n in (8, 9)]
    assert "reference" not in marks_of(tasks[0])
    assert FEWEST_NODES > 10
    assert found(overlap(*tasks)) == []


def test_calls_of_other_builtins_are_other_references():
    least, most = (REFERENCE.format(n=2) + f"    return {name}(numbers)\n" for name in ("min", "max"))
    assert marks_of(sound(2, reference=least)) != marks_of(sound(2, reference=most))


def test_references_that_do_not_parse_have_no_mark():
    assert set(marks_of(sound(2, reference="    return (\n"))) == {"prompt", "tests"}
    assert set(marks_of(sound(2, reference=None))) == {"prompt", "tests"}


@pytest.mark.parametrize("length", [300, 900, 3000, 100_000])
def test_code_that_is_nested_too_deeply_does_no_harm(length):
    deep = f"    return {'+'.join(['1'] * length)}\n"
    test = AssertionTest(code=f"assert candidate([]) == {'-' * length}1\n")
    assert {"prompt"} <= marks_of(sound(2, reference=deep, tests=(test,))).keys()


def test_a_copy_of_a_copy_is_a_duplicate_of_the_first_and_leaks_once():
    tasks = [CLEAN[0], replace(CLEAN[0], task_id="b"), replace(CLEAN[0], task_id="c", split="test")]
    assert found(overlap(*tasks)) == [("duplicates", "b"), ("leaks", "c")]


def test_tasks_of_a_benchmark_that_are_trained_on_are_found():
    benchmark = [sound(n, "test", task_id=f"bench/{n}") for n in (2, 4, 5)] + [sound(3, task_id="bench/3")]
    diagnosis = overlap(*CLEAN, benchmarks={"bench": benchmark})
    # 2 is of split train and 4 of validation; 5 is only evaluated, and 3 is no test task of the benchmark
    assert found(diagnosis) == [("benchmarks", "mine/2"), ("benchmarks", "mine/4")]
    assert "as 'bench/2' of bench" in diagnosis.findings["benchmarks"][0].message


def test_the_benchmark_itself_has_no_overlap_with_itself_beyond_its_own_leaks():
    tasks = [*CLEAN, renamed("test")]
    diagnosis = overlap(renamed("test"), *CLEAN, benchmarks={"own": tasks})
    assert found(diagnosis) == [("leaks", "mine/2")]


NAMES = st.lists(st.from_regex(r"[a-z]{3,8}_[a-z]", fullmatch=True), min_size=2, max_size=2, unique=True)


@settings(max_examples=30)
@given(NAMES)
def test_names_that_a_program_binds_do_not_matter(names):
    total, number = names
    text = REFERENCE.format(n=2).replace("number ", f"{number} ").replace("total", total)
    assert marks_of(sound(2, reference=text)) == marks_of(CLEAN[0])


# ---------------------------------------------------------------- hack probes under a scheme


def probed(scheme, tasks=CLEAN, **options):
    return examine(tasks, judge=ScriptedJudge(by_reference), scheme=scheme, checks=("probes",), **options)


RIGHT = ScriptedScorer(lambda episode: [1.0] * len(episode.lines))


def test_a_sum_of_scores_is_gamed():
    scheme = ProcessReward.from_scorer(RIGHT, form="sum", lambda_fail=0.1, lambda_pass=0.0)
    diagnosis = probed(scheme)
    errors = {f.message.split()[0] for f in diagnosis.findings["probes"] if f.severity is Severity.ERROR}
    # 8 lines of padding at 0.1 each go above the 1.0 of a passing program, from at least 0.4
    assert {"front_padding", "dead_code"} <= errors
    assert diagnosis.gains["dead_code"] == pytest.approx(0.8)
    assert diagnosis.gains["comment_spam"] == 0
    gains = [diagnosis.gains[f.message.split()[0]] for f in diagnosis.findings["probes"]]
    assert gains[: len(errors)] == sorted(gains[: len(errors)], reverse=True)


def test_a_gain_below_a_pass_is_a_warning():
    scheme = ProcessReward.from_scorer(RIGHT, form="sum", lambda_fail=0.01, lambda_pass=0.0)
    findings = {f.message.split()[0]: f for f in probed(scheme).findings["probes"]}
    assert findings["dead_code"].severity is Severity.WARNING
    assert "by 0.08 on average; at worst" in findings["dead_code"].message
    assert findings["dead_code"].task_id in {task.task_id for task in CLEAN}
    assert not {"comment_spam", "blank_lines", "stop_early"} & findings.keys()


def test_a_scheme_that_pays_failures_as_much_as_passes_is_found_without_a_probe():
    scheme = ProcessReward.from_scorer(RIGHT, form="sum", lambda_fail=1.0, lambda_pass=0.0)
    finding = probed(scheme).findings["probes"][0]
    assert finding.severity is Severity.ERROR
    assert finding.message.startswith("without any probe, ")


def test_a_probe_that_reaches_a_pass_is_reported_at_the_worst_task():
    def score(episode):
        return [1.0] * len(episode.lines) if episode.task.task_id == "mine/4" else [0.0] * len(episode.lines)

    scheme = ProcessReward.from_scorer(ScriptedScorer(score), form="sum", lambda_fail=0.1, lambda_pass=0.0)
    errors = [f for f in probed(scheme).findings["probes"] if f.severity is Severity.ERROR]
    assert errors
    assert {f.task_id for f in errors} == {"mine/4"}


@pytest.mark.parametrize("name", ["pass_fail", "pass_rate", "weighted", "rltf"])
def test_schemes_by_tests_alone_have_no_findings(name):
    assert found(probed(make_scheme(name))) == []


def test_without_a_scheme_or_a_passing_reference_there_are_no_gains():
    assert probed(None).gains == {}
    assert probed(make_scheme("pass_fail"), [sound(2, reference=None)]).gains == {}


def test_so_many_tasks_are_probed_spread_evenly():
    seen = []
    scorer = ScriptedScorer(lambda episode: seen.append(episode.task.task_id) or [0.0] * len(episode.lines))
    tasks = [sound(n) for n in range(2, 12)]
    probed(ProcessReward.from_scorer(scorer), tasks, n_probed=5)
    assert set(seen) == {f"mine/{n}" for n in (2, 4, 6, 8, 10)}


def test_spoilt_references_lack_the_end_or_return_something_else():
    dropped, altered = spoil(CLEAN[0])
    assert dropped == tuple(REFERENCE.format(n=2).splitlines()[:-1])
    assert altered == (*dropped, "    return [total]")
    assert list(spoil(sound(2, reference="    return (\n"))) == []
    assert list(spoil(sound(2, reference="    return 1\n"))) == [("    return [1]",)]


def test_returns_are_told_by_program_and_a_passing_one_is_refused():
    scheme = make_scheme("length", rate=0.01, cap=1.0)
    failing = [
        Episode(task=CLEAN[0], lines=lines, terminated=True, judgement=judgement(CLEAN[0], 0))
        for lines in spoil(CLEAN[0])
    ]
    before, after = probe_returns(scheme, failing, ScriptedJudge(lambda task, source: judgement(task, 0)))
    assert before.shape == (2,)
    assert (after["blank_lines"] - before).tolist() == pytest.approx([0.04, 0.06])
    passing = replace(failing[0], judgement=judgement(CLEAN[0], 3))
    with pytest.raises(ValueError, match="got one that passes among 1"):
        probe_returns(scheme, [passing], ScriptedJudge(by_reference))


# ---------------------------------------------------------------- stubs


@pytest.mark.parametrize("statement", [text for text in TRIVIAL.values() if text])
@pytest.mark.parametrize(
    ("prompt", "entry_point", "is_code"),
    [
        ("def solve(numbers):\n", "solve", True),
        ('def solve(numbers):\n  """Two spaces."""\n', "solve", True),
        ('"""Write solve."""\n', "solve", True),
        ("Write solve.", "solve", False),
        ("", "Solution.solve", True),
        ("Read a number.", None, False),
    ],
)
def test_stubs_are_programs_that_define_the_entry_point(statement, prompt, entry_point, is_code):
    indent = "  " if "Two" in prompt else "    "
    task = sound(
        2, prompt=prompt, entry_point=entry_point, prompt_is_code=is_code, reference=f"{indent}return 1\n"
    )
    source = task.assemble(stub(task, statement))
    namespace = {}
    if entry_point is None and "raise" in statement:
        with pytest.raises(RuntimeError, match="always raises"):
            exec(source, namespace)
        return
    exec(source, namespace)
    if entry_point is None:
        return
    call = namespace["Solution"]().solve if "." in entry_point else namespace["solve"]
    if "raise" in statement:
        with pytest.raises(RuntimeError, match="always raises"):
            call([1])
    else:
        assert call([1]) is None


# ---------------------------------------------------------------- the examination as a whole


def test_every_check_resolves_and_finds_nothing_in_a_clean_set():
    examination = Examination(tasks=CLEAN, judge=ScriptedJudge(by_reference))
    for name in CHECKS:
        assert list(resolve(CHECKS, name, "check")(examination)) == []


def test_programs_are_judged_in_one_batch_per_check_and_references_once_for_three_checks():
    judge = ScriptedJudge(by_reference)
    examine(CLEAN, judge=judge, scheme=make_scheme("pass_fail"), repeats=3)
    n = len(CLEAN)
    assert [len(batch) for batch in judge.batches] == [3 * n, len(TRIVIAL) * n, 2 * n, 2 * n * len(PROBES)]


def test_repetitions_are_different_programs_to_a_judge_that_remembers():
    judge = ScriptedJudge(by_reference)
    examine(CLEAN, judge=judge, checks=("flaky",), repeats=4)
    (batch,) = judge.batches
    assert len(set(map(str, (source for _, source in batch)))) == 4 * len(CLEAN)


def test_a_verdict_that_changes_with_equal_results_is_flaky_too():
    verdicts = iter([Verdict.TIME_LIMIT, Verdict.WRONG_ANSWER] * 10)
    judge = ScriptedJudge(lambda task, source: judgement(task, 0, next(verdicts)))
    diagnosis = examine([sound(2)], judge=judge, checks=("reference", "flaky"), repeats=2)
    assert found(diagnosis) == [("flaky", "mine/2")]
    assert diagnosis.findings["flaky"][0].message.endswith("none, but the verdict does")


def test_flaky_tests_are_numbered():
    results = iter([(True, True, False), (True, False, False)])
    judge = ScriptedJudge(lambda task, source: Judgement(verdict=Verdict.WRONG_ANSWER, results=next(results)))
    (finding,) = examine([sound(2)], judge=judge, checks=("flaky",), repeats=2).findings["flaky"]
    assert finding.message == "the reference passes 0 of 2 times; tests that differ: 2"


def test_head_room_goes_by_the_median_and_puts_the_slowest_first():
    seconds = {"mine/2": [0.2, 0.3, 9.0], "mine/3": [0.9, 0.9, 0.9], "mine/4": [1.1, 1.2, 0.1]}
    runs = {task_id: iter(values) for task_id, values in seconds.items()}

    def decide(task, source):
        return replace(judgement(task, 3), cpu_s=next(runs[task.task_id]))

    tasks = [sound(2), sound(3), sound(4)]
    diagnosis = examine(
        tasks, judge=ScriptedJudge(decide), checks=("head_room",), repeats=3, time_limit_s=1.5
    )
    assert [f.task_id for f in diagnosis.findings["head_room"]] == ["mine/4", "mine/3"]
    assert diagnosis.findings["head_room"][0].message == "the reference uses 1.10 of 1.5 CPU seconds (73%)"


def test_tasks_without_a_reference_are_counted_and_not_blamed():
    diagnosis = examine([*CLEAN, sound(9, reference=None)], judge=ScriptedJudge(by_reference))
    assert (diagnosis.n_tasks, diagnosis.n_references) == (6, 5)
    assert found(diagnosis) == []


def test_two_examinations_say_the_same():
    tasks = [*CLEAN, renamed("test"), sound(9, tests=())]
    scheme = ProcessReward.from_scorer(RIGHT, form="sum", lambda_fail=0.1)
    first, second = (examine(tasks, judge=ScriptedJudge(by_reference), scheme=scheme) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first.to_json())) == second.to_json()


def test_the_record_has_counts_and_every_finding():
    record = examine([*CLEAN, renamed("test"), renamed("test")], judge=ScriptedJudge(by_reference)).to_json()
    assert (record["n_tasks"], record["n_errors"], record["n_warnings"]) == (7, 2, 1)
    assert record["checks"] == dict.fromkeys(CHECKS, 0) | {"leaks": 2, "duplicates": 1}
    assert record["findings"][0] == {
        "check": "duplicates",
        "task_id": "renamed",
        "severity": "warning",
        "message": "the same id and prompt and tests and reference as 'renamed'",
    }


def test_progress_tells_checks_and_programs():
    told = []
    examine(
        CLEAN,
        judge=ScriptedJudge(by_reference),
        repeats=2,
        progress=lambda step, total, metrics=None: told.append((step, total, metrics["programs"])),
    )
    assert told[0] == (1, len(CHECKS), 0)
    assert told[-1] == (len(CHECKS), len(CHECKS), len(CLEAN) * (2 + len(TRIVIAL)))
    assert told == sorted(told)


def test_only_the_checks_asked_for_run():
    judge = ScriptedJudge(by_reference)
    assert tuple(examine(CLEAN, judge=judge, checks=("leaks", "tests", "leaks")).findings) == (
        "leaks",
        "tests",
    )
    assert judge.batches == []
    with pytest.raises(UnknownNameError, match=r"unknown check 'leak'.*did you mean 'leaks'"):
        examine(CLEAN, judge=judge, checks=("leak",))


def test_a_check_of_ones_own_is_a_function_and_a_line(tmp_path, monkeypatch):
    (tmp_path / "my_checks.py").write_text(
        "from codegym.doctor import Finding, Severity\n"
        "def no_long_prompts(examination):\n"
        "    return [\n"
        "        Finding(check='long', task_id=t.task_id, severity=Severity.WARNING, message='too long')\n"
        "        for t in examination.tasks if len(t.prompt) > 100\n"
        "    ]\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(CHECKS, "long", "my_checks:no_long_prompts")
    long = sound(9, prompt=sound(9).prompt + "    # more\n" * 20)
    diagnosis = examine([*CLEAN, long], judge=ScriptedJudge(by_reference), checks=("long",))
    assert found(diagnosis) == [("long", "mine/9")]


def test_long_sets_are_judged_in_large_batches():
    judge = ScriptedJudge(by_reference)
    examine(CLEAN, judge=judge, checks=("flaky",), repeats=500)
    assert [len(batch) for batch in judge.batches] == [2048, 452]


@pytest.mark.parametrize("option", ["time_limit_s", "repeats", "n_probed"])
def test_options_out_of_range_are_named(option):
    with pytest.raises(ValueError, match=f"{option} must be positive, got 0"):
        examine(CLEAN, judge=ScriptedJudge(by_reference), **{option: 0})


def test_no_tasks_are_an_error():
    with pytest.raises(TaskError, match="no tasks"):
        examine([], judge=ScriptedJudge(by_reference))
