"""A critic that starts from a reward model reads the policy's token ids: both must mean the same by them."""

from dataclasses import replace

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from agents.cli import main
from agents.config import PipelineConfig
from agents.psgpo import PSGPO, PSGPOConfig
from prm.model import ProcessRewardModel

CONFIG = PSGPOConfig(rollouts_per_iteration=8, max_new_tokens=4, critic_init="prm")


@pytest.fixture
def other_tokenizer(toy):
    """The toy language's, with two letters in each other's place."""
    vocabulary = dict(toy.tokenizer().get_vocab())
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def start(toy, prm, **changes):
    config = replace(CONFIG, **changes)
    return PSGPO(toy.model(), toy.env(), config, tokenizer=toy.tokenizer(), prm=prm, device="cpu")


def test_a_reward_model_with_the_policys_tokenizer_starts_a_critic(toy):
    prm = ProcessRewardModel.from_backbone(toy.model(seed=7), toy.tokenizer())
    assert start(toy, prm).critic.head.weight.shape == prm.head.weight.shape


@pytest.mark.parametrize("from_folder", [False, True])
def test_one_with_another_tokenizer_is_refused_before_anything_is_sampled(
    toy, other_tokenizer, tmp_path, from_folder
):
    prm = ProcessRewardModel.from_backbone(toy.model(seed=7), other_tokenizer)
    prm.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"another tokenizer \(11 and 11 tokens\): token 3 is 'b' to it and 'a'"
    ):
        start(toy, tmp_path if from_folder else prm)


def test_a_reward_model_that_only_watches_may_have_any_tokenizer(toy, other_tokenizer):
    prm = ProcessRewardModel.from_backbone(toy.model(seed=7), other_tokenizer)
    start(toy, prm, critic_init="policy")


def test_the_baseline_cannot_start_from_a_reward_model_that_is_not_there_yet(tmp_path, capsys):
    with pytest.raises(ValueError, match="the baseline arm trains before there is one"):
        PipelineConfig(rl=PSGPOConfig(critic_init="prm"))
    try:
        status = main(["psgpo", "--out", str(tmp_path / "run"), "--rl.critic-init", "prm"])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert "before there is one" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
