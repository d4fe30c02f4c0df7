"""The vLLM sampler with its engine, in an environment that has vLLM: `pytest -m vllm`.

One engine serves all tests: each gives the model the weights that it needs, which the engine must notice.
"""

import os
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agents.psgpo import PSGPO, PSGPOConfig
from agents.samplers import make_sampler
from agents.samplers.transformers import TransformersSampler
from agents.samplers.vllm import VLLMSampler
from prm.completion import Completer

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    # What vLLM imports, and what its client leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),
]

VOCABULARY = ["<eos>", "<pad>", "\n", *(chr(ord("!") + i) for i in range(45))]
EOS = 0


def make_tokenizer():
    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<pad>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )


def make_model(seed=0, sharpness=4.0):
    """The bundled model's architecture, smaller; on a CPU vLLM has no heads narrower than 32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # far from uniform, so that a wrong position or an old weight shows
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(sharpness)
    return model


def make_prompts(n, longest=17):
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, longest + 1, (n,), generator=generator).tolist()
    return [torch.randint(2, len(VOCABULARY), (length,), generator=generator).tolist() for length in lengths]


def flat(groups):
    return [completion for group in groups for completion in group]


@pytest.fixture(scope="module")
def running():
    before = dict(os.environ)
    model, tokenizer = make_model(), make_tokenizer()
    model.generation_config.eos_token_id = [EOS, 7]
    sampler = make_sampler("vllm", model, tokenizer, batch_size=64, kv_cache_bytes=2**27)
    assert isinstance(sampler, VLLMSampler)
    yield SimpleNamespace(model=model, tokenizer=tokenizer, sampler=sampler, environment=before)
    sampler.close()
    sampler.close()


@pytest.fixture
def engine(running):
    running.model.load_state_dict(make_model().state_dict())
    running.reference = TransformersSampler(running.model, running.tokenizer)
    return running


def test_it_is_a_completer_named_by_its_weights(engine):
    sampler: Completer = engine.sampler
    (group,) = sampler.sample([[3, 4]], n=2, max_new_tokens=3, temperature=1.0, seed=0)
    assert len(group) == 2
    assert sampler.identity == engine.reference.identity


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_training_forward(engine, temperature):
    prompts = make_prompts(9)
    groups = engine.sampler.sample(prompts, n=3, max_new_tokens=30, temperature=temperature, seed=1)
    assert len({len(completion.token_ids) for completion in flat(groups)}) > 3
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            ids = torch.tensor([[*prompt, *completion.token_ids]])
            with torch.no_grad():
                logits = engine.model(ids).logits[0, len(prompt) - 1 : -1] / temperature
            expected = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
            torch.testing.assert_close(
                torch.tensor(completion.logprobs), expected, atol=1e-3, rtol=0, check_dtype=False
            )


def test_greedy_is_that_of_the_transformers_sampler(engine):
    prompts = make_prompts(12)
    ours, theirs = (
        flat(sampler.sample(prompts, max_new_tokens=25, temperature=0))
        for sampler in (engine.sampler, engine.reference)
    )
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.token_ids == reference.token_ids
        assert (mine.text, mine.finished) == (reference.text, reference.finished)
        assert mine.logprobs == pytest.approx(reference.logprobs, abs=1e-3)


def test_an_ended_text_has_its_end_token_and_no_more(engine):
    groups = engine.sampler.sample(make_prompts(20), n=3, max_new_tokens=40)
    finished = [completion for completion in flat(groups) if completion.finished]
    cut = [completion for completion in flat(groups) if not completion.finished]
    assert {completion.token_ids[-1] for completion in finished} == {EOS, 7}
    assert cut
    for completion in finished:
        assert not {EOS, 7} & set(completion.token_ids[:-1])
        written = "".join(VOCABULARY[token] for token in completion.token_ids[:-1] if token > 1)
        assert completion.text == written
    for completion in cut:
        assert not {EOS, 7} & set(completion.token_ids)
        assert len(completion.token_ids) == len(completion.logprobs) == 40


def test_the_seed_decides_down_to_the_last_bit(engine):
    prompts = make_prompts(70)  # more rows than are decoded together
    once, again, other = (
        engine.sampler.sample(prompts, n=2, max_new_tokens=15, seed=seed) for seed in (1, 1, 2)
    )
    assert once == again
    assert once != other


def test_it_tells_of_completions_while_others_are_written(engine):
    prompts, told = make_prompts(12), []
    groups = engine.sampler.sample(prompts, n=2, max_new_tokens=40, seed=1, on_finished=told.append)
    written = flat(groups)
    assert dict(item for batch in told for item in batch) == dict(enumerate(written))
    lengths = [[len(completion.token_ids) for _, completion in batch] for batch in told]
    assert len(told) > 3
    assert max(lengths[0]) < max(map(max, lengths))
    assert groups == engine.sampler.sample(prompts, n=2, max_new_tokens=40, seed=1)


def test_samples_of_one_prompt_differ_and_equal_prompts_draw_apart(engine):
    engine.model.load_state_dict(make_model(sharpness=1.0).state_dict())
    group, twin = engine.sampler.sample([[5, 6], [5, 6]], n=4, max_new_tokens=10, seed=0)
    assert len({completion.token_ids for completion in (*group, *twin)}) == 8


def test_frequencies_are_the_models_probabilities(engine):
    engine.model.load_state_dict(make_model(sharpness=1.5).state_dict())
    n = 3000
    (group,) = engine.sampler.sample([[4, 8]], n=n, max_new_tokens=1)
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in group]), minlength=len(VOCABULARY))
    with torch.no_grad():
        expected = engine.model(torch.tensor([[4, 8]])).logits[0, -1].softmax(-1)
    error = (counts / n - expected).abs() / (expected * (1 - expected) / n).sqrt()
    assert error.max() < 4.5


@pytest.mark.parametrize("fused", [False, True])
def test_after_an_update_it_samples_from_the_new_weights(engine, fused):
    prompts = make_prompts(12)
    before = engine.sampler.sample(prompts, max_new_tokens=25, temperature=0)
    optimizer = torch.optim.AdamW(engine.model.parameters(), lr=0.05, fused=fused)
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]])
    engine.model(ids, labels=ids).loss.backward()
    optimizer.step()
    after = engine.sampler.sample(prompts, max_new_tokens=25, temperature=0)
    expected = engine.reference.sample(prompts, max_new_tokens=25, temperature=0)
    assert [c.token_ids for c in flat(after)] == [c.token_ids for c in flat(expected)]
    assert [c.token_ids for c in flat(after)] != [c.token_ids for c in flat(before)]
    for mine, reference in zip(flat(after), flat(expected), strict=True):
        assert mine.logprobs == pytest.approx(reference.logprobs, abs=1e-3)


def test_weights_that_did_not_change_are_not_sent(engine, monkeypatch):
    engine.sampler.sample([[3]], max_new_tokens=2)
    sent = []
    monkeypatch.setattr("agents.samplers.vllm.export_weights", lambda model, folder: sent.append(folder))
    engine.sampler.sample([[3]], max_new_tokens=2)
    assert sent == []


def test_no_weights_lie_around(engine):
    engine.sampler.sample([[3]], max_new_tokens=2)
    folder = engine.sampler._folder
    assert (folder / "config.json").exists()
    assert not list(folder.glob("*.safetensors"))


def test_what_the_engine_puts_into_the_environment_stays_in_the_engine(engine):
    engine.sampler.sample([[3]], max_new_tokens=2)
    before, after = engine.environment, dict(os.environ)
    changed = {name for name in after | before if after.get(name) != before.get(name)}
    assert changed <= {"PYTEST_CURRENT_TEST"}  # LD_PRELOAD above all


def test_no_prompts_no_completions(engine):
    assert engine.sampler.sample([], max_new_tokens=4) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": [[1], []], "max_new_tokens": 4}, "prompt 1 has no tokens"),
        ({"prompts": [[1]], "max_new_tokens": 4, "n": 0}, "n=0"),
        ({"prompts": [[1]], "max_new_tokens": 4, "temperature": 0.001}, "0 or at least 0.01, got 0.001"),
        (
            {"prompts": [[1], [2] * 119], "max_new_tokens": 10},
            "prompt 1 has 119 tokens: with max_new_tokens=10 more than max_model_len=128",
        ),
    ],
)
def test_a_bad_request_is_named_and_the_next_one_works(engine, arguments, message):
    with pytest.raises(ValueError, match=message):
        engine.sampler.sample(**arguments)
    (longest,) = engine.sampler.sample([[2] * 118], max_new_tokens=10)
    assert longest[0].token_ids


def test_an_interrupted_call_leaves_nothing_behind(engine, monkeypatch):
    once = engine.sampler.sample([[3, 4]], n=3, max_new_tokens=20, seed=3)
    with monkeypatch.context() as patch:
        llm = engine.sampler._engine

        def interrupt():
            raise KeyboardInterrupt

        patch.setattr(llm.llm_engine, "step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engine.sampler.sample([[9]] * 5, max_new_tokens=100)
    assert engine.sampler.sample([[3, 4]], n=3, max_new_tokens=20, seed=3) == once


def test_psgpo_trains_with_it(toy):
    config = PSGPOConfig(
        n_iterations=2,
        rollouts_per_iteration=16,
        max_new_tokens=4,
        sampler="vllm",
        sampler_options={"kv_cache_bytes": 2**27},
        learning_rate=0.02,
        critic_learning_rate=0.02,
        warmup_iterations=0,
        critic_only_iterations=0,
    )
    model = toy.model(hidden_size=64)
    agent = PSGPO(model, toy.env(), config, tokenizer=toy.tokenizer(), seed=0, device="cpu")
    try:
        start = agent.sampler.identity
        agent.learn()
        assert agent.iteration == 2
        assert agent.sampler.identity != start
        prompts = [[3, 2], [6, 2]]
        ours, theirs = (
            flat(sampler.sample(prompts, max_new_tokens=4, temperature=0))
            for sampler in (agent.sampler, TransformersSampler(model, agent.tokenizer))
        )
        assert [c.token_ids for c in ours] == [c.token_ids for c in theirs]
    finally:
        agent.sampler.close()
