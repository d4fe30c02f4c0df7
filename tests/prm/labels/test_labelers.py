"""The table of labelers, and what a person sees of labels."""

import inspect

import pytest

from codegym import UnknownNameError
from codegym.table import resolve
from prm.display import show_labels, show_statistics
from prm.labelers import LABELERS, make_labeler, needs, options_of
from prm.labeling import BinarySearchLabeler, label_to_file, read_labels
from prm.program import LabeledProgram
from prm.selection import STRATEGIES, strategy_statistics


@pytest.mark.parametrize("name", LABELERS)
def test_every_labeler_is_a_labeler(name, scripted):
    parts = {
        "judge": scripted.judge(),
        "completer": scripted.recoverable_up_to(0),
        "tokenizer": scripted.tokenizer,
    }
    labeler = make_labeler(name, **parts)
    assert labeler.source == name
    assert list(inspect.signature(labeler.label).parameters) == ["programs", "tasks"]
    assert labeler.label([], {}) == []
    assert not set(options_of(name)) & {"judge", "completer", "tokenizer"}
    assert resolve(LABELERS, name, "labeler") is type(labeler)


@pytest.mark.parametrize("name", ["binary_search", "full_scan", "reference"])
def test_every_labeler_of_programs_labels_one_that_passes(name, scripted, tmp_path):
    parts = {
        "judge": scripted.judge(),
        "completer": scripted.recoverable_up_to(0),
        "tokenizer": scripted.tokenizer,
    }
    programs = [scripted.program(passed=True)]
    label_to_file(make_labeler(name, **parts), programs, scripted.tasks, tmp_path / "l.jsonl")
    (labeled,) = read_labels(tmp_path / "l.jsonl")
    assert (labeled.labels, labeled.source) == ((1,) * 6, name)
    assert set(labeled.cost) == {"completions", "tokens", "verdicts"}
    assert labeled.seconds >= 0


def test_what_labelers_need_and_take():
    assert needs("binary_search") == needs("full_scan") == ["completer", "judge", "tokenizer"]
    assert needs("reference") == ["judge"]
    assert needs("mutation") == []
    assert {"k", "draws_at_once", "k_per_step", "reuse", "step", "store"} <= set(options_of("binary_search"))
    assert {"k", "kind", "step", "store"} <= set(options_of("full_scan"))
    assert (options_of("reference"), options_of("mutation")) == ([], ["step"])


def test_what_is_missing_or_unknown_is_named(scripted):
    with pytest.raises(UnknownNameError, match="choose from binary_search, full_scan, mutation, reference"):
        make_labeler("full-scam")
    with pytest.raises(ValueError, match="labeler 'full_scan' needs a completer and a tokenizer"):
        make_labeler("full_scan", judge=scripted.judge())
    with pytest.raises(TypeError, match="kk"):
        make_labeler("reference", judge=scripted.judge(), kk=3)


def test_options_reach_the_labeler(scripted):
    labeler = make_labeler(
        "full_scan", judge=scripted.judge(), completer=scripted.recoverable_up_to(1),
        tokenizer=scripted.tokenizer, k=3, kind="soft",
    )  # fmt: skip
    (labeled,) = labeler.label([scripted.program(scripted.six[:2])], scripted.tasks)
    assert (labeled.probes, labeled.source) == ({1: (3, 3), 2: (0, 3)}, "full_scan_soft")


# ---------------------------------------------------------------- labels for people


def test_tokens_and_labels_are_aligned(scripted):
    lines = ["    a = 1", "    # b", "    return a"]
    (labeled,) = BinarySearchLabeler(
        scripted.recoverable_up_to(1), scripted.judge(), scripted.tokenizer
    ).label([scripted.program(lines)], scripted.tasks)
    assert show_labels(labeled, scripted.tokenizer) == (
        "p/t/0  wrong_answer  binary_search by scripted-1\n"
        "line  label   passes  tokens\n"
        "   1  +1.00      4/4   | | | |a| |=| |1|\\n    \n"
        "   2  +0.00           #| |b|\\n    \n"
        "   3  -1.00      0/8  r|e|t|u|r|n| |a|\\n\n"
    )


def test_hostile_text_stays_on_its_line(scripted):
    hostile = scripted.program(["    'é\r'"])
    labeled = LabeledProgram(program=hostile, labels=(0.5,), source="s")
    shown = show_labels(labeled, scripted.tokenizer)
    assert shown.count("\n") == 3
    assert "\\xe9|\\r" in shown
    assert "\r" not in shown


def test_a_cut_program_and_an_empty_one_can_be_shown(scripted):
    cut = scripted.program(["    a = 1", "    b ="], finished=False, newline=False)
    shown = show_labels(LabeledProgram(program=cut, labels=(1.0, -1.0), source="s"), scripted.tokenizer)
    assert shown.splitlines()[-1] == "   2  -1.00           b| |="
    nothing = LabeledProgram(program=scripted.program([]), labels=(), source="s")
    assert show_labels(nothing, scripted.tokenizer).count("\n") == 2


def test_statistics_are_a_table_with_flips_and_cost(scripted):
    failing, passing = scripted.program(), scripted.program(number=1, passed=True)
    labels = [
        LabeledProgram(
            program=failing,
            labels=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            source="s",
            cost={"completions": 1234},
            seconds=0.25,
        ),
        LabeledProgram(program=passing, labels=(1.0,) * 6, source="s", cost={"completions": 0}),
    ]
    shown = show_statistics(strategy_statistics(labels)).splitlines()
    assert [line.split()[0] for line in shown[:5]] == ["strategy", *STRATEGIES]
    full = dict(zip(shown[0].split(), shown[1].split(), strict=True))
    assert full == {
        "strategy": "full", "programs": "2", "correct": "1", "revised": "1", "wrong": "0", "lines": "12",
        "positive": "0.750", "negative": "0.250", "neutral": "0.000", "lines/program": "6.0",
    }  # fmt: skip
    assert shown[5] == "first wrong line, by tenths of the program: 0 0 0 0 0 1 0 0 0 0"
    assert shown[6] == "cost: 1,234 completions, 0.25 seconds"
    assert len({len(line) for line in shown[:5]}) == 1
