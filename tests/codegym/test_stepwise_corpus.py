"""The corpus: its documented law, its speed, and that it only shows the train split."""

import ast
import re
import time
from collections import Counter

import pytest

from codegym.tasks.operations import OPERATIONS, render
from codegym.tasks.stepwise import load
from codegym.tasks.stepwise_corpus import corpus, pass_rate, pass_rate_of
from codegym.tasks.stepwise_programs import Step, split_of


def parse(prompt: str, completion: str) -> list[tuple[Step, bool]]:
    """Each step of a corpus program, and whether it is written by a wrong template."""
    asked = re.findall(r"^    v\d+: (.+)$", prompt, flags=re.MULTILINE)
    meanings = {
        phrase.format(k=k): Step(operation, k)
        for operation in OPERATIONS.values()
        for phrase in operation.phrases
        for k in operation.parameters
    }
    steps = []
    for number, phrase in enumerate(asked, start=1):
        step = meanings[phrase]
        written = {
            wrong: render(template, a=f"v{number - 1}", b=f"v{number}", k=step.k)
            for wrong, templates in ((False, step.operation.right), (True, step.operation.wrong))
            for template in templates
            if completion.startswith(render(template, a=f"v{number - 1}", b=f"v{number}", k=step.k))
        }
        # of two templates that match, one is a prefix of the other: the longer one was written
        wrong, code = max(written.items(), key=lambda item: len(item[1]))
        completion = completion.removeprefix(code)
        steps.append((step, wrong))
    assert re.fullmatch(r"    return [^\n]+\n", completion)
    return steps


PAIRS = list(corpus(2400, seed=3))
PARSED = [parse(prompt, completion) for prompt, completion in PAIRS]


def test_bugs_occur_at_their_documented_rates_whatever_the_operation():
    drawn: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for step, is_wrong in (item for program in PARSED for item in program):
        drawn[step.operation.name] += 1
        wrong[step.operation.name] += is_wrong
    assert set(drawn) == set(OPERATIONS)
    for name, operation in OPERATIONS.items():
        # about 430 draws each: four standard errors
        assert wrong[name] / drawn[name] == pytest.approx(operation.bug_rate, abs=0.1)


@pytest.mark.parametrize(("low", "high"), [(1, 4), (5, 8), (9, 12)])
def test_bugs_are_as_frequent_in_long_programs_as_in_short_ones(low: int, high: int):
    flags = [wrong for program in PARSED if low <= len(program) <= high for _, wrong in program]
    assert sum(flags) / len(flags) == pytest.approx(1 - pass_rate(1), abs=0.05)


def test_the_expected_pass_rate_is_the_share_of_programs_without_a_bug():
    for horizon in (1, 2, 3, 4):
        programs = [program for program in PARSED if len(program) == horizon]
        right = sum(not any(wrong for _, wrong in program) for program in programs)
        assert right / len(programs) == pytest.approx(pass_rate(horizon), abs=0.13)


def test_the_pass_rate_follows_from_the_bug_rates():
    assert pass_rate(1) == pytest.approx((14 * 0.32 + 11 * 0.68 + 11 * 0.95) / 36)
    assert pass_rate(12) == pytest.approx(pass_rate(1) ** 12)
    assert pass_rate_of([]) == 1
    assert pass_rate_of(["square", "sort", "add"]) == pytest.approx(0.32 * 0.68 * 0.95)


def test_a_perfect_imitator_is_neither_hopeless_on_short_tasks_nor_good_on_long_ones():
    def expected(horizons: tuple[int, int]) -> float:
        tasks = load(split="validation", limit=120, horizons=horizons)
        return sum(pass_rate_of(task.metadata["operations"]) for task in tasks) / len(tasks)

    assert 0.2 < expected((2, 4)) < 0.35
    assert 0.003 < expected((9, 12)) < 0.015


def test_every_length_is_equally_frequent():
    assert Counter(len(program) for program in PARSED) == dict.fromkeys(range(1, 13), 200)
    lengths = Counter(prompt.count(": ") for prompt, _ in corpus(40, horizons=(3, 6)))
    assert lengths == {3: 10, 4: 10, 5: 10, 6: 10}


def test_the_corpus_shows_the_train_split_only():
    assert {split_of([step for step, _ in program]) for program in PARSED} == {"train"}


def test_every_phrase_and_every_template_is_shown():
    text = "".join(prompt for prompt, _ in PAIRS)
    code = "".join(completion for _, completion in PAIRS)
    for operation in OPERATIONS.values():
        assert all(
            any(phrase.format(k=k) in text for k in operation.parameters) for phrase in operation.phrases
        )
        for template in (*operation.right, *operation.wrong):
            shapes = [
                render(template, a=f"v{n - 1}", b=f"v{n}", k=k)
                for k in operation.parameters
                for n in range(1, 13)
            ]
            assert any(shape in code for shape in shapes), template


def test_every_program_is_python_that_ends_with_its_return():
    for prompt, completion in PAIRS[:240]:
        ast.parse(prompt + completion)
        assert completion.endswith("\n")
        assert completion.splitlines()[-1].startswith("    return ")


def test_the_same_seed_gives_the_same_corpus_and_another_one_another():
    assert list(corpus(50, seed=1)) == list(corpus(50, seed=1))
    assert list(corpus(80, seed=1))[:50] == list(corpus(50, seed=1))
    assert list(corpus(50, seed=1)) != list(corpus(50, seed=2))


def test_prompts_of_tasks_and_corpus_have_one_format():
    task = load(limit=1, horizons=(3, 3))[0]
    prompt = next(corpus(1, horizons=(3, 3)))[0]
    assert task.prompt.splitlines()[0] == prompt.splitlines()[0]
    assert task.prompt.splitlines()[-1] == prompt.splitlines()[-1]
    assert len(task.prompt.splitlines()) == len(prompt.splitlines()) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n must not be negative, got -1"),
        ({"n": 3, "horizons": (0, 2)}, "1 <= shortest <= longest"),
        ({"n": 3, "horizons": "ab"}, "horizons must be two integers"),
    ],
)
def test_bad_arguments_are_refused_before_the_first_pair(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        corpus(**arguments)


def test_no_pairs_is_an_empty_corpus():
    assert list(corpus(0)) == []


def test_the_corpus_is_written_fast():
    start = time.process_time()
    list(corpus(2000))
    assert 2000 / (time.process_time() - start) > 5000
