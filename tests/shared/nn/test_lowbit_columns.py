"""Columns embedded and logits guided by the native kernel: the bytes of torch."""

from __future__ import annotations

import pytest
import torch
from stretto_shared.nn.lowbit import ColumnEmbedding, NativeKernel, guided_rows
from torch import Tensor

NUM_CODEBOOKS, NUM_ENTRIES, NUM_POSITIONS, WIDTH = 4, 9, 20, 37


@pytest.fixture(scope="module")
def kernel(native_kernel: NativeKernel) -> NativeKernel:
    return native_kernel


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def embedding(kernel: NativeKernel | None) -> ColumnEmbedding:
    tables = randn(NUM_CODEBOOKS * NUM_ENTRIES, WIDTH, seed=0)
    return ColumnEmbedding(tables, randn(NUM_POSITIONS, WIDTH, seed=1), NUM_CODEBOOKS, kernel)


def test_rows_are_sums_in_the_order_of_codebooks(kernel: NativeKernel) -> None:
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(NUM_ENTRIES, (50, NUM_CODEBOOKS), generator=generator)
    positions = torch.randint(NUM_POSITIONS, (50, 1), generator=generator)
    tables = randn(NUM_CODEBOOKS * NUM_ENTRIES, WIDTH, seed=0)
    expected = tables[codes[:, 0]]
    for k in range(1, NUM_CODEBOOKS):
        expected = expected + tables[codes[:, k] + k * NUM_ENTRIES]
    expected = expected + randn(NUM_POSITIONS, WIDTH, seed=1)[positions[:, 0]]
    columns = torch.cat([positions, codes], dim=1).tolist()
    for own in (kernel, None):
        assert torch.equal(embedding(own).rows(columns), expected)


@pytest.mark.parametrize("column", [[0, 0, 0, 0, 9], [0, -1, 0, 0, 0], [20, 0, 0, 0, 0], [-1, 0, 0, 0, 0]])
def test_what_is_out_of_range_is_refused(column: list[int], kernel: NativeKernel) -> None:
    for own in (kernel, None):
        with pytest.raises(IndexError):
            embedding(own).rows([[0] * 5, column])


def test_a_column_of_another_size_is_refused(kernel: NativeKernel) -> None:
    with pytest.raises(ValueError, match="4 codes"):
        embedding(kernel).rows([[0, 0, 0, 0]])


def test_guidance_is_that_of_torch_for_some_and_none_of_it_for_others(kernel: NativeKernel) -> None:
    logits, scales = randn(7, 101, seed=3), [3.0, None, 0.1, 7.25]
    conditional, unconditional = logits[[0, 3, 5]], logits[[1, 4, 6]]
    expected = [u + s * (c - u) for c, u, s in zip(conditional, unconditional, (3.0, 0.1, 7.25), strict=True)]
    expected.insert(1, logits[2])
    for own in (kernel, None):
        found = guided_rows(logits, scales, own)
        assert len(found) == 4
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
