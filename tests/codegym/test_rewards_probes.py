"""Hack probes: they keep programs parsable and what these do, and their gains under each scheme."""

import ast
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import CallTest, Episode, Task, UnknownNameError, Verdict, load_tasks, make_judge, make_scheme
from codegym.episode import is_neutral
from codegym.rewards.probes import CHANGES_BEHAVIOUR, PADDING, PROBES, apply_probe, probe_gains
from codegym.rewards.process import ProcessReward
from codegym.table import resolve
from codegym.testing import ScriptedJudge, ScriptedScorer, judgement

TASK = Task(
    task_id="t",
    prompt="def f(x):\n",
    entry_point="f",
    tests=tuple(CallTest(args=(x,), expected=2 * x + 1) for x in (1, 2)),
    reference="    y = x * 2\n    y = y + 1\n    return y\n",
)
TEXT = replace(TASK, prompt="Double x and add one.", prompt_is_code=False)
LINES = ("    y = x * 2  # twice", "    z = y + 2", "    return z")


def probed(name, lines=LINES, task=TASK):
    return list(apply_probe(name, task, lines))


# ---------------------------------------------------------------- each probe by hand


def test_comment_spam_and_blank_lines_go_before_each_statement():
    assert probed("comment_spam")[:3] == ["    # the next line is right"] * 2 + [LINES[0]]
    assert len(probed("comment_spam")) == 9
    assert probed("blank_lines") == ["", "", LINES[0], "", "", LINES[1], "", "", LINES[2]]


def test_dilution_adds_statements_that_do_nothing():
    assert probed("dilution") == ["    pass", LINES[0], "    pass", LINES[1], "    pass", LINES[2]]


def test_padding_goes_to_the_front_or_after_the_return():
    padding = [f"    pad_{n} = {n}" for n in range(PADDING)]
    assert probed("front_padding") == [*padding, *LINES]
    assert probed("dead_code") == [*LINES, *padding]
    assert "    _pad_0 = 0" in probed("dead_code", ("    pad = 1", "    return pad"))


def test_line_splitting_puts_expressions_in_brackets():
    assert probed("line_splitting", ("    y = x * 2  # é", "    y += 1; z = 1", "    return y")) == [
        "    y = (",
        "        x * 2",
        "    )  # é",
        "    y += 1; z = 1",
        "    return (",
        "        y",
        "    )",
    ]


def test_temporaries_take_two_statements_for_one_step():
    assert probed("temporaries", ("    é = x * 2", "    return é, *[1]")) == [
        "    tmp_0 = x * 2",
        "    é = tmp_0",
        "    tmp_1 = é, *[1]",
        "    return tmp_1",
    ]


def test_repetition_doubles_what_is_idle_the_second_time():
    lines = ("    y = x * 2", "    y = y + 1", "    z = g(x)", "    return y")
    assert probed("repetition", lines) == [lines[0], *lines]


def test_stop_early_keeps_the_first_half():
    assert probed("stop_early") == list(LINES[:2])
    assert probed("stop_early", LINES[:1]) == [LINES[0]]


def test_try_blocks_take_the_body_and_leave_strings_as_they_are():
    lines = ('    y = """a', 'b"""', "", "    # c", "    return y")
    body = ["    try:", '        y = """a', 'b"""', "", "        # c", "        return y"]
    assert probed("try_except", lines) == [*body, "    except Exception:", "        raise"]
    assert probed("swallow_errors", lines) == [*body, "    except Exception:", "        pass"]


def test_a_try_block_ends_where_the_function_does():
    lines = ("def f(x):", "    return x", "y = f(1)")
    assert probed("try_except", lines, TEXT) == [
        "def f(x):",
        "    try:",
        "        return x",
        "    except Exception:",
        "        raise",
        "y = f(1)",
    ]


# ---------------------------------------------------------------- programs that give no hold


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("    y = (",),
        ("    y = )", "    return y"),
        ("    y = '\ud800'", "    return y"),
        ("    y = 1\r    z = 2", "    return y"),
    ],
)
def test_what_does_not_parse_stays_as_it_is(name, lines):
    assert apply_probe(name, TASK, lines) == lines


@pytest.mark.parametrize("name", PROBES)
def test_a_line_that_the_prompt_began_stays_as_it_is(name):
    task = replace(TASK, prompt="def f(x):\n    return ")
    assert apply_probe(name, task, ("x + 1",)) == ("x + 1",)


def test_attributes_docstrings_and_future_imports_keep_their_places():
    lines = ('"""Doc."""', "from __future__ import annotations", "class A:", "    b = 1", "c = 2")
    assert probed("dilution", lines, TEXT) == [*lines[:4], "pass", "c = 2"]
    assert probed("temporaries", lines, TEXT) == [*lines[:4], "tmp_4 = 2", "c = tmp_4"]


def test_unknown_probes_are_named():
    with pytest.raises(UnknownNameError, match="unknown hack probe 'spam'"):
        apply_probe("spam", TASK, LINES)


def test_every_entry_of_the_table_resolves_and_those_that_change_behaviour_are_in_it():
    assert all(callable(resolve(PROBES, name, "hack probe")) for name in PROBES)
    assert set(PROBES) > CHANGES_BEHAVIOUR
    assert list(PROBES) == sorted(PROBES)


# ---------------------------------------------------------------- same behaviour

STATEMENT = st.sampled_from(
    [
        ("    y = x * 2",),
        ("    y = y + 1  # comment",),
        ("    y += x; y -= 1",),
        (
            "    z = [y,",
            "        x]",
        ),
        ("    for i in range(3):", "        if i == 1:", "            continue", "        y += i"),
        ("    try:", "        y = y // x", "    except ZeroDivisionError:", "        y = -1"),
        ("    y = y // (x - 1)",),
        ('    s = """a', "  b", '"""', "    y += len(s)"),
        ("    # only a comment",),
        ("",),
        ("    def g(v):", "        w = v + 1", "        return w", "    y = g(y)"),
        ("    if x > 2: return y, 'é'",),
        ("    é = y, *[x]",),
        ("    y = (yield_ := y) + 1",),
        ("    return y",),
        ("    while y > 50: y //= 2",),
        ("    lines.append(y)",),
    ]
)
BODY = st.lists(STATEMENT, max_size=7).map(
    lambda found: ["    y = x", *(line for lines in found for line in lines)]
)


def behaviour(task, lines, x):
    """What a program returns or raises, and what it does to the outside."""
    lines_seen = []
    space = {"lines": lines_seen}
    exec(compile(task.assemble("".join(f"{line}\n" for line in lines)), "<program>", "exec"), space)
    try:
        return "returns", space["f"](x), lines_seen
    except (ArithmeticError, LookupError, NameError, TypeError) as error:
        return "raises", repr(error), lines_seen


@settings(max_examples=150)
@given(BODY, st.sampled_from(sorted(set(PROBES) - CHANGES_BEHAVIOUR)))
def test_probes_keep_what_a_function_does(lines, name):
    hacked = apply_probe(name, TASK, lines)
    for x in (0, 1, 3):
        assert behaviour(TASK, hacked, x) == behaviour(TASK, lines, x)


@settings(max_examples=60)
@given(BODY, st.sampled_from(sorted(set(PROBES) - CHANGES_BEHAVIOUR)))
def test_probes_keep_what_a_module_does(lines, name):
    module = ["import math", "K = 3", "def f(x):", *lines, "L = K * 2"]
    hacked = apply_probe(name, TEXT, module)
    for x in (0, 1, 3):
        assert behaviour(TEXT, hacked, x) == behaviour(TEXT, module, x)


@settings(max_examples=60)
@given(BODY, st.sampled_from(sorted(PROBES)))
def test_probes_keep_programs_parsable_and_idle_lines_idle(lines, name):
    hacked = apply_probe(name, TASK, lines)
    ast.parse(TASK.assemble("".join(f"{line}\n" for line in hacked)))
    kept = [line for line in hacked if not is_neutral(line)]
    if name in ("comment_spam", "blank_lines"):
        assert kept == [line for line in lines if not is_neutral(line)]
    if name != "stop_early":
        assert len(hacked) >= len(lines)


@pytest.mark.slow
def test_probes_keep_the_verdicts_of_the_local_judge():
    tasks = load_tasks("stepwise", limit=6)
    programs = [(task, task.reference.rstrip("\n").split("\n")) for task in tasks]
    programs += [(task, [*lines[:-1], "    return 1 // 0"]) for task, lines in programs]
    with make_judge("local", workers=1) as judge:
        before = judge.judge([(t, t.assemble("".join(f"{x}\n" for x in lines))) for t, lines in programs])
        for name in sorted(set(PROBES) - CHANGES_BEHAVIOUR):
            hacked = [(t, apply_probe(name, t, lines)) for t, lines in programs]
            after = judge.judge([(t, t.assemble("".join(f"{x}\n" for x in lines))) for t, lines in hacked])
            assert [(r.verdict, r.results) for r in after] == [(r.verdict, r.results) for r in before], name


# ---------------------------------------------------------------- gains

FAILS = ScriptedJudge(lambda task, source: judgement(task, 0))
WRONG = "z = y + 2"


def failing(lines=LINES):
    return Episode(task=TASK, lines=tuple(lines), terminated=True, judgement=judgement(TASK, 0))


def oracle(episode):
    """Exact labels: a prefix is right until it holds the wrong line."""
    source = "\n".join(episode.lines)
    return [-1.0 if WRONG.split(" = ")[1] in _upto(source, n) else 1.0 for n in range(len(episode.lines))]


def _upto(source, index):
    return "\n".join(source.split("\n")[: index + 1])


def naive(episode):
    """A model that likes anything."""
    return [1.0] * len(episode.lines)


def gains(form, score, **options):
    scheme = ProcessReward.from_scorer(ScriptedScorer(score), form=form, **options)
    return probe_gains(scheme, [failing()], FAILS)


def test_gains_by_hand():
    # mean, oracle: 1, -1, -1 over 3 lines; comments only dilute: (1 - 1 - 1) / 9
    found = gains("mean", oracle)
    assert found["comment_spam"] == pytest.approx(0.25 * (-1 / 9 + 1 / 3))
    # eight right lines before: (8 + 1 - 2) / 11
    assert found["front_padding"] == pytest.approx(0.25 * (7 / 11 + 1 / 3))
    # without the last line: (1 - 1) / 2
    assert found["stop_early"] == pytest.approx(0.25 / 3)
    # eight wrong lines after: (1 - 2 - 8) / 11
    assert found["dead_code"] == pytest.approx(0.25 * (-9 / 11 + 1 / 3))


def test_schemes_of_the_verdict_alone_gain_nothing():
    for name in ("pass_fail", "pass_rate", "weighted", "coderl", "rltf"):
        assert probe_gains(make_scheme(name), [failing()], FAILS) == dict.fromkeys(PROBES, 0.0)


def test_min_and_potential_resist_every_probe_with_an_exact_scorer():
    for form in ("min", "potential"):
        found = gains(form, oracle)
        assert all(gain <= 1e-9 for name, gain in found.items() if name not in CHANGES_BEHAVIOUR)


def test_progress_per_statement_resists_line_splitting_where_progress_per_line_does_not():
    per_line, per_statement = (
        gains("progress", naive, n_lines=10),
        gains("progress", naive, n_lines=10, unit="statement"),
    )
    assert per_line["line_splitting"] == pytest.approx(6 / 10)
    assert per_statement["line_splitting"] == 0
    assert per_statement["dilution"] == 0 < per_line["dilution"]
    assert per_statement["try_except"] <= 0
    # what is really more statements still pays, up to the cap
    assert per_statement["temporaries"] == pytest.approx(3 / 10)


def test_gains_are_means_over_the_failing_programs_only():
    passing = Episode(task=TASK, lines=LINES, terminated=True, judgement=judgement(TASK, 2))
    scheme = make_scheme("length", rate=0.01, cap=1.0)
    both = probe_gains(scheme, [failing(), passing, failing(LINES[:1])], FAILS)
    assert both["blank_lines"] == pytest.approx((0.06 + 0.02) / 2)
    with pytest.raises(ValueError, match="at least one failing program, got 1 that pass"):
        probe_gains(scheme, [passing], FAILS)


def test_a_rewrite_that_passes_after_all_is_no_gain():
    healed = ScriptedJudge(lambda task, source: judgement(task, 2 * ("try" in source)))
    found = probe_gains(make_scheme("pass_fail"), [failing()], healed)
    assert found["swallow_errors"] == 0


def test_swallowing_errors_climbs_the_levels_of_coderl():
    def decide(task, source):
        swallowed = "pass" in source.split("\n")[-2]
        return judgement(task, 0, None if swallowed else Verdict.RUNTIME_ERROR)

    raising = replace(failing(), judgement=judgement(TASK, 0, Verdict.RUNTIME_ERROR))
    found = probe_gains(make_scheme("coderl"), [raising], ScriptedJudge(decide))
    assert found["swallow_errors"] == pytest.approx(0.3)
    assert found["try_except"] == 0


def test_all_programs_and_probes_are_one_call_of_judge_and_two_of_the_scheme():
    judge, calls = ScriptedJudge(lambda task, source: judgement(task, 0)), []

    class Counting:
        def score(self, episodes):
            calls.append(len(episodes))
            return [[0.0] * len(e.lines) for e in episodes]

    probe_gains(ProcessReward.from_scorer(Counting()), [failing()] * 3, judge)
    assert [len(batch) for batch in judge.batches] == [3 * len(PROBES)]
    assert calls == [3, 3 * len(PROBES)]
