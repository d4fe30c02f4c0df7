"""Completions on disk: they come back, survive a kill at any byte, and let a labeler go on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm.labeling import BinarySearchLabeler, label_to_file, read_labels
from prm.store import CompletionStore, CompletionTree, Counts, Draw, Probe, Turn

ROOT = Path(__file__).parents[3]


def turn(number=0, *, batch="b", prefix=(1, 2), draws=(((3, 0), True),), completer="m", task_id="t"):
    return Turn(
        batch=batch,
        number=number,
        completer=completer,
        seconds=0.5,
        probes=(
            Probe(
                task_id=task_id,
                prompt_ids=(9,),
                prefix_ids=tuple(prefix),
                draws=tuple(Draw(token_ids=tuple(t), finished=True, passed=p) for t, p in draws),
            ),
        ),
    )


def probe(*prefix, task_id="t", prompt=(9,)):
    return Probe(task_id=task_id, prompt_ids=prompt, prefix_ids=prefix)


def test_turns_come_back_in_order(tmp_path):
    store = CompletionStore(tmp_path / "deep" / "c.jsonl")
    assert (len(store), list(store), store.find("b", 0)) == (0, [], None)
    turns = [turn(0), turn(1), turn(0, batch="c")]
    for item in turns:
        store.append(item)
    for again in (store, CompletionStore(store.path)):
        assert list(again) == turns == [again[place] for place in range(3)]
        assert [again.find("b", 0), again.find("b", 1), again.find("c", 0), again.find("c", 1)] == [
            0,
            1,
            2,
            None,
        ]


def test_a_probe_counts_its_draws():
    (found,) = turn(draws=(((3, 0), True), ((4,), False), ((), False))).probes
    assert (found.n_passed, found.n_tokens) == (1, 3)


@settings(max_examples=40)
@given(share=st.floats(0, 1))
def test_a_file_cut_at_any_byte_has_its_whole_turns_and_takes_more(tmp_path_factory, share):
    path = tmp_path_factory.mktemp("store") / "c.jsonl"
    store = CompletionStore(path)
    for number in range(5):
        store.append(turn(number))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    cut = CompletionStore(path)
    kept = len(cut)
    assert list(cut) == [turn(number) for number in range(kept)]
    cut.append(turn(kept))
    assert cut[kept] == turn(kept)
    assert list(CompletionStore(path)) == [turn(number) for number in range(kept + 1)]


@pytest.mark.parametrize("line", ["[]", "{", '{"batch": "b"}', "7"])
def test_a_foreign_file_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "c.jsonl"
    CompletionStore(path).append(turn())
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"c\.jsonl, line 2: .*turn of completions"):
        CompletionStore(path)


# ---------------------------------------------------------------- the tree


def test_a_tree_counts_what_passes_through():
    tree = CompletionTree()
    tree.add(turn(prefix=(1,), draws=(((2, 3, 0), True), ((2, 4, 0), False), ((5, 0), True), ((2,), False))))
    assert tree.count("m", probe(1)) == Counts(2, 4)
    assert tree.count("m", probe(1, 2)) == Counts(1, 3)
    assert tree.count("m", probe(1, 2, 4)) == Counts(0, 1)
    assert tree.count("m", probe(1, 2, 3, 0, 7)) == Counts(0, 0)
    assert tree.count("m", probe(2)) == Counts(0, 0)


def test_completions_of_a_longer_prefix_say_nothing_of_a_shorter_one():
    tree = CompletionTree()
    tree.add(turn(prefix=(1, 2), draws=(((3,), True),)))
    assert tree.count("m", probe(1)) == Counts(0, 0)
    assert tree.count("m", probe()) == Counts(0, 0)
    assert tree.count("m", probe(1, 2)) == Counts(1, 1)


def test_a_tree_keeps_tasks_prompts_and_completers_apart():
    tree = CompletionTree()
    tree.add(turn(prefix=()))
    assert tree.count("m", probe()) == Counts(1, 1)
    for counts in (
        tree.count("n", probe()), tree.count("m", probe(task_id="u")), tree.count("m", probe(prompt=(8,))),
    ):  # fmt: skip
        assert counts == Counts(0, 0)


TOKENS = st.lists(st.integers(0, 70_000), max_size=4)


@given(st.lists(st.tuples(TOKENS, TOKENS, st.booleans()), max_size=12), TOKENS)
def test_a_tree_is_a_filter_over_all_draws(drawn, prefix):
    tree = CompletionTree()
    for number, (head, tail, passed) in enumerate(drawn):
        tree.add(turn(number, prefix=head, draws=((tail, passed),)))
    through = [
        passed
        for head, tail, passed in drawn
        if len(head) <= len(prefix) and [*head, *tail][: len(prefix)] == prefix
    ]
    assert tree.count("m", probe(*prefix)) == Counts(sum(through), len(through))


# ---------------------------------------------------------------- labelling goes on


def sometimes(scripted):
    return scripted.completer(
        lambda text, rng: (
            "c = 3\n    WIN\n" if rng.random() < 0.6 ** scripted.n_lines(text) else "c = 3\n    no\n"
        )
    )


def label_file(scripted, folder, completer, programs, *, reuse):
    labeler = BinarySearchLabeler(
        completer, scripted.judge(), scripted.tokenizer, k=4, draws_at_once=2, reuse=reuse,
        store=CompletionStore(folder / "c.jsonl"),
    )  # fmt: skip
    label_to_file(labeler, programs, scripted.tasks, folder / "labels.jsonl", chunk=3)
    return read_labels(folder / "labels.jsonl")


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 0.999])
def test_killed_between_any_two_bytes_the_labels_are_those_of_an_uninterrupted_run(
    scripted, tmp_path, reuse, share
):
    programs = [scripted.program([f"    a = {n % 3}", *scripted.six[1:]], number=n) for n in range(9)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    completer = sometimes(scripted)
    expected = label_file(scripted, whole, completer, programs, reuse=reuse)
    turns = (whole / "c.jsonl").read_bytes().splitlines(keepends=True)
    # a kill leaves the completions up to a byte, and the labels of the chunks whose completions are all there
    cut = int(share * sum(map(len, turns)))
    (killed / "c.jsonl").write_bytes(b"".join(turns)[:cut])
    batches = [json.loads(line)["batch"] for line in turns]
    n_turns = len(CompletionStore(killed / "c.jsonl"))
    finished = [batch for batch in dict.fromkeys(batches) if batch not in batches[n_turns:]]
    n_chunks = max(0, len(finished) - 1)  # the last one may have been killed before its labels were written
    rows = (whole / "labels.jsonl").read_bytes().splitlines(keepends=True)
    (killed / "labels.jsonl").write_bytes(b"".join(rows[: 3 * n_chunks]))
    again = sometimes(scripted)
    assert label_file(scripted, killed, again, programs, reuse=reuse) == expected
    assert [t.probes for t in CompletionStore(killed / "c.jsonl")] == [
        t.probes for t in CompletionStore(whole / "c.jsonl")
    ]
    assert again.n_drawn == sum(len(d) for d in draws_of(turns[n_turns:]))


def draws_of(lines):
    return [probe["draws"] for line in lines for probe in json.loads(line)["probes"]]


def test_the_store_answers_without_a_draw_and_seconds_are_those_first_spent(scripted, tmp_path):
    programs = [scripted.program(number=n) for n in range(4)]
    first = label_file(scripted, tmp_path, sometimes(scripted), programs, reuse=False)
    (tmp_path / "labels.jsonl").unlink()
    completer = sometimes(scripted)
    second = label_file(scripted, tmp_path, completer, programs, reuse=False)
    assert (second, completer.n_drawn) == (first, 0)
    assert [row.seconds for row in second] == pytest.approx([row.seconds for row in first])


def test_other_settings_or_another_completer_draw_anew(scripted, tmp_path):
    programs, store = [scripted.program()], CompletionStore(tmp_path / "c.jsonl")
    counts = []
    for change in (
        {},
        {"k": 2},
        {"seed": 1},
        {"temperature": 0.5},
        {"max_new_tokens": 99},
        {"step": "statement"},
    ):
        completer = sometimes(scripted)
        options = {"k": 4, "draws_at_once": 2, **change}
        BinarySearchLabeler(completer, scripted.judge(), scripted.tokenizer, store=store, **options).label(
            programs, scripted.tasks
        )
        counts.append(completer.n_drawn)
    other = sometimes(scripted)
    other.identity = "scripted-2"
    BinarySearchLabeler(other, scripted.judge(), scripted.tokenizer, store=store, k=4, draws_at_once=2).label(
        programs, scripted.tasks
    )
    assert all(counts)
    assert other.n_drawn


def test_a_larger_k_later_starts_from_what_is_known(scripted, tmp_path):
    store, completer = CompletionStore(tmp_path / "c.jsonl"), scripted.recoverable_up_to(0)
    drawn = []
    for k in (4, 8):
        labeler = BinarySearchLabeler(
            completer, scripted.judge(), scripted.tokenizer, k=k, draws_at_once=4, reuse=True, store=store
        )
        (labeled,) = labeler.label([scripted.program()], scripted.tasks)
        drawn.append(labeled.cost["completions"])
        assert labeled.probes == {3: (0, k), 1: (0, k)}
    assert drawn == [8, 8]  # without what is known, the second would have drawn 16


JOB = """
import sys, time, runpy
from pathlib import Path
from prm.full_scan import FullScanLabeler
from prm.labeling import label_to_file
from prm.store import CompletionStore

parts = runpy.run_path(sys.argv[1])
program, judge = parts["program"], parts["judge"]()
completer = parts["Completer"](lambda text, rng: "WIN\\n" if rng.random() < 0.3 else "lose\\n")
completer.seconds = float(sys.argv[3])
plain = completer.sample
def sample(*args, **options):
    time.sleep(completer.seconds)
    return plain(*args, **options)
completer.sample = sample
folder = Path(sys.argv[2])
labeler = FullScanLabeler(completer, judge, parts["TOKENIZER"], k=4, prefixes_at_once=8,
                          store=CompletionStore(folder / "c.jsonl"))
programs = [program(number=n) for n in range(40)]
label_to_file(labeler, programs, {"t": parts["TASK"]}, folder / "labels.jsonl", chunk=8)
"""


@pytest.mark.slow
def test_kill_nine_in_a_full_scan_changes_nothing(tmp_path):
    conftest = Path(__file__).with_name("conftest.py")

    def start(name, seconds):
        (tmp_path / name).mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", JOB, str(conftest), str(tmp_path / name), str(seconds)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    assert start("whole", 0.0).wait(120) == 0
    for size in (2_000, 40_000, 70_000):
        child = start("killed", 0.05)
        path, deadline = tmp_path / "killed" / "c.jsonl", time.monotonic() + 120
        while time.monotonic() < deadline and not (path.exists() and path.stat().st_size > size):
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert 0 < len(CompletionStore(tmp_path / "killed" / "c.jsonl")) < 30
    assert start("killed", 0.0).wait(120) == 0
    labels = [read_labels(tmp_path / name / "labels.jsonl") for name in ("whole", "killed")]
    assert labels[0] == labels[1]
    assert len(labels[0]) == 40
    stores = [list(CompletionStore(tmp_path / name / "c.jsonl")) for name in ("whole", "killed")]
    assert [t.probes for t in stores[0]] == [t.probes for t in stores[1]]
