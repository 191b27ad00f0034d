"""Packed layers compute what the layers they replace computed."""

import pytest
import torch
from stretto_shared.nn.packed_linear import PackedLinear, can_pack, pack_linears
from torch import nn


@pytest.mark.parametrize("shape", [(1, 24), (2, 1, 24), (3, 7, 24)])
def test_a_packed_layer_equals_its_origin(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(24, 40, bias=False), torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(linear)(x), linear(x), rtol=1e-5, atol=1e-5)


def test_a_packed_layer_does_not_share_memory_with_its_origin() -> None:
    linear, x = nn.Linear(24, 40, bias=False), torch.ones(1, 24)
    with torch.inference_mode():
        packed = PackedLinear(linear)
        expected = packed(x).clone()
        linear.weight.zero_()
        torch.testing.assert_close(packed(x), expected)


def test_packing_replaces_what_it_can_and_leaves_the_rest() -> None:
    module = nn.Sequential(
        nn.Linear(8, 8, bias=False),
        nn.Linear(8, 8),
        nn.Sequential(nn.Linear(8, 8, bias=False)),
        nn.Linear(8, 8, bias=False).to(torch.bfloat16),
    )
    assert pack_linears(module) == 2
    assert [type(child) for child in (module[0], module[1], module[2][0], module[3])] == [
        PackedLinear,
        nn.Linear,
        PackedLinear,
        nn.Linear,
    ]


def test_a_layer_that_cannot_be_packed_is_refused() -> None:
    linear = nn.Linear(8, 8)
    assert not can_pack(linear)
    with pytest.raises(ValueError, match="without a bias"):
        PackedLinear(linear)
