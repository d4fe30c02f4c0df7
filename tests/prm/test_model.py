import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from codegym import CallTest, Episode, Task
from codegym.rewards import LineScorer
from prm.batching import encode_labeled
from prm.heads import HEADS
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram

MakeModel = Callable[..., ProcessRewardModel]
Digits = Callable[[range], list[LabeledProgram]]

TASK = Task(
    task_id="toy/add",
    prompt="def add(a, b):\n",
    entry_point="add",
    tests=(CallTest(args=(1, 2), expected=3),),
)


def episode(*lines: str) -> Episode:
    return Episode(task=TASK, lines=lines)


@pytest.mark.parametrize("head", HEADS)
def test_scores_have_one_number_per_line_in_range(random_model: MakeModel, head: str) -> None:
    model = random_model(head)
    assert isinstance(model, LineScorer)
    scores = model.score([episode("    c = a", "    return c"), episode("    return 0")])
    assert [row.shape for row in scores] == [(2,), (1,)]
    assert all(row.dtype == np.float64 and (np.abs(row) <= 1).all() for row in scores)


def test_blank_and_comment_lines_score_zero(random_model: MakeModel) -> None:
    scores = random_model().score([episode("    # add", "", "    return a")])[0]
    assert (scores[:2] == 0).all()
    assert scores[2] != 0


def test_lone_surrogates_score_as_the_question_marks_that_they_become(random_model: MakeModel) -> None:
    hostile, plain = random_model().score([episode("a = '\ud800'", "\udfff"), episode("a = '?'", "?")])
    assert hostile == pytest.approx(plain)


def test_empty_programs_have_no_scores(random_model: MakeModel) -> None:
    model = random_model()
    assert [row.tolist() for row in model.score([episode(), episode()])] == [[], []]
    assert [len(row) for row in model.score([episode(), episode("    return a")])] == [0, 1]
    assert model.score([]) == []


def test_a_score_depends_on_its_own_program_only(random_model: MakeModel) -> None:
    model = random_model()
    one, other = episode("    return a"), episode("    c = a + b", "    d = c", "    return d")
    together = model.score([one, other, one])
    for programs, scores in zip([one, other, one], together, strict=True):
        np.testing.assert_allclose(scores, model.score([programs])[0], atol=1e-6)


def test_a_score_does_not_see_later_lines(random_model: MakeModel) -> None:
    model = random_model()
    whole = model.score([episode("    c = a", "    d = b", "    return d")])[0]
    part = model.score([episode("    c = a", "    d = b")])[0]
    np.testing.assert_allclose(whole[:2], part, atol=1e-6)


def test_batch_size_changes_no_score(random_model: MakeModel) -> None:
    model = random_model()
    programs = [episode(*["    c = a"] * n) for n in (1, 3, 2, 4)]
    expected = model.score(programs)
    model.max_batch_tokens = 1  # one program per batch
    for scores, wanted in zip(model.score(programs), expected, strict=True):
        np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_a_line_is_read_where_its_newline_is_even_inside_a_token(
    merging_tokenizer: PreTrainedTokenizerFast, make_causal_model: Callable[..., LlamaForCausalLM]
) -> None:
    model = ProcessRewardModel.from_backbone(make_causal_model(258), merging_tokenizer, head="newline")
    program = model.encode_episodes([episode("    c", "    d")])[0]
    texts = [merging_tokenizer.decode([int(program.token_ids[end])]) for end in program.line_ends]
    assert texts == ["\n ", "\n"]


def test_text_and_exact_tokens_score_alike(random_model: MakeModel, digits: Digits) -> None:
    model, labeled = random_model(), digits(range(5))
    tasks = [replace(TASK, prompt=model.tokenizer.decode(list(item.program.prompt_ids))) for item in labeled]
    by_text = model.score([item.program.episode(task) for item, task in zip(labeled, tasks, strict=True)])
    by_tokens = model.score_programs([item.program for item in labeled])
    for text, tokens in zip(by_text, by_tokens, strict=True):
        np.testing.assert_allclose(text, tokens, atol=1e-6)


def test_an_untrained_model_scores_all_lines_alike(
    backbone: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    newline = ProcessRewardModel.from_backbone(backbone, tokenizer, head="newline")
    assert newline.score([episode("    a", "    b")])[0].tolist() == [0.0, 0.0]
    hazard = ProcessRewardModel.from_backbone(backbone, tokenizer)
    assert hazard.score([episode("    a", "    b")])[0].tolist() == pytest.approx([0.0, -0.5])


def test_forward_gives_a_number_per_token(random_model: MakeModel) -> None:
    outputs = random_model()(torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long))
    assert outputs.shape == (2, 5)
    assert outputs.dtype == torch.float32


def test_dropout_is_off_even_while_training(
    make_causal_model: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast, digits: Digits
) -> None:
    model = ProcessRewardModel.from_backbone(make_causal_model(dropout=0.5), tokenizer)
    torch.nn.init.normal_(model.head.weight)
    assert model.backbone.config.attention_dropout == 0.0
    batch = model.batch([encode_labeled(item, model.newlines) for item in digits(range(3))])
    model.train()
    assert torch.equal(model.line_outputs(batch), model.line_outputs(batch))


def test_dropout_layers_are_off(backbone: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    backbone.model.layers[0].mlp.act_fn = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Dropout(0.3))
    model = ProcessRewardModel.from_backbone(backbone, tokenizer)
    assert [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)] == [0.0]


def test_training_it_leaves_the_language_model_alone(
    backbone: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = ProcessRewardModel.from_backbone(backbone, tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    before = backbone.model.embed_tokens.weight
    assert torch.equal(model.backbone.embed_tokens.weight, before + 1.0)


def test_saved_and_loaded_it_scores_the_same(random_model: MakeModel, tmp_path: Path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path / "prm")
    loaded = ProcessRewardModel.from_pretrained(tmp_path / "prm")
    assert loaded.identity == model.identity
    assert loaded.head_name == "token_sum"
    program = episode("    c = a", "    return c")
    assert loaded.score([program])[0].tolist() == model.score([program])[0].tolist()


def test_a_saved_folder_has_the_hugging_face_layout(random_model: MakeModel, tmp_path: Path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path)
    backbone = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(backbone.embed_tokens.weight, model.backbone.embed_tokens.weight)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(model.tokenizer)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".draft")]


def test_saving_replaces_an_older_model(random_model: MakeModel, tmp_path: Path) -> None:
    random_model("newline", seed=1).save_pretrained(tmp_path)
    newer = random_model(seed=2)
    newer.save_pretrained(tmp_path)
    assert ProcessRewardModel.from_pretrained(tmp_path).identity == newer.identity


def test_a_save_cut_short_is_not_a_model(
    random_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model()
    model.save_pretrained(tmp_path)

    def fail(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prm.model_folder.save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"not a process reward model: it has no prm\.json"):
        ProcessRewardModel.from_pretrained(tmp_path)


def test_a_language_model_is_not_a_reward_model(
    backbone: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    backbone.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"not a process reward model: it has no prm\.json"):
        ProcessRewardModel.from_pretrained(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        ProcessRewardModel.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "expected version 1"),
        ('{"version": 9}', "expected version 1"),
        ('{"version": 1, "head": "sum"}', "unknown PRM head 'sum'"),
    ],
)
def test_a_damaged_configuration_is_refused(
    random_model: MakeModel, tmp_path: Path, text: str, message: str
) -> None:
    random_model().save_pretrained(tmp_path)
    (tmp_path / "prm.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        ProcessRewardModel.from_pretrained(tmp_path)


def test_a_damaged_head_is_refused(random_model: MakeModel, tmp_path: Path) -> None:
    random_model().save_pretrained(tmp_path)
    for damage in (
        lambda path: path.write_bytes(b"junk"),
        lambda path: save_file({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, path),
        lambda path: path.unlink(),
    ):
        damage(tmp_path / "head.safetensors")
        with pytest.raises(ValueError, match="is not the head of this reward model"):
            ProcessRewardModel.from_pretrained(tmp_path)


def test_identity_changes_with_weights_and_head(random_model: MakeModel) -> None:
    identities = {
        random_model("token_sum").identity,
        random_model("newline").identity,
        random_model("token_sum", seed=1).identity,
    }
    assert len(identities) == 3
    assert random_model("token_sum").identity in identities


def test_a_model_object_needs_its_tokenizer(backbone: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="needs its tokenizer"):
        ProcessRewardModel.from_backbone(backbone)


def test_a_foreign_tokenizer_is_refused(
    make_causal_model: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match="the tokenizer has 257 tokens, but the backbone embeds 100"):
        ProcessRewardModel.from_backbone(make_causal_model(100), tokenizer)


def test_a_program_beyond_the_context_is_refused(random_model: MakeModel) -> None:
    with pytest.raises(ValueError, match="does not fit the backbone's 64 positions"):
        random_model().score([episode("    return " + "a" * 100)])


def test_a_budget_of_no_tokens_is_refused(
    backbone: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match="max_batch_tokens must be at least 1, got 0"):
        ProcessRewardModel(backbone.base_model, tokenizer, max_batch_tokens=0)


def test_the_head_stays_in_float32_on_a_half_precision_backbone(
    backbone: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = ProcessRewardModel.from_backbone(backbone, tokenizer, dtype=torch.bfloat16)
    assert model.backbone.dtype == torch.bfloat16
    assert model.head.weight.dtype == torch.float32
    assert model.score([episode("    return a")])[0].shape == (1,)


def test_tokenizers_are_the_same_if_every_id_means_the_same(
    random_model: MakeModel, merging_tokenizer: PreTrainedTokenizerFast, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = random_model()
    model.check_same_tokenizer(tokenizer)
    model.check_same_tokenizer(copy.deepcopy(tokenizer))
    with pytest.raises(ValueError, match=r"\(257 and 258 tokens\): token 257 is None to it and 'ĊĠ'"):
        model.check_same_tokenizer(merging_tokenizer)
