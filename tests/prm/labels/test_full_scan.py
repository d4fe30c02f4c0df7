"""The exhaustive scan: every prefix probed, hard, soft and marginal labels by hand, and resumption."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import TaskError, UnknownNameError
from codegym.testing import ScriptedJudge
from prm.full_scan import LABEL_KINDS, FullScanLabeler
from prm.labeling import BinarySearchLabeler, label_to_file, read_labels
from prm.store import CompletionStore, Counts


def scan(scripted, completer, **options):
    return FullScanLabeler(completer, scripted.judge(), scripted.tokenizer, **options)


def passing(scripted, *passes, k=4):
    """A completer of which so many of k draws win from the prefix of 0, 1, 2, ... lines."""
    drawn = {}

    def write(text, rng):
        lines = scripted.n_lines(text)
        drawn[lines] = drawn.get(lines, 0) + 1
        return "WIN\n" if (drawn[lines] - 1) % k < passes[lines] else "lose\n"

    return scripted.completer(write)


def test_every_prefix_is_probed_and_its_label_is_its_own(scripted):
    completer = passing(scripted, 0, 4, 1, 0, 2, 0, 0)
    (labeled,) = scan(scripted, completer, k=4).label([scripted.program()], scripted.tasks)
    assert labeled.labels == (1, 1, -1, 1, -1, -1)  # not monotone: nothing is inferred
    assert labeled.probes == {1: (4, 4), 2: (1, 4), 3: (0, 4), 4: (2, 4), 5: (0, 4), 6: (0, 4)}
    assert (labeled.source, labeled.completer) == ("full_scan", "scripted-1")
    assert labeled.cost["completions"] == labeled.cost["verdicts"] == 24
    assert labeled.cost["tokens"] == 7 * 5 + 17 * 6  # "WIN", "lose", newline and end
    assert len(completer.calls) == 1


def test_soft_labels_are_the_share_that_passes(scripted):
    (labeled,) = scan(scripted, passing(scripted, 4, 4, 1, 0, 2, 0, 3), k=4, kind="soft").label(
        [scripted.program()], scripted.tasks
    )
    assert labeled.labels == (1.0, -0.5, -1.0, 0.0, -1.0, 0.5)
    assert labeled.source == "full_scan_soft"


def test_marginal_labels_are_what_a_line_adds(scripted):
    (labeled,) = scan(scripted, passing(scripted, 2, 4, 1, 0, 2, 0, 3), k=4, kind="marginal").label(
        [scripted.program()], scripted.tasks
    )
    assert labeled.labels == (0.5, -0.75, -0.25, 0.5, -0.5, 0.75)
    assert labeled.probes[0] == (2, 4)  # the first line is held against the empty prefix
    assert labeled.cost["completions"] == 28


def test_comments_are_neutral_and_marginal_labels_look_past_them(scripted):
    lines = ["    # plan", scripted.six[0], "", scripted.six[1]]
    for kind, labels in (("hard", (0, 1, 0, 1)), ("soft", (0, 1, 0, -0.5)), ("marginal", (0, 0, 0, -0.75))):
        completer = passing(scripted, 4, 4, 4, 0, 1, k=4)
        (labeled,) = scan(scripted, completer, k=4, kind=kind).label(
            [scripted.program(lines)], scripted.tasks
        )
        assert labeled.labels == labels, kind
        assert set(labeled.probes) == {2, 4} | ({0} if kind == "marginal" else set())


def test_programs_that_pass_are_probed_only_where_shares_are_asked_for(scripted):
    passed = scripted.program(passed=True)
    hard = scripted.recoverable_up_to(9)
    (labeled,) = scan(scripted, hard, k=2).label([passed], scripted.tasks)
    assert (labeled.labels, labeled.probes, labeled.completer, hard.calls) == ((1,) * 6, {}, "", [])
    (labeled,) = scan(scripted, scripted.recoverable_up_to(3), k=2, kind="soft").label(
        [passed], scripted.tasks
    )
    assert labeled.labels == (1, 1, 1, -1, -1, -1)


def test_statements_are_probed_once(scripted):
    lines = ["    a = [", "        1,", "    ]", "    return a"]
    (labeled,) = scan(scripted, scripted.recoverable_up_to(3), k=2, step="statement").label(
        [scripted.program(lines)], scripted.tasks
    )
    assert labeled.labels == (1, 1, 1, -1)
    assert labeled.probes == {3: (2, 2), 4: (0, 2)}


@pytest.mark.parametrize("lines", [[], ["    # only", ""]])
@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_programs_without_code_are_not_probed(scripted, lines, kind):
    completer = scripted.recoverable_up_to(9)
    (labeled,) = scan(scripted, completer, kind=kind).label([scripted.program(lines)], scripted.tasks)
    assert (labeled.labels, completer.calls) == ((0.0,) * len(lines), [])


def test_batches_are_cut_at_so_many_prefixes(scripted):
    programs = [scripted.program(number=n) for n in range(3)]
    whole = scan(scripted, scripted.recoverable_up_to(2), k=2).label(programs, scripted.tasks)
    completer = scripted.recoverable_up_to(2)
    cut = scan(scripted, completer, k=2, prefixes_at_once=4).label(programs, scripted.tasks)
    assert [row.labels for row in cut] == [row.labels for row in whole]
    assert [len(call["texts"]) for call in completer.calls] == [4, 4, 4, 4, 2]
    assert len({call["seed"] for call in completer.calls}) == 5


@settings(max_examples=50)
@given(
    limits=st.lists(st.integers(0, 6), min_size=1, max_size=4), step=st.sampled_from(["line", "statement"])
)
def test_where_recovery_is_monotone_search_and_scan_agree(scripted, limits, step):
    programs = [
        scripted.program([f"    # {limit}", *scripted.six], number=n) for n, limit in enumerate(limits)
    ]

    def write(text, rng):
        return "WIN\n" if scripted.n_lines(text) - 1 <= int(text.split("# ")[1][0]) else "lose\n"

    exhaustive = scan(scripted, scripted.completer(write), k=2, step=step).label(programs, scripted.tasks)
    searched = BinarySearchLabeler(
        scripted.completer(write), scripted.judge(), scripted.tokenizer, k=2, draws_at_once=2, step=step
    ).label(programs, scripted.tasks)
    assert [row.labels for row in exhaustive] == [row.labels for row in searched]
    assert all(set(b.probes) <= set(a.probes) for a, b in zip(exhaustive, searched, strict=True))


COUNTS = st.lists(
    st.integers(1, 20).flatmap(lambda k: st.integers(0, k).map(lambda passed: Counts(passed, k))),
    min_size=1,
    max_size=10,
)


@given(COUNTS, st.sampled_from(list(LABEL_KINDS)))
def test_labels_of_every_kind_are_in_range(counts, kind):
    values = LABEL_KINDS[kind](counts)
    assert len(values) == len(counts) - (kind == "marginal")
    assert all(-1 <= value <= 1 for value in values)


@given(COUNTS)
def test_marginal_labels_add_up_to_the_whole_gain(counts):
    gain = counts[-1].passed / counts[-1].tried - counts[0].passed / counts[0].tried
    assert sum(LABEL_KINDS["marginal"](counts)) == pytest.approx(gain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"prefixes_at_once": 0}, "prefixes_at_once must be at least 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(scripted, options, message):
    with pytest.raises(ValueError, match=message):
        scan(scripted, scripted.recoverable_up_to(0), **options)


def test_an_unknown_kind_lists_the_choices(scripted):
    with pytest.raises(UnknownNameError, match="choose from hard, marginal, soft"):
        scan(scripted, scripted.recoverable_up_to(0), kind="harsh")


def test_a_program_without_its_task_is_named(scripted):
    with pytest.raises(TaskError, match="'p/t/0' answers task 't', which is not given"):
        scan(scripted, scripted.recoverable_up_to(0)).label([scripted.program()], {})


# ---------------------------------------------------------------- interrupted and resumed


def sometimes(scripted):
    return scripted.completer(
        lambda text, rng: "WIN\n" if rng.random() < 0.5 ** scripted.n_lines(text) else "lose\n"
    )


class InterruptedLabelerError(Exception):
    pass


def stopping_after(calls):
    """A judge that is interrupted at its call number `calls`."""
    n = 0

    def count():
        nonlocal n
        n += 1
        if n > calls:
            raise InterruptedLabelerError

    return count


@pytest.mark.parametrize("calls", range(9))
def test_an_interrupted_scan_ends_like_an_uninterrupted_one(scripted, tmp_path, calls):
    programs = [scripted.program(number=n) for n in range(6)]
    options = {"k": 2, "prefixes_at_once": 5}

    def run(name, completer, judge):
        labeler = FullScanLabeler(
            completer, judge, scripted.tokenizer, store=CompletionStore(tmp_path / f"{name}.c"), **options
        )
        label_to_file(labeler, programs, scripted.tasks, tmp_path / f"{name}.jsonl", chunk=2)

    whole = sometimes(scripted)
    run("whole", whole, scripted.judge())
    interrupt, plain = stopping_after(calls), scripted.judge()

    class Fragile(ScriptedJudge):
        def judge(self, jobs):
            interrupt()
            return plain.judge(jobs)

    first, second = sometimes(scripted), sometimes(scripted)
    with pytest.raises(InterruptedLabelerError):
        run("resumed", first, Fragile(None))
    run("resumed", second, scripted.judge())
    assert read_labels(tmp_path / "resumed.jsonl") == read_labels(tmp_path / "whole.jsonl")
    stores = [list(CompletionStore(tmp_path / f"{name}.c")) for name in ("whole", "resumed")]
    assert [turn.probes for turn in stores[0]] == [turn.probes for turn in stores[1]]
    # the turn that was being judged is drawn again, and no other
    assert second.n_drawn == whole.n_drawn - sum(len(c["texts"]) * c["n"] for c in first.calls[:calls])
