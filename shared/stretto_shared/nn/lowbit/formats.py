"""Weights as integers: int8 with a scale per output, and int4 with a scale per output and a multiplier per group.

Both are symmetric and weight = integer * scale, so that a product with integers is exact until the one scaling at its
end. In int4 the integer of a weight is value * multiplier: the value has 4 bits (-8 to 7), the multiplier is one of 1
to 31 for a group of 32 inputs of one output. The multipliers take the place of a float scale per group: sums over
groups stay integers, and therefore exact in any order. The idea is that of the k-quants of llama.cpp, whose
super-blocks scale the scales of their blocks in the same way.

Legend: N outputs, K inputs, G groups. Knows nothing of layers and of how kernels lay weights out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stretto_shared.nn.lowbit.kernel import NativeKernel

GROUP_SIZE = 32
MAX_INT8 = 127
MAX_MULTIPLIER = 31
LEAST_INT4, MOST_INT4 = -8, 7
MAX_INPUTS = 65_536  # sums of products of 127 and 8 * 31 stay within int32
_LEAST_MAGNITUDE = 1e-30
_SHRINKINGS = (1.0, 0.94, 0.88, 0.82, 0.76, 0.7)  # of a group's range: clipping the largest weight serves the others
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class IntegerMatrix:
    """A weight matrix [N, K] as `values * multipliers * scales`.

    Args:
        values: int8 [N, K].
        multipliers: uint8 [N, G], G = K / 32 rounded up, each for 32 values of a row; None where all are 1.
        scales: float32 [N].
    """

    values: Tensor
    multipliers: Tensor | None
    scales: Tensor

    @property
    def num_bits(self) -> int:
        return 8 if self.multipliers is None else 4

    def integers(self) -> Tensor:
        """The weights in units of their scales, as float32 [N, K]; every value is exact, below 256 in magnitude."""
        values = self.values.float()
        if self.multipliers is None:
            return values
        return values * self.multipliers.float().repeat_interleave(GROUP_SIZE, dim=1)[:, : values.shape[1]]

    def dequantised(self) -> Tensor:
        """The weights as float32 [N, K]."""
        return self.integers() * self.scales[:, None]


def quantise_int8(weight: Tensor) -> IntegerMatrix:
    """Round [N, K] to multiples of a 127th of each row's largest magnitude.

    Raises:
        ValueError: If the weights are no matrix, too wide, or not finite.
    """
    weight = _checked(weight)
    scales = weight.abs().amax(1) / MAX_INT8
    units = weight / scales.clamp(min=_LEAST_MAGNITUDE)[:, None]
    return IntegerMatrix(units.round().clamp(-MAX_INT8, MAX_INT8).to(torch.int8), None, scales)


def quantise_int4(weight: Tensor, kernel: NativeKernel | None = None) -> IntegerMatrix:
    """Round [N, K] to 4 bits, each group of 32 with that multiplier which has the least square error.

    Args:
        weight: The weights.
        kernel: The native kernel, which does the same a hundred times faster; None for torch.

    Raises:
        ValueError: If the weights are no matrix, too wide, or not finite.
    """
    weight = _checked(weight)
    num_outputs, num_inputs = weight.shape
    if kernel is None:
        parts = [_int4_rows(rows) for rows in torch.split(weight, _ROWS_AT_ONCE)]
        values, multipliers, scales = (torch.cat(part) for part in zip(*parts, strict=True))
    else:
        num_groups = -(-num_inputs // GROUP_SIZE)
        values = torch.empty((num_outputs, num_groups * GROUP_SIZE), dtype=torch.int8)
        multipliers = torch.empty((num_outputs, num_groups), dtype=torch.uint8)
        scales = torch.empty(num_outputs)
        kernel.quantise_int4(weight.contiguous(), values, multipliers, scales)
    return IntegerMatrix(values[:, :num_inputs].contiguous(), multipliers, scales)


def _int4_rows(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values [N, 32 * G], multipliers [N, G] and scales [N] of some rows."""
    num_groups = -(-weight.shape[1] // GROUP_SIZE)
    padded = torch.nn.functional.pad(weight, (0, num_groups * GROUP_SIZE - weight.shape[1]))
    groups = padded.view(weight.shape[0], num_groups, GROUP_SIZE)
    magnitudes = groups.abs().amax(2)  # [N, G]
    most = torch.tensor(float(MOST_INT4))  # tensors: torch may multiply by the reciprocal of a plain number
    scales = magnitudes.amax(1) / (most * MAX_MULTIPLIER)
    ideal = magnitudes / (most * scales.clamp(min=_LEAST_MAGNITUDE))[:, None]
    best_error = torch.full_like(magnitudes, torch.inf)
    values = torch.zeros_like(groups)
    multipliers = torch.ones_like(magnitudes)
    for shrinking in _SHRINKINGS:
        tried = (ideal * torch.tensor(shrinking)).round().clamp(1, MAX_MULTIPLIER)
        steps = (tried * scales[:, None])[..., None]
        rounded = (groups / steps.clamp(min=_LEAST_MAGNITUDE)).round().clamp(LEAST_INT4, MOST_INT4)
        error = _halving_sum((rounded * steps - groups).square())
        is_better = error < best_error
        best_error = torch.where(is_better, error, best_error)
        multipliers = torch.where(is_better, tried, multipliers)
        values = torch.where(is_better[..., None], rounded, values)
    return values.flatten(1).to(torch.int8), multipliers.to(torch.uint8), scales


def _halving_sum(x: Tensor) -> Tensor:
    """Sum [..., n] to [...], n a power of two, the upper half onto the lower: the kernel's order."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return x[..., 0]


def _checked(weight: Tensor) -> Tensor:
    if weight.dim() != 2 or weight.shape[0] < 1 or not 1 <= weight.shape[1] <= MAX_INPUTS:
        raise ValueError(f"expected weights [N, K] with K from 1 to {MAX_INPUTS}, got {list(weight.shape)}.")
    if not bool(weight.isfinite().all()):
        raise ValueError("expected finite weights, got infinities or NaN. Restore the checkpoint.")
    return weight.detach().float()
