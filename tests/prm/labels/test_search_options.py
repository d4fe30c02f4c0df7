"""Binary search with statements as steps, growing K, and a tree of completions, counted by hand."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import UnknownNameError
from codegym.testing import ScriptedJudge
from prm.labeling import BinarySearchLabeler


def search(scripted, completer, **options):
    return BinarySearchLabeler(completer, scripted.judge(), scripted.tokenizer, **options)


def in_order(scripted, *texts):
    """A completer that writes these texts, one per draw."""
    script = iter(texts)
    return scripted.completer(lambda text, rng: next(script))


# ---------------------------------------------------------------- statements as steps


def test_statements_are_probed_at_their_last_line(scripted):
    lines = ["    a = [", "        1,", "    ]", "    b = (2,", "    3)", "    return b"]
    completer = scripted.recoverable_up_to(3)
    (labeled,) = search(scripted, completer, step="statement").label(
        [scripted.program(lines)], scripted.tasks
    )
    assert labeled.labels == (1, 1, 1, -1, -1, -1)
    # three statements: the second (lines 4-5) is probed first, then the first
    assert labeled.probes == {5: (0, 8), 3: (4, 4)}


def test_statements_spare_probes(scripted):
    lines = ["    a = [", *(["        1,"] * 30), "    ]", "    return a"]
    by_line, by_statement = (
        search(scripted, scripted.recoverable_up_to(40), step=step).label(
            [scripted.program(lines)], scripted.tasks
        )[0]
        for step in ("line", "statement")
    )
    assert by_line.labels == by_statement.labels == (1,) * 33
    assert (len(by_line.probes), len(by_statement.probes)) == (6, 2)


def test_an_unknown_step_is_named(scripted):
    labeler = search(scripted, scripted.recoverable_up_to(0), step="word")
    with pytest.raises(UnknownNameError, match="unknown kind of step 'word'"):
        labeler.label([scripted.program()], scripted.tasks)


# ---------------------------------------------------------------- K that grows with what is left


def test_k_grows_with_the_steps_that_are_left(scripted):
    # three steps are left after line 3, five after line 1; half a completion each, in whole pairs
    labeler = search(scripted, scripted.recoverable_up_to(0), k=4, draws_at_once=2, k_per_step=0.5)
    assert [labeler.tries(left) for left in range(7)] == [4, 6, 6, 6, 6, 8, 8]
    (labeled,) = labeler.label([scripted.program()], scripted.tasks)
    assert labeled.probes == {3: (0, 6), 1: (0, 8)}
    assert labeled.cost["completions"] == 14


def test_growing_k_still_stops_at_the_first_pass(scripted):
    labeler = search(scripted, scripted.recoverable_up_to(6), k=4, draws_at_once=2, k_per_step=3.0)
    (labeled,) = labeler.label([scripted.program()], scripted.tasks)
    assert labeled.probes == {3: (2, 2), 5: (2, 2), 6: (2, 2)}


def test_a_late_pass_is_found_only_by_a_growing_k(scripted):
    def first_pass_at(number):
        drawn = []

        def write(text, rng):
            drawn.append(text)
            return "WIN\n" if len(drawn) == number else "lose\n"

        return scripted.completer(write)

    lines = scripted.six[:2]
    for k_per_step, labels in ((0.0, (-1, -1)), (4.0, (1, -1))):
        completer = first_pass_at(8)
        labeler = search(scripted, completer, k=4, draws_at_once=4, k_per_step=k_per_step)
        # of two steps the second is never probed before the first: middle = 1
        (labeled,) = labeler.label([scripted.program(lines)], scripted.tasks)
        assert labeled.labels == labels


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_negative_growth_is_refused(scripted, value):
    with pytest.raises(ValueError, match="k_per_step must be 0 or more"):
        search(scripted, scripted.recoverable_up_to(0), k_per_step=value)


# ---------------------------------------------------------------- the tree

THROUGH_FIVE_AND_WINS = "d = 4\n    e = 5\n    WIN\n"
THROUGH_FIVE_AND_LOSES = "d = 4\n    e = 5\n    lose\n"


def test_completions_that_pass_through_a_later_prefix_count_for_it(scripted):
    completer = in_order(
        scripted,
        *(THROUGH_FIVE_AND_WINS, "lose\n", THROUGH_FIVE_AND_LOSES, "WIN\n"),  # from line 3: two pass
        *(["lose\n"] * 4),  # from line 6, which none of them passed through
    )
    labeler = search(scripted, completer, k=4, draws_at_once=4, reuse=True)
    (labeled,) = labeler.label([scripted.program()], scripted.tasks)
    assert labeled.labels == (1, 1, 1, 1, 1, -1)
    assert labeled.probes == {3: (2, 4), 5: (1, 2), 6: (0, 4)}
    assert labeled.cost["completions"] == labeled.cost["verdicts"] == 8  # 12 without the tree
    assert [[scripted.n_lines(text) for text in call["texts"]] for call in completer.calls] == [[3], [6]]


def test_known_failures_leave_fewer_to_draw(scripted):
    completer = in_order(
        scripted,
        *("WIN\n", THROUGH_FIVE_AND_LOSES, THROUGH_FIVE_AND_LOSES),  # from line 3
        *(["lose\n"] * 6),  # from line 4: two failures are known, so two batches of three make six or more
    )
    labeler = search(scripted, completer, k=6, draws_at_once=3, reuse=True)
    (labeled,) = labeler.label([scripted.program(scripted.six[:5])], scripted.tasks)
    assert labeled.probes == {3: (1, 3), 4: (0, 8)}
    assert completer.n_drawn == labeled.cost["completions"] == 9


def test_an_equal_program_is_labelled_without_a_draw(scripted):
    completer = scripted.recoverable_up_to(3)
    labeler = search(scripted, completer, reuse=True)
    first, second = (labeler.label([scripted.program(number=number)], scripted.tasks)[0] for number in (1, 2))
    assert first.labels == second.labels
    assert first.probes == second.probes
    assert (first.cost["completions"], second.cost["completions"]) == (20, 0)
    assert second.completer == "scripted-1"
    assert completer.n_drawn == 20


def test_a_prefix_that_two_programs_share_is_completed_once(scripted):
    lines = [*scripted.six[:3], "    d = 9", "    e = 9", "    return e"]
    completer = scripted.recoverable_up_to(0)
    labeler = search(scripted, completer, reuse=True, k=4, draws_at_once=4)
    found = labeler.label([scripted.program(), scripted.program(lines, number=1)], scripted.tasks)
    # both stand at line 3, which they share, and then at line 1
    assert [row.cost["completions"] for row in found] == [8, 0]
    assert [row.probes for row in found] == [{3: (0, 4), 1: (0, 4)}] * 2
    assert [len(call["texts"]) for call in completer.calls] == [1, 1]


def test_nothing_is_shared_between_tasks_prompts_or_completers(scripted):
    completer = scripted.recoverable_up_to(0)
    labeler = search(scripted, completer, reuse=True, k=4, draws_at_once=4)
    labeler.label([scripted.program()], scripted.tasks)
    assert completer.n_drawn == 8
    other_task = scripted.program(task_id="u")
    labeler.label([other_task], {"u": replace(scripted.task, task_id="u")})
    assert completer.n_drawn == 16
    completer.identity = "scripted-2"
    labeler.label([scripted.program(number=1)], scripted.tasks)
    assert completer.n_drawn == 24


def test_without_reuse_nothing_is_shared(scripted):
    completer = scripted.recoverable_up_to(0)
    labeler = search(scripted, completer, k=4, draws_at_once=4)
    for number in range(2):
        labeler.label([scripted.program(number=number)], scripted.tasks)
    assert completer.n_drawn == 16


@settings(max_examples=60)
@given(limits=st.lists(st.integers(0, 6), min_size=1, max_size=5), k=st.integers(1, 4))
def test_where_recovery_is_certain_reuse_changes_no_label_and_draws_no_more(scripted, limits, k):
    programs = [
        scripted.program([f"    # {limit}", *scripted.six], number=n) for n, limit in enumerate(limits)
    ]

    def write(text, rng):
        return "WIN\n" if scripted.n_lines(text) - 1 <= int(text.split("# ")[1][0]) else "lose\n"

    plain, tree = scripted.completer(write), scripted.completer(write)
    expected = search(scripted, plain, k=k, draws_at_once=k).label(programs, scripted.tasks)
    found = search(scripted, tree, k=k, draws_at_once=k, reuse=True).label(programs, scripted.tasks)
    assert [row.labels for row in found] == [row.labels for row in expected]
    assert tree.n_drawn <= plain.n_drawn


def test_seconds_are_shared_out_and_do_not_make_labels_differ(scripted):
    rows = [
        search(scripted, scripted.recoverable_up_to(3)).label(
            [scripted.program(number=n) for n in range(3)], scripted.tasks
        )
        for _ in range(2)
    ]
    assert rows[0] == rows[1]
    assert all(row.seconds > 0 for row in rows[0])


def test_every_draw_is_judged_once_and_in_order(scripted):
    seen = []

    def decide(task, source):
        seen.append(source)
        return scripted.judge().judge([(task, source)])[0]

    labeler = BinarySearchLabeler(
        scripted.recoverable_up_to(3), ScriptedJudge(decide), scripted.tokenizer, k=2, draws_at_once=2
    )
    (labeled,) = labeler.label([scripted.program()], scripted.tasks)
    assert len(seen) == labeled.cost["verdicts"] == 6
    assert [source.count("\n") for source in seen] == [5, 5, 7, 7, 6, 6]
