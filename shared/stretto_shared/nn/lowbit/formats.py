"""Weights as integers of eight bits times a scale per output: int8 as they are, int4 by one of eight codebooks.

A product with integers is exact until the one scaling at its end. In int4 a weight is stored as its place of 4 bits in
a codebook of 16 integers (`codebooks`), and each group of 32 inputs of an output says which of the eight codebooks: so
sums over groups stay integers, and therefore exact in any order, as with a float scale per group they would not.

Legend: N outputs, K inputs, G groups. Knows nothing of layers and of how kernels lay weights out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stretto_shared.nn.lowbit.codebooks import CODEBOOKS, GROUP_SIZE, NUM_LEVELS, choose
from stretto_shared.nn.lowbit.kernel import NativeKernel

MAX_INT8 = 127
MAX_INPUTS = 65_536  # sums of products of 127 and 127 stay within int32
_LEAST_MAGNITUDE = 1e-30
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class IntegerMatrix:
    """A weight matrix [N, K] as `values * scales`.

    Args:
        values: int8 [N, K].
        scales: float32 [N].
        books: uint8 [N, G], the codebook of each group of 32, G = K / 32 rounded up; None in int8.
        places: uint8 [N, K], each value's place in its codebook, 0 to 15; None in int8.
    """

    values: Tensor
    scales: Tensor
    books: Tensor | None = None
    places: Tensor | None = None

    @property
    def num_bits(self) -> int:
        return 8 if self.books is None else 4

    def dequantised(self) -> Tensor:
        """The weights as float32 [N, K]."""
        return self.values.float() * self.scales[:, None]


def quantise_int8(weight: Tensor) -> IntegerMatrix:
    """Round [N, K] to multiples of a 127th of each row's largest magnitude.

    Raises:
        ValueError: If the weights are no matrix, too wide, or not finite.
    """
    weight = _checked(weight)
    scales = weight.abs().amax(1) / MAX_INT8
    units = weight / scales.clamp(min=_LEAST_MAGNITUDE)[:, None]
    return IntegerMatrix(units.round().clamp(-MAX_INT8, MAX_INT8).to(torch.int8), scales)


def quantise_int4(weight: Tensor, kernel: NativeKernel | None = None) -> IntegerMatrix:
    """Round [N, K] to 4 bits: each group of 32 takes the codebook, each weight the level, of the least square error.

    Args:
        weight: The weights.
        kernel: The native kernel, which does the same much faster; None for torch.

    Raises:
        ValueError: If the weights are no matrix, too wide, or not finite.
    """
    weight = _checked(weight)
    num_outputs, num_inputs = weight.shape
    scales = weight.abs().amax(1) / torch.tensor(float(MAX_INT8))  # a tensor: torch may multiply by the reciprocal
    units = weight / scales.clamp(min=_LEAST_MAGNITUDE)[:, None]
    num_groups = -(-num_inputs // GROUP_SIZE)
    units = torch.nn.functional.pad(units, (0, num_groups * GROUP_SIZE - num_inputs))
    if kernel is None:
        parts = [_chosen(rows) for rows in torch.split(units.view(num_outputs, num_groups, GROUP_SIZE), _ROWS_AT_ONCE)]
        books, places = (torch.cat(part) for part in zip(*parts, strict=True))
    else:
        books = torch.empty((num_outputs, num_groups), dtype=torch.uint8)
        places = torch.empty((num_outputs, num_groups, GROUP_SIZE), dtype=torch.uint8)
        kernel.choose_codebooks(units.contiguous(), books, places)
    table = torch.tensor(CODEBOOKS, dtype=torch.int8).flatten()
    values = table[books[..., None].int() * NUM_LEVELS + places.int()]
    flat = [each.flatten(1)[:, :num_inputs].contiguous() for each in (values, places)]
    return IntegerMatrix(flat[0], scales, books, flat[1])


def _chosen(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Codebooks [N, G] and places [N, G, 32] of groups [N, G, 32]."""
    books, places, _ = choose(groups.flatten(0, 1), torch.tensor(CODEBOOKS, dtype=torch.float32))
    return books.view(groups.shape[:2]).to(torch.uint8), places.view(groups.shape).to(torch.uint8)


def _checked(weight: Tensor) -> Tensor:
    if weight.dim() != 2 or weight.shape[0] < 1 or not 1 <= weight.shape[1] <= MAX_INPUTS:
        raise ValueError(f"expected weights [N, K] with K from 1 to {MAX_INPUTS}, got {list(weight.shape)}.")
    if not bool(weight.isfinite().all()):
        raise ValueError("expected finite weights, got infinities or NaN. Restore the checkpoint.")
    return weight.detach().float()
