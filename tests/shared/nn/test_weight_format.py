"""A model's matrices take the format that is asked for, and nothing else changes."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping

import pytest
import torch
from stretto_shared.errors import InvalidInput
from stretto_shared.nn.lowbit import LowBitLinear
from stretto_shared.nn.packed_linear import PackedLinear
from stretto_shared.nn.weight_format import WEIGHT_FORMATS, Bf16Linear, check_weight_format, fill, set_weight_format
from torch import Tensor, nn

KINDS = {
    "as_dtype": PackedLinear,
    "fp32": PackedLinear,
    "bf16": Bf16Linear,
    "int8": LowBitLinear,
    "int4": LowBitLinear,
    "int4_kv4": LowBitLinear,
}


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 96, bias=False), nn.Linear(96, 96), nn.Sequential(nn.LayerNorm(96), nn.Linear(96, 8, bias=False))
    ).eval()


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
@torch.inference_mode()
def test_layers_without_a_bias_are_replaced_and_results_stay_near(weight_format: str) -> None:
    model, rows = small_model(), torch.randn(3, 64)
    expected = model(rows)
    assert set_weight_format(model, weight_format) == 2
    assert type(model[0]) is type(model[2][1]) is KINDS[weight_format]
    assert type(model[1]) is nn.Linear
    assert (model(rows) - expected).norm() / expected.norm() < {"int4": 0.2, "int4_kv4": 0.2, "int8": 0.03}.get(
        weight_format, 0.01
    )


@torch.inference_mode()
def test_moving_a_model_to_bfloat16_leaves_integer_weights_alone() -> None:
    model, rows = small_model()[:1], torch.randn(3, 64)
    set_weight_format(model, "int8")
    expected = model(rows)
    torch.testing.assert_close(model.to(torch.bfloat16)(rows), expected, rtol=0, atol=0)


def test_an_unknown_format_is_refused_with_the_choices() -> None:
    with pytest.raises(InvalidInput, match=r"as_dtype, fp32, bf16, int8, int4, int4_kv4.*got 'int3'") as caught:
        check_weight_format("int3", torch.float32)
    assert caught.value.field == "weight_format"


def test_fp32_beside_bfloat16_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Set dtype float32"):
        check_weight_format("fp32", torch.bfloat16)


class CountedTensors(Mapping[str, Tensor]):
    """Copies of a state dict that tell which were asked for, and how many linear layers held theirs meanwhile."""

    def __init__(self, state: Mapping[str, Tensor], model: nn.Module) -> None:
        self._state = state
        self._layers = [weakref.ref(layer) for layer in model.modules() if isinstance(layer, nn.Linear)]
        self.asked: list[str] = []
        self.most_filled = 0

    def __getitem__(self, key: str) -> Tensor:
        self.asked.append(key)
        layers = [layer for ref in self._layers if (layer := ref()) is not None]
        self.most_filled = max(self.most_filled, sum(layer.weight.device.type != "meta" for layer in layers))
        return self._state[key].clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def on_meta() -> nn.Sequential:
    with torch.device("meta"):
        return small_model()


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
@torch.inference_mode()
def test_filling_gives_what_setting_the_format_of_a_whole_model_gives(weight_format: str) -> None:
    whole, rows = small_model(), torch.randn(3, 64)
    filled = on_meta()
    tensors = CountedTensors(whole.state_dict(), filled)
    fill(filled, tensors, weight_format)
    set_weight_format(filled, "as_dtype")
    set_weight_format(whole, weight_format)
    assert torch.equal(filled(rows), whole(rows))
    assert sorted(tensors.asked) == sorted(tensors)


def test_a_checkpoint_never_lies_whole_in_memory_beside_its_integers() -> None:
    state = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(9))).state_dict()
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(9)))
    tensors = CountedTensors(state, model)
    fill(model, tensors, "int8")
    assert tensors.most_filled <= 1  # the layer before, whose name is bound until the next one is at hand


def test_tensors_that_do_not_fit_are_named() -> None:
    state = dict(small_model().state_dict())
    with pytest.raises(RuntimeError, match=r"missing \['0.weight'\], left over none"):
        fill(on_meta(), {key: state[key] for key in state if key != "0.weight"}, "int8")
    with pytest.raises(RuntimeError, match=r"left over \['3.weight'\]"):
        fill(on_meta(), state | {"3.weight": torch.zeros(1)}, "int8")
    with pytest.raises(RuntimeError, match="size mismatch"):
        fill(on_meta(), state | {"0.weight": torch.zeros(2, 2)}, "int8")
