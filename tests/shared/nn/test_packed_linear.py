"""Packed layers compute what the layers they replace computed; where torch cannot pack, nothing is replaced."""

import pytest
import torch
from stretto_shared.nn import packed_linear
from stretto_shared.nn.packed_linear import PackedLinear, can_pack, pack_linears
from torch import nn


def packed(linear: nn.Linear) -> nn.Module:
    """The layer as it is after packing, on builds of torch without oneDNN the same as before."""
    module = nn.Sequential(linear)
    pack_linears(module)
    return module[0]


def test_a_plain_layer_is_packed_wherever_torch_has_onednn() -> None:
    linear = nn.Linear(24, 40, bias=False)
    assert can_pack(linear) == torch.backends.mkldnn.is_available()
    assert (packed(linear) is linear) != can_pack(linear)


@pytest.mark.parametrize("shape", [(1, 24), (2, 1, 24), (3, 7, 24)])
def test_a_packed_layer_equals_its_origin(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(24, 40, bias=False), torch.randn(shape)
    with torch.inference_mode():
        expected = x @ linear.weight.T
        torch.testing.assert_close(packed(linear)(x), expected, rtol=1e-5, atol=1e-5)


def test_a_packed_layer_does_not_share_memory_with_its_origin() -> None:
    linear, x = nn.Linear(24, 40, bias=False), torch.ones(1, 24)
    with torch.inference_mode():
        layer = packed(linear)
        before = layer(x).clone()
        linear.weight.zero_()
        expected = before if can_pack(linear) else torch.zeros(1, 40)
        torch.testing.assert_close(layer(x), expected)


def test_packing_replaces_what_it_can_and_leaves_the_rest() -> None:
    module = nn.Sequential(
        nn.Linear(8, 8, bias=False),
        nn.Linear(8, 8),
        nn.Sequential(nn.Linear(8, 8, bias=False)),
        nn.Linear(8, 8, bias=False).to(torch.bfloat16),
    )
    plain = PackedLinear if can_pack(module[0]) else nn.Linear
    assert pack_linears(module) == (2 if plain is PackedLinear else 0)
    assert [type(child) for child in (module[0], module[1], module[2][0], module[3])] == [
        plain,
        nn.Linear,
        plain,
        nn.Linear,
    ]


def test_a_layer_that_cannot_be_packed_is_refused() -> None:
    linear = nn.Linear(8, 8)
    assert not can_pack(linear)
    with pytest.raises(ValueError, match="without a bias"):
        PackedLinear(linear)


def test_without_onednn_every_layer_stays_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    linear, x = nn.Linear(24, 40, bias=False), torch.randn(2, 24)
    assert packed(linear) is linear
    assert packed(linear)(x).shape == (2, 40)
    with pytest.raises(ValueError, match="expected"):
        PackedLinear(linear)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a build of torch without oneDNN")
def test_the_weights_of_a_layer_are_given_back_as_soon_as_they_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(32, 16, bias=False), nn.Sequential(nn.Linear(16, 8, bias=False), nn.Linear(8, 4)))
    weights = [model[0].weight, model[1][0].weight]
    given_back: list[tuple[int, int]] = []

    def page_out(tensors: list[torch.Tensor]) -> None:
        packed = sum(isinstance(each, PackedLinear) for each in model.modules())
        given_back.extend((tensor.data_ptr(), packed) for tensor in tensors)

    monkeypatch.setattr(packed_linear, "page_out", page_out)
    assert pack_linears(model) == 2
    assert given_back == [(weights[0].data_ptr(), 1), (weights[1].data_ptr(), 2)]  # not all at the end
