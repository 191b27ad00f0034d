"""A model's matrices take the format that is asked for, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from stretto_shared.errors import InvalidInput
from stretto_shared.nn.lowbit import LowBitLinear
from stretto_shared.nn.packed_linear import PackedLinear
from stretto_shared.nn.weight_format import WEIGHT_FORMATS, Bf16Linear, check_weight_format, set_weight_format
from torch import nn

KINDS = {"as_dtype": PackedLinear, "fp32": PackedLinear, "bf16": Bf16Linear, "int8": LowBitLinear, "int4": LowBitLinear}


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
    assert (model(rows) - expected).norm() / expected.norm() < {"int4": 0.2, "int8": 0.03}.get(weight_format, 0.01)


@torch.inference_mode()
def test_moving_a_model_to_bfloat16_leaves_integer_weights_alone() -> None:
    model, rows = small_model()[:1], torch.randn(3, 64)
    set_weight_format(model, "int8")
    expected = model(rows)
    torch.testing.assert_close(model.to(torch.bfloat16)(rows), expected, rtol=0, atol=0)


def test_an_unknown_format_is_refused_with_the_choices() -> None:
    with pytest.raises(InvalidInput, match=r"as_dtype, fp32, bf16, int8, int4.*got 'int3'") as caught:
        check_weight_format("int3", torch.float32)
    assert caught.value.field == "weight_format"


def test_fp32_beside_bfloat16_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Set dtype float32"):
        check_weight_format("fp32", torch.bfloat16)
