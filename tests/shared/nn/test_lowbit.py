"""Low-bit layers: a row's bytes are its own, the kernel and torch agree to the bit, and what is rounded is near."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_shared.nn.lowbit import (
    IntegerMatrix,
    LowBitLinear,
    NativeKernel,
    load_native_kernel,
    quantise_int4,
    quantise_int8,
)
from stretto_shared.nn.lowbit import (
    kernel as native,
)
from stretto_shared.nn.lowbit.codebooks import CODEBOOKS, NUM_CODEBOOKS, NUM_LEVELS, choose, fit, gaussian_groups
from torch import Tensor

Quantise = Callable[[Tensor], IntegerMatrix]
FORMATS = pytest.mark.parametrize("quantise", [quantise_int8, quantise_int4])
SHAPES = [(64, 32), (1, 1), (37, 50), (65, 33), (130, 31), (16, 4096), (200, 1030), (320, 320)]


@pytest.fixture(scope="module")
def kernel(native_kernel: NativeKernel) -> NativeKernel:
    return native_kernel


def random_rows(count: int, width: int, seed: int) -> Tensor:
    """Rows of very different loudness."""
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.exp(3 * torch.randn((count, 1), generator=generator))
    return torch.randn((count, width), generator=generator) * loudness


@functools.lru_cache(maxsize=64)
def layer_of(shape: tuple[int, int], quantise: Quantise, kernel: NativeKernel | None) -> LowBitLinear:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return LowBitLinear(quantise(weight), kernel)


def assert_same_bytes(first: Tensor, second: Tensor) -> None:
    assert first.shape == second.shape and first.dtype == second.dtype
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


def check_rows_are_their_own(layer: LowBitLinear, seed: int, count: int) -> None:
    """Every row alone, and in a batch of random others at a random place."""
    rows = random_rows(count, layer.in_features, seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    alone = torch.cat([layer(rows[at : at + 1]) for at in range(count)])
    assert_same_bytes(layer(rows), alone)
    assert_same_bytes(layer(rows[order]), alone[order])


@FORMATS
@settings(max_examples=40, deadline=None)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10_000), count=st.integers(1, 19))
def test_a_row_has_the_same_bytes_alone_and_anywhere_in_any_batch(
    kernel: NativeKernel, quantise: Quantise, shape: tuple[int, int], seed: int, count: int
) -> None:
    check_rows_are_their_own(layer_of(shape, quantise, kernel), seed, count)


@FORMATS
@settings(max_examples=20, deadline=None)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10_000), count=st.integers(1, 19))
def test_a_row_is_its_own_without_the_kernel_too(
    quantise: Quantise, shape: tuple[int, int], seed: int, count: int
) -> None:
    check_rows_are_their_own(layer_of(shape, quantise, None), seed, count)


@FORMATS
@settings(max_examples=40, deadline=None)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10_000), count=st.integers(0, 19))
def test_the_kernel_and_torch_give_the_same_bytes(
    kernel: NativeKernel, quantise: Quantise, shape: tuple[int, int], seed: int, count: int
) -> None:
    rows = random_rows(count, shape[1], seed)
    assert_same_bytes(layer_of(shape, quantise, kernel)(rows), layer_of(shape, quantise, None)(rows))


@FORMATS
def test_threads_change_no_byte(kernel: NativeKernel, quantise: Quantise) -> None:
    layer, rows, threads = layer_of((200, 1030), quantise, kernel), random_rows(9, 1030, 0), torch.get_num_threads()
    outs = []
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        outs.append(layer(rows))
    torch.set_num_threads(threads)
    assert_same_bytes(outs[0], outs[1])
    assert_same_bytes(outs[0], outs[2])


@FORMATS
@pytest.mark.parametrize("is_native", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_gives_nan_and_leaves_the_others_alone(
    request: pytest.FixtureRequest, quantise: Quantise, is_native: bool, bad: float
) -> None:
    layer = layer_of((37, 50), quantise, request.getfixturevalue("kernel") if is_native else None)
    rows = random_rows(4, 50, 1)
    expected = layer(rows)
    rows[2, 7] = bad
    out = layer(rows)
    assert out[2].isnan().all()
    assert_same_bytes(out[[0, 1, 3]], expected[[0, 1, 3]])


@FORMATS
@pytest.mark.parametrize("is_native", [True, False])
def test_zero_tiny_and_huge_rows_are_rows(request: pytest.FixtureRequest, quantise: Quantise, is_native: bool) -> None:
    layer = layer_of((37, 50), quantise, request.getfixturevalue("kernel") if is_native else None)
    rows = torch.stack([torch.zeros(50), torch.full((50,), 1e-38), torch.full((50,), 1e36)])
    out = layer(rows)
    assert (out[:2] == 0).all() and out[2].isfinite().all() and (out[2] != 0).any()
    assert layer(torch.zeros(0, 50)).shape == (0, 37)


@FORMATS
def test_any_leading_shape_and_number_format_comes_back(kernel: NativeKernel, quantise: Quantise) -> None:
    layer, rows = layer_of((37, 50), quantise, kernel), random_rows(6, 50, 2)
    assert_same_bytes(layer(rows.view(2, 3, 50)), layer(rows).view(2, 3, 37))
    assert_same_bytes(layer(rows.t().contiguous().t()), layer(rows))  # not contiguous
    assert layer(rows.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(("quantise", "most"), [(quantise_int8, 0.02), (quantise_int4, 0.11)])
def test_results_are_near_those_of_the_weights(quantise: Quantise, most: float) -> None:
    weight, rows = torch.randn(96, 256), torch.randn(8, 256)
    exact = rows @ weight.t()
    off = (LowBitLinear(quantise(weight))(rows) - exact).norm() / exact.norm()
    assert 0 < off < most


@settings(max_examples=30, deadline=None)
@given(shape=st.sampled_from([*SHAPES, (3, 16), (2, 47)]), seed=st.integers(0, 10_000))
def test_the_kernel_finds_the_integers_that_torch_finds(
    kernel: NativeKernel, shape: tuple[int, int], seed: int
) -> None:
    weight = random_rows(*shape, seed)
    weight[0] *= float(seed % 3)  # a row of noughts among others
    weight[:, ::7] *= 1e-6
    by_torch, by_kernel = quantise_int4(weight), quantise_int4(weight, kernel)
    assert torch.equal(by_torch.scales, by_kernel.scales)
    assert by_torch.books is not None and by_kernel.books is not None
    assert torch.equal(by_torch.books, by_kernel.books)
    assert torch.equal(by_torch.values, by_kernel.values)


def test_the_codebooks_are_those_that_fitting_leads_to() -> None:
    """A few rounds on other numbers make them no better than they are, and one set for all would be far worse."""
    codebooks = torch.tensor(CODEBOOKS, dtype=torch.float32)
    assert (codebooks.diff(dim=1) > 0).all() and codebooks.shape == (NUM_CODEBOOKS, NUM_LEVELS)
    groups = gaussian_groups(1)

    def error(books: Tensor) -> float:
        return float(choose(groups, books)[2].sum() / groups.square().sum())

    assert error(codebooks) < min(error(fit(seed=1, num_rounds=3)), 0.0066)
    assert error(codebooks[:1]) > 1.3 * error(codebooks)


def test_weights_are_read_back_within_half_a_step() -> None:
    weight = torch.randn(33, 70)
    matrix = quantise_int8(weight)
    assert ((matrix.dequantised() - weight).abs() <= 0.5001 * matrix.scales[:, None]).all()
    assert matrix.values.abs().max() == 127


def test_a_zero_output_stays_zero() -> None:
    weight = torch.randn(3, 64)
    weight[1] = 0
    for quantise in (quantise_int8, quantise_int4):
        out = LowBitLinear(quantise(weight))(torch.randn(2, 64))
        assert (out[:, 1] == 0).all() and (out[:, 0] != 0).all()


@FORMATS
@pytest.mark.parametrize("weight", [torch.zeros(3), torch.zeros(0, 4), torch.zeros(2, 70_000)])
def test_what_is_no_weight_matrix_is_refused(quantise: Quantise, weight: Tensor) -> None:
    with pytest.raises(ValueError, match="expected weights"):
        quantise(weight)


@FORMATS
def test_weights_that_are_not_finite_are_refused(quantise: Quantise) -> None:
    with pytest.raises(ValueError, match="finite"):
        quantise(torch.tensor([[1.0, float("nan")]]))


def test_without_a_compiler_there_is_no_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "COMPILERS", ("no-such-compiler",))
    assert load_native_kernel(tmp_path) is None


def test_a_compiler_that_fails_leaves_no_kernel_and_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FLAGS", ("--no-such-flag",))
    assert load_native_kernel(tmp_path) is None and not list(tmp_path.iterdir())


def test_a_folder_that_others_may_write_is_not_trusted(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert load_native_kernel(tmp_path) is None


def test_the_kernel_is_compiled_once(kernel: NativeKernel, tmp_path: Path) -> None:
    load_native_kernel(tmp_path)
    (made,) = tmp_path.iterdir()
    os.utime(made, (1, 1))
    assert load_native_kernel(tmp_path) is not None
    assert [(path, path.stat().st_mtime) for path in tmp_path.iterdir()] == [(made, 1)]
