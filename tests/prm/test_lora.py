import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from codegym import MissingExtraError
from prm.lora import (
    LoRAConfig,
    LoRAOption,
    active_adapter,
    add_adapter,
    load_adapter,
    lora_from_options,
    merge_adapter,
    save_adapter,
)

IDS = torch.tensor([[5, 9, 60, 13, 200, 7]])
TINY = LoRAConfig(rank=2, alpha=4.0)


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def moved(model: Any, *, seed: int = 0) -> Any:
    """The model, with the weights that train away from where they start."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS).logits


def test_a_fresh_adapter_changes_no_output(backbone: LlamaForCausalLM) -> None:
    before = logits(backbone)
    adapted = add_adapter(backbone, TINY)
    assert adapted is backbone
    assert isinstance(adapted, LlamaForCausalLM)
    assert torch.equal(logits(adapted), before)


def test_only_the_adapter_trains(backbone: LlamaForCausalLM) -> None:
    before = {name: weight.clone() for name, weight in backbone.state_dict().items()}
    adapted = add_adapter(backbone, TINY)
    names = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    assert not any("lm_head" in name for name in names)
    # 2 layers: q 32x32, k and v 32x16, o 32x32, gate and up 32x64, down 64x32, each with rank 2
    per_layer = 2 * ((32 + 32) + 2 * (32 + 16) + (32 + 32) + 3 * (32 + 64))
    assert sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad) == 2 * per_layer
    moved(adapted)
    after = {name.replace(".base_layer", ""): weight for name, weight in adapted.state_dict().items()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_the_change_is_the_product_of_the_matrices_by_alpha_over_rank(backbone: LlamaForCausalLM) -> None:
    plain = backbone.model.layers[0].self_attn.q_proj.weight.clone()
    adapted = moved(add_adapter(backbone, LoRAConfig(rank=2, alpha=3.0, target_modules=("q_proj",))))
    layer = adapted.model.layers[0].self_attn.q_proj
    expected = plain + 1.5 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merged = merge_adapter(adapted).model.layers[0].self_attn.q_proj
    torch.testing.assert_close(merged.weight, expected)


def test_target_modules_choose_the_layers(backbone: LlamaForCausalLM) -> None:
    adapted = add_adapter(backbone, LoRAConfig(rank=2, target_modules=("q_proj", "v_proj")))
    names = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in names} == {"q_proj", "v_proj"}


def test_targets_that_the_model_lacks_are_refused(backbone: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        add_adapter(backbone, LoRAConfig(target_modules=("nowhere",)))


def test_initial_weights_follow_the_seed_and_leave_the_global_state_alone(
    make_causal_model: Callable[..., LlamaForCausalLM],
) -> None:
    one, same, other = (make_causal_model() for _ in range(3))
    state = torch.get_rng_state()
    for model, seed in ((one, 1), (same, 1), (other, 2)):
        add_adapter(model, TINY, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.model.layers[0].mlp.up_proj.lora_A["default"].weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_frozen_model_carries_several_adapters(backbone: LlamaForCausalLM) -> None:
    plain = logits(backbone)
    moved(add_adapter(backbone, TINY, name="policy"), seed=1)
    policy = logits(backbone)
    moved(add_adapter(backbone, TINY, name="critic"), seed=2)
    critic = logits(backbone)
    assert not torch.equal(policy, plain)
    assert not torch.equal(policy, critic)
    with active_adapter(backbone, "policy"):
        assert torch.equal(logits(backbone), policy)
        with active_adapter(backbone, None):
            assert torch.equal(logits(backbone), plain)
        assert torch.equal(logits(backbone), policy)
    assert torch.equal(logits(backbone), critic)


def test_looking_through_another_adapter_changes_nothing_of_what_trains(backbone: LlamaForCausalLM) -> None:
    add_adapter(add_adapter(backbone, TINY, name="policy"), TINY, name="critic")
    trains = {name for name, weight in backbone.named_parameters() if weight.requires_grad}
    assert all(".critic." in name for name in trains)
    for name in ("policy", None):
        with active_adapter(backbone, name):
            pass
        assert {name for name, weight in backbone.named_parameters() if weight.requires_grad} == trains
    with pytest.raises(ZeroDivisionError), active_adapter(backbone, None):
        raise ZeroDivisionError
    assert backbone.active_adapters() == ["critic"]


def test_merging_gives_a_plain_model_and_leaves_the_adapted_one(
    backbone: LlamaForCausalLM, tmp_path: Path
) -> None:
    plain_names = set(backbone.state_dict())
    adapted = moved(add_adapter(backbone, TINY))
    before = logits(adapted)
    merged = merge_adapter(adapted)
    assert set(merged.state_dict()) == plain_names
    torch.testing.assert_close(logits(merged), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(adapted), before)
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(merged))
    again = add_adapter(merged, TINY)
    assert torch.equal(logits(again), logits(merge_adapter(adapted)))


def test_merging_leaves_other_adapters_out(backbone: LlamaForCausalLM) -> None:
    moved(add_adapter(backbone, TINY, name="policy"), seed=1)
    policy = logits(backbone)
    moved(add_adapter(backbone, TINY, name="critic"), seed=2)
    torch.testing.assert_close(logits(merge_adapter(backbone, name="policy")), policy, atol=1e-5, rtol=1e-5)


def test_merging_what_is_not_there_is_refused(backbone: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="no adapter 'default' to merge; the model has none"):
        merge_adapter(backbone)
    add_adapter(backbone, TINY, name="policy")
    with pytest.raises(ValueError, match="no adapter 'default' to merge; the model has policy"):
        merge_adapter(backbone)


def test_on_a_bfloat16_model_the_adapter_is_float32_and_merges_without_rounding(
    backbone: LlamaForCausalLM,
) -> None:
    adapted = moved(add_adapter(backbone.to(torch.bfloat16), TINY))
    types = {weight.requires_grad: weight.dtype for weight in adapted.parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}
    layer = adapted.model.layers[0].self_attn.q_proj
    expected = (
        layer.base_layer.weight.float() + 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    )
    torch.testing.assert_close(merge_adapter(adapted).model.layers[0].self_attn.q_proj.weight, expected)
    assert logits(adapted).isfinite().all()


def test_an_adapter_survives_a_round_trip(
    make_causal_model: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    adapted = moved(add_adapter(make_causal_model(), TINY, name="policy"))
    save_adapter(adapted, tmp_path, name="policy")
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    read = load_adapter(make_causal_model(), tmp_path, name="policy")
    assert torch.equal(logits(read), logits(adapted))
    assert [name for name, weight in read.named_parameters() if weight.requires_grad] == [
        name for name, weight in adapted.named_parameters() if weight.requires_grad
    ]


def test_an_adapter_on_a_bfloat16_model_survives_a_round_trip_unrounded(
    make_causal_model: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    adapted = moved(add_adapter(make_causal_model().to(torch.bfloat16), TINY))
    save_adapter(adapted, tmp_path)
    read = load_adapter(make_causal_model().to(torch.bfloat16), tmp_path)
    pairs = zip(read.named_parameters(), adapted.named_parameters(), strict=True)
    for (name, weight), (same_name, expected) in pairs:
        assert name == same_name
        assert weight.dtype == expected.dtype
        assert torch.equal(weight, expected)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_pefts_own_loader_reads_a_saved_adapter(
    make_causal_model: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    adapted = moved(add_adapter(make_causal_model(), TINY))
    save_adapter(adapted, tmp_path)
    assert all(
        name.startswith("base_model.model.") for name in load_file(tmp_path / "adapter_model.safetensors")
    )
    read = peft.PeftModel.from_pretrained(make_causal_model(), tmp_path)
    assert torch.equal(logits(read), logits(adapted))


def test_a_copy_of_an_adapted_model_is_its_own(backbone: LlamaForCausalLM) -> None:
    adapted = add_adapter(backbone, TINY)
    before = logits(adapted)
    moved(copy.deepcopy(adapted))
    assert torch.equal(logits(adapted), before)


def test_without_peft_the_extra_is_named(backbone: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    for call in (
        lambda: add_adapter(backbone, TINY),
        lambda: merge_adapter(backbone),
        lambda: load_adapter(backbone, Path("adapter")),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install 'codegym\[lora\]'"):
            call()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rank", 0, "rank must be at least 1, got 0"),
        ("alpha", 0.0, "alpha must be positive and finite, got 0.0"),
        ("alpha", float("inf"), "alpha must be positive and finite, got inf"),
        ("dropout", 1.0, r"dropout must be in \[0, 1\), got 1.0"),
        ("dropout", -0.1, r"dropout must be in \[0, 1\), got -0.1"),
        ("target_modules", "q_proj", "target_modules must be 'all-linear' or a tuple"),
        ("target_modules", (), "target_modules must be 'all-linear' or a tuple"),
        ("target_modules", ("q_proj", ""), "target_modules must be 'all-linear' or a tuple"),
    ],
)
def test_a_bad_shape_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoRAConfig(**{field: value})


def test_a_rank_on_the_command_line_asks_for_an_adapter() -> None:
    def parse(lora: LoRAOption = None) -> LoRAConfig | None:
        return lora

    assert tyro.cli(parse, args=[]) is None
    assert tyro.cli(parse, args=["--lora.rank", "16"]) == LoRAConfig()
    named = tyro.cli(parse, args=["--lora.rank", "4", "--lora.target-modules", "q_proj", "v_proj"])
    assert named == LoRAConfig(rank=4, target_modules=("q_proj", "v_proj"))
    assert lora_from_options(alpha=8.0) is None
