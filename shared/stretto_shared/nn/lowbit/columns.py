"""What goes into a decoder of columns and what comes out of it: `ColumnEmbedding`, and the guidance of logits.

Both are sums of single entries in one fixed order, so the native kernel and torch give the same bytes
(`tests/shared/nn/test_lowbit_columns.py`); the kernel does for all rows of a pass in one call what is a dozen small
operations of torch, each of them slow after a pass that left nothing but weights in the processor's caches.

Legend: N rows, K codebooks, V entries of a codebook's table, P positions, D width, L logits of a row.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from stretto_shared.nn.lowbit.kernel import NativeKernel


class ColumnEmbedding:
    """The sum of a column's embedded codes, codebook by codebook, and of its position's vector.

    Args:
        codes: Tables of all codebooks, one after the other, float32 [K * V, D].
        positions: Float32 [P, D].
        num_codebooks: K.
        kernel: What computes; None for torch.
    """

    def __init__(self, codes: Tensor, positions: Tensor, num_codebooks: int, kernel: NativeKernel | None) -> None:
        self._codes, self._positions = codes.contiguous(), positions.contiguous()
        self._offsets = torch.arange(num_codebooks) * (codes.shape[0] // num_codebooks)
        self._kernel = kernel
        self._table = _Table(
            self._codes.data_ptr(),
            self._positions.data_ptr(),
            num_codebooks,
            codes.shape[0] // num_codebooks,
            positions.shape[0],
            codes.shape[1],
        )

    def rows(self, columns: Sequence[Sequence[int]]) -> Tensor:
        """Rows [N, D] of columns: each a position and its K codes.

        Raises:
            IndexError: If a position or a code is out of range.
        """
        table = self._table
        if self._kernel is None:
            return self._by_torch(torch.tensor(columns))
        rows = torch.empty((len(columns), table.width))
        numbers = [number for column in columns for number in column]
        if len(numbers) != len(columns) * (1 + table.codebooks):
            raise ValueError(f"expected a position and {table.codebooks} codes in every column.")
        if not self._kernel.embed(table, struct.pack(f"={len(numbers)}q", *numbers), rows):
            raise IndexError(
                f"expected positions below {table.num_positions} and codes below {table.cardinality}, got {columns}."
            )
        return rows

    def _by_torch(self, columns: Tensor) -> Tensor:
        position, codes = columns[:, 0], columns[:, 1:]
        if int(codes.min()) < 0 or int(codes.max()) >= self._table.cardinality or int(position.min()) < 0:
            raise IndexError(f"expected codes below {self._table.cardinality}, got {columns.tolist()}.")
        entries = self._codes[codes + self._offsets]  # [N, K, D]
        rows: Tensor = entries[:, 0]
        for codebook in range(1, entries.shape[1]):
            rows = rows + entries[:, codebook]
        return rows + self._positions[position]


def guided_rows(logits: Tensor, scales: Sequence[float | None], kernel: NativeKernel | None) -> list[Tensor]:
    """The logits [L] of each request from rows [N, L] that stand in order: one, or a conditional and a null one.

    Args:
        logits: Of all of them.
        scales: Of each request its guidance; None for a request of one row, which is taken as it is.
        kernel: What computes; None for torch.
    """
    results: list[Tensor] = []
    at, size = 0, logits.shape[1]
    if kernel is None or not logits.is_contiguous():
        for scale in scales:
            one = logits[at]
            results.append(one if scale is None else logits[at + 1] + scale * (one - logits[at + 1]))
            at += 1 if scale is None else 2
        return results
    guided = torch.empty((len(scales), size))
    for index, scale in enumerate(scales):
        if scale is None:
            results.append(logits[at])
        else:
            kernel.guide(logits.data_ptr() + at * size * 4, size, scale, guided.data_ptr() + index * size * 4)
            results.append(guided[index])
        at += 1 if scale is None else 2
    return results


class _Table(ctypes.Structure):
    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("codebooks", "cardinality", "num_positions", "width")),
    )
