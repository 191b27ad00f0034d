"""`PackedMatrix`: the product, and clips beside each other only where that changes no bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stretto_codec.models import packed_matrix
from stretto_codec.models.packed_matrix import PackedMatrix, pack_linears, try_joining
from torch import nn

DTYPES = [torch.float32, torch.bfloat16]


def make(dtype: torch.dtype, num_outputs: int = 48, num_inputs: int = 32) -> PackedMatrix:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(num_outputs, num_inputs, generator=generator) / num_inputs**0.5
    return PackedMatrix(weight, torch.linspace(-1, 1, num_outputs), dtype)


def rows(num_clips: int, num_rows: int, num_inputs: int = 32) -> torch.Tensor:
    return torch.randn(num_clips, num_rows, num_inputs, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 0), (1, 1), (1, 5), (3, 7)])
@torch.inference_mode()
def test_it_is_the_product_and_the_bias(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    weight = torch.randn(48, 32, generator=torch.Generator().manual_seed(2))
    bias = torch.linspace(-1, 1, 48)
    x = rows(*shape)
    y = PackedMatrix(weight, bias, dtype)(x)
    tolerance = 1e-4 if dtype == torch.float32 else 0.3
    assert y.dtype == dtype and y.shape == (*shape, 48)
    torch.testing.assert_close(y.float(), x @ weight.T + bias, atol=tolerance, rtol=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_inputs", [32, 2048])
@torch.inference_mode()
def test_a_clip_gets_the_bytes_that_it_gets_alone(dtype: torch.dtype, num_inputs: int) -> None:
    matrix = make(dtype, 512, num_inputs)
    for num_rows in (1, 5, 20):
        x = rows(8, num_rows, num_inputs)
        alone = [matrix(clip) for clip in x.split(1)]
        for is_tried in (False, True):
            if is_tried:
                matrix.try_joining([2, 4, 8], [num_rows])
            for count in (2, 3, 4, 8):
                assert torch.equal(matrix(x[:count]), torch.cat(alone[:count]))


@torch.inference_mode()
def test_clips_share_a_product_only_after_a_trial_of_that_shape_that_found_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[int, int]] = []
    exact = PackedMatrix._product

    def product(matrix: PackedMatrix, x: torch.Tensor, *rest: Any) -> Any:
        calls.append(tuple(x.shape[:2]))
        return exact(matrix, x, *rest) + (1e-3 if x.shape[0] == 4 else 0.0)  # four of them are summed in another order

    monkeypatch.setattr(PackedMatrix, "_product", product)
    matrix = make(torch.float32)

    def calls_of(num_clips: int, num_rows: int) -> list[tuple[int, int]]:
        calls.clear()
        matrix(rows(num_clips, num_rows))
        return calls

    assert calls_of(1, 5) == [(1, 5)]
    assert calls_of(2, 5) == [(1, 5)] * 2
    matrix.try_joining([2, 4], [5])
    assert calls_of(2, 5) == [(2, 5)] or not torch.backends.mkldnn.is_available()
    assert calls_of(4, 5) == [(1, 5)] * 4
    assert calls_of(2, 6) == [(1, 6)] * 2


@torch.inference_mode()
def test_a_trial_notices_another_order_of_summing_that_rounding_to_bfloat16_nearly_always_hides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def product(matrix: PackedMatrix, x: torch.Tensor, weight: torch.Tensor, bias: Any) -> torch.Tensor:
        exact = torch.float64 if x.shape[0] == 4 else torch.float32
        return torch.cat([(clip.to(exact) @ weight.to(exact).T).to(x.dtype) for clip in x.split(1)])

    monkeypatch.setattr(PackedMatrix, "_product", product)
    monkeypatch.setattr(packed_matrix, "_packed", lambda weight: (weight, False))
    matrix = make(torch.bfloat16, 64, 256)
    x = rows(4, 1, 256)
    assert torch.equal(product(matrix, x.bfloat16(), matrix._weight, None), torch.cat([matrix(c) for c in x.split(1)]))
    matrix.try_joining([2, 4], [1])
    assert matrix._joined == {(2, 1)}


@torch.inference_mode()
def test_a_matrix_is_tried_with_the_rows_that_it_gets_and_with_no_more_clips_than_asked() -> None:
    matrix, other = make(torch.float32), make(torch.float32)
    try_joining([matrix, other], 4, lambda: (matrix(rows(1, 5)), matrix(rows(1, 3))))
    assert matrix._joined <= {(count, size) for count in (2, 4) for size in (3, 5)}
    assert other._joined == frozenset() and matrix.rows_seen is None


@torch.inference_mode()
def test_packed_layers_keep_their_numbers_when_their_origin_changes() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 48), nn.Sequential(nn.Linear(48, 8, bias=False)))
    x, linears = rows(2, 5), [module[0], module[1][0]]
    expected = module(x)
    pack_linears(module, torch.float32)
    for linear in linears:
        for parameter in linear.parameters():
            parameter.zero_()
    assert not any(isinstance(layer, nn.Linear) for layer in module.modules())
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-4)
