"""What holds for every reward scheme in the table, whatever the program, the verdict and the scorer."""

import sys
import types

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import (
    END_OF_PROGRAM,
    REWARD_SCHEMES,
    CallTest,
    CodeGenEnv,
    Episode,
    RewardWrapper,
    Task,
    Verdict,
    make_judge,
    make_scheme,
)
from codegym.rewards import BoundedScheme, ScheduledScheme, is_ordered, scheme_after
from codegym.rewards.assignment import FORMS
from codegym.rewards.settlement import settle
from codegym.testing import DOUBLE, ScriptedJudge, ScriptedScorer, check_reward_scheme, judgement

TASK = Task(
    task_id="two",
    prompt="def f(x):\n",
    entry_point="f",
    tests=tuple(CallTest(args=(x,), expected=x + 1) for x in (1, 2, 3)),
    reference="    y = x + 1\n    return y\n",
    metadata={"test_weights": [1, 2, 5]},
)

# One row per way to build a scheme; every name of the table occurs.
ROWS = [
    ("pass_fail", {}),
    ("pass_rate", {}),
    ("weighted", {}),
    ("weighted", {"weights": {"two": [3, 1, 1], "check/double": [1, 1, 9]}}),
    ("coderl", {}),
    ("rltf", {}),
    ("rltf", {"adaptive": False, "fine_penalty": 1.0}),
    *(("process", {"prm": "runs/prm", "form": form}) for form in (*FORMS, "potential")),
    *(("process", {"prm": "runs/prm", "form": form, "unit": "statement"}) for form in FORMS),
    *(("process", {"prm": "runs/prm", "gate": gate}) for gate in ("pass_only", "both")),
    ("process", {"prm": "runs/prm", "gate": "schedule", "schedule": [1.0, 0.0, 3]}),
    ("process", {"prm": "runs/prm", "form": "sum", "cap": 3.0, "lambda_fail": 0.2, "lambda_pass": 0.1}),
    ("process", {"prm": "runs/prm", "form": "clip", "cap": 2.0, "eta": 0.5}),
    ("potential", {"prm": "runs/prm"}),
    ("potential", {"prm": "runs/prm", "scale": 0.5, "gamma": 0.9}),
    ("length", {}),
    ("length", {"measure": "chars", "rate": 0.01, "free": 5, "cap": 0.5}),
    ("syntax", {}),
    ("compose", {"schemes": [{"name": "rltf"}, {"name": "length", "weight": 0.5, "cap": 0.1}]}),
    (
        "compose",
        {
            "schemes": [
                {"name": "process", "prm": "runs/prm", "form": "min"},
                {"name": "syntax", "weight": 0.3},
                {"name": "syntax", "weight": -0.1, "penalty": 1.0},
            ]
        },
    ),
]
IDS = [f"{name}-{'-'.join(str(value) for value in options.values())[:60]}" for name, options in ROWS]


def hashed_scores(episode):
    """Any scores, but always the same ones for the same lines."""
    return [((hash_of(line) * 37 + index * 11) % 201) / 100 - 1 for index, line in enumerate(episode.lines)]


def hash_of(line):
    return sum(line.encode("utf-8", "surrogatepass"))


@pytest.fixture(autouse=True)
def _prm(monkeypatch):
    """`prm="runs/prm"` is a scripted scorer."""
    model = types.SimpleNamespace(from_pretrained=lambda _: ScriptedScorer(hashed_scores))
    monkeypatch.setitem(sys.modules, "prm.model", types.SimpleNamespace(ProcessRewardModel=model))


def test_every_name_of_the_table_is_in_these_tests():
    assert {name for name, _ in ROWS} == set(REWARD_SCHEMES)


@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_every_scheme_meets_the_contract(name, options):
    check_reward_scheme(make_scheme(name, **options))


@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_every_scheme_survives_the_json_of_an_env_spec(name, options, monkeypatch):
    monkeypatch.setattr("codegym.env.load_tasks", lambda name, **options: [TASK, DOUBLE])
    env = RewardWrapper(gym.make("CodeGen-v0", max_lines=9), name, **options)
    twin = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(twin, RewardWrapper)
    assert twin.spec == env.spec
    programs = [episode(("    y = x + 1", "", "    return y"), result) for result in results()]
    for one, other in zip(env.scheme.credit(programs), twin.scheme.credit(programs), strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_every_scheme_pays_the_same_for_the_same_program_on_every_call(name, options):
    scheme = make_scheme(name, **options)
    programs = [episode(("    y = (x +", "    1)", "    return y"), result) for result in results()]
    first, second = scheme.credit(programs), scheme.credit(programs[::-1])[::-1]
    assert [credit.tolist() for credit in first] == [credit.tolist() for credit in second]


def results():
    return [
        judgement(TASK, 3),
        judgement(TASK, 1),
        judgement(TASK, 0, Verdict.SYNTAX_ERROR),
        judgement(TASK, 2, Verdict.TIME_LIMIT),
    ]


def episode(lines, result, *, terminated=True):
    return Episode(
        task=TASK, lines=tuple(lines), terminated=terminated, truncated=not terminated, judgement=result
    )


# ---------------------------------------------------------------- any program, any verdict, any scorer

LINE = st.sampled_from(
    [
        "    y = x + 1",
        "    y = (x +",
        "    1)",
        "    return y",
        "    for i in range(3):",
        "        y += i",
        "    # c",
        "",
        '    z = """a',
        '# not a comment"""',
        "def g(): return 1",
        "  bad indent",
        "\ud800",
        "a = 1; b = 2",
        "a\rb",
    ]
)
PROGRAM = st.lists(LINE, max_size=8)
RESULT = st.builds(
    lambda n_passed, verdict, line: judgement_with(n_passed, verdict, line),
    st.integers(0, 3),
    st.sampled_from(list(Verdict)),
    st.integers(0, 12),
)


def judgement_with(n_passed, verdict, error_line):
    made = judgement(TASK, 3 if verdict is Verdict.PASSED else n_passed, verdict)
    return type(made)(verdict=made.verdict, results=made.results, error_line=error_line or None)


def schemes():
    return [make_scheme(name, **options) for name, options in ROWS]


def rollout(scheme, lines, result, *, terminated):
    """Rewards and the last info of a program written line by line."""
    judge = ScriptedJudge(lambda task, source: result)
    env = RewardWrapper(CodeGenEnv([TASK], judge, max_lines=len(lines) + int(terminated)), scheme)
    env.reset()
    steps = [env.step(line) for line in (*lines, *([END_OF_PROGRAM] if terminated else []))]
    return [step[1] for step in steps], steps[-1][4]


@settings(max_examples=15)
@given(PROGRAM, RESULT, st.booleans())
def test_line_replay_pays_what_judging_the_whole_program_does(lines, result, terminated):
    if not lines and not terminated:
        return
    for scheme in schemes():
        rewards, info = rollout(scheme, lines, result, terminated=terminated)
        (credit,) = scheme.credit([episode(lines, result, terminated=terminated)])
        assert info["action_rewards"] == tuple(credit.tolist())
        assert len(rewards) == len(credit)
        assert sum(rewards) == pytest.approx(credit.sum(), abs=1e-9)
        assert sum(info["reward_parts"].values()) == pytest.approx(credit.sum(), abs=1e-9)
        assert all(isinstance(part, float) for part in info["reward_parts"].values())


@settings(max_examples=15)
@given(PROGRAM, PROGRAM, RESULT, RESULT)
def test_no_failing_program_outscores_a_passing_one_where_a_scheme_promises_it(lines, others, one, two):
    pair = [episode(lines, one), episode(others, two)]
    for scheme in schemes():
        returns = [settled.total for settled in settle(scheme, pair, name="x")]
        for program, total in zip(pair, returns, strict=True):
            if isinstance(scheme, BoundedScheme):
                low, high = scheme.bounds(passed=program.judgement.passed)
                assert low - 1e-9 <= total <= high + 1e-9
        if is_ordered(scheme) and one.passed and not two.passed:
            assert returns[1] < returns[0]


@settings(max_examples=15)
@given(st.lists(st.tuples(PROGRAM, RESULT), min_size=1, max_size=4))
def test_a_batch_pays_what_its_episodes_are_paid_alone(programs):
    batch = [episode(lines, result) for lines, result in programs]
    for scheme in schemes():
        for one, credit in zip(batch, scheme.credit(batch), strict=True):
            assert scheme.credit([one])[0].tolist() == credit.tolist()
        prefixes = [Episode(task=TASK, lines=one.lines) for one in batch]
        steps = scheme.step(prefixes)
        assert steps.shape == (len(batch),)
        assert steps.dtype == np.float64
        assert [scheme.step([prefix])[0] for prefix in prefixes] == steps.tolist()


# ---------------------------------------------------------------- promises


@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_what_promises_the_order_of_failing_and_passing_programs(name, options):
    unbounded = options.get("form") in ("sum", "clip") and "cap" not in options
    discounted = options.get("gamma", 1.0) < 1
    # adaptive RLTF pays a failing program up to just below 1, so a bonus for length can tip the order
    near = name == "compose" and options["schemes"][0]["name"] == "rltf"
    alone = name in ("length", "syntax")
    assert is_ordered(make_scheme(name, **options)) == (not (unbounded or discounted or near or alone))


def test_a_scheme_without_bounds_is_taken_to_promise_the_order():
    class Mine:
        def credit(self, episodes):
            return [np.zeros(e.n_actions) for e in episodes]

        def step(self, episodes):
            return np.zeros(len(episodes))

    assert is_ordered(Mine())
    with pytest.raises(AssertionError, match="a failing program earns 0, a passing one only 0"):
        check_reward_scheme(Mine())


class Told:
    """Pays 1 for a pass; a test replaces one of its answers."""

    def credit(self, episodes):
        return [
            np.append(np.zeros(e.n_actions)[1:], float(e.judgement.passed))[: e.n_actions] for e in episodes
        ]

    def step(self, episodes):
        return np.zeros(len(episodes))


def test_the_check_catches_bounds_that_do_not_hold():
    class Narrow(Told):
        def bounds(self, *, passed):
            return (0.9, 0.95) if passed else (0.0, 0.0)

    with pytest.raises(AssertionError, match=r"a return of 1 is outside the bounds \[0.9, 0.95\]"):
        check_reward_scheme(Narrow())


def test_the_check_catches_parts_that_do_not_sum_to_the_return():
    class Parted(Told):
        def parts(self, episodes):
            return [{"half": credit / 2} for credit in self.credit(episodes)]

    with pytest.raises(AssertionError, match=r"the parts .* do not sum to the return 1 "):
        check_reward_scheme(Parted())


def test_only_schemes_with_a_schedule_change_with_the_programs_paid():
    for name, options in ROWS:
        scheme = make_scheme(name, **options)
        later = scheme_after(scheme, 10)
        program = [episode(("    y = x + 1", "    return y"), judgement(TASK, 1))]
        same = scheme.credit(program)[0].tolist() == later.credit(program)[0].tolist()
        assert same == ("schedule" not in options)
        assert isinstance(scheme, ScheduledScheme) or later is scheme


class NoImports:
    """The tests' verdict, less a little for every line that imports: a scheme of one's own."""

    def credit(self, episodes):
        rewards = make_scheme("pass_fail").credit(episodes)
        for reward, one in zip(rewards, episodes, strict=True):
            reward[: len(one.lines)] += self._costs(one)
        return rewards

    def step(self, episodes):
        return np.array([self._costs(one)[-1] if one.lines else 0.0 for one in episodes])

    def _costs(self, one):
        return np.array([-0.01 * ("import" in line) for line in one.lines])


def test_a_scheme_of_ones_own_needs_two_methods():
    check_reward_scheme(NoImports())
    rewards, info = rollout(
        NoImports(), ["    import os", "    return x"], judgement(TASK, 3), terminated=True
    )
    assert rewards == pytest.approx([-0.01, 0, 1])
    assert info["reward_parts"] == pytest.approx({"NoImports": 0.99})


# ---------------------------------------------------------------- with programs that really run


RUN = [
    ("right", ("    y = x + 1", "    return y"), "passed"),
    ("wrong", ("    y = x + 2 - (x == 1)", "    return y"), "wrong_answer"),
    ("raises", ("    y = x + 1", "    y = y // (x - 2)", "    return y"), "wrong_answer"),
    ("raises at once", ("    # soon", "    y = x // 0", "    return y"), "runtime_error"),
    ("does not parse", ("    y = x +", "    return y"), "syntax_error"),
    ("unfinished", ("    y = (x +",), "syntax_error"),
    ("endless", ("    while True:", "        pass"), "time_limit"),
    ("nothing", (), "syntax_error"),
]


@pytest.mark.slow
def test_line_replay_pays_what_judging_the_whole_program_does_with_the_local_judge():
    with make_judge("local", workers=1, time_limit_s=0.3) as judge:
        sources = [(TASK, TASK.assemble("".join(f"{line}\n" for line in lines))) for _, lines, _ in RUN]
        judgements = judge.judge(sources)
        for (name, lines, verdict), whole in zip(RUN, judgements, strict=True):
            assert whole.verdict == verdict, name
            for scheme in schemes():
                env = RewardWrapper(CodeGenEnv([TASK], judge), scheme)
                env.reset()
                steps = [env.step(line) for line in (*lines, END_OF_PROGRAM)]
                (credit,) = scheme.credit([episode(lines, whole)])
                assert steps[-1][4]["action_rewards"] == tuple(credit.tolist())
                assert sum(step[1] for step in steps) == pytest.approx(credit.sum(), abs=1e-9)
                assert sum(steps[-1][4]["reward_parts"].values()) == pytest.approx(credit.sum(), abs=1e-9)
