"""`LowBitLinear`: `nn.Linear` without a bias over integer weights, by the native kernel or by torch, with equal bytes.

What it computes, for each row by itself: the row is rounded to multiples of a 127th of its largest magnitude; products
are summed as integers, exactly; (sum * weight scale) * row scale is the result. Since sums are exact, their order is
free, and a row gives the same bytes alone, in any batch at any place, on one thread or several, with the kernel and
without (`tests/shared/nn/test_lowbit.py`).

A row with a NaN or an infinity gives NaN throughout and leaves the other rows alone. A row whose largest magnitude is
below 1e-30 counts as zeros.

Without the kernel the integers lie in float32 and go through torch's own products in slices of 1024 inputs, whose sums
stay below 2^24 and are therefore exact in single precision too: as large and as slow as a float32 layer.

Legend: B rows, N outputs, K inputs, G groups of 32 inputs, P panels of 64 outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stretto_shared.nn.heap import HugePages
from stretto_shared.nn.lowbit.codebooks import GROUP_SIZE
from stretto_shared.nn.lowbit.formats import MAX_INT8, IntegerMatrix
from stretto_shared.nn.lowbit.kernel import NativeKernel

_PANEL_SIZE = 64
_EXACT_INPUTS = 1024  # 127 * 127 * 1024 < 2^24
_LEAST_MAGNITUDE = 1e-30
_MAX_FLOAT = torch.finfo(torch.float32).max


class LowBitLinear(nn.Module):
    """A linear layer over integer weights, for inference on a CPU.

    Invariant: a row's result is a function of that row and the weights alone, whatever computes it.

    Args:
        matrix: The weights [N, K].
        kernel: The native kernel, or None for torch.
        cache_bits: Of the keys and values of the decoder that it is a layer of, 8 or 4; the layer itself asks for none.
    """

    def __init__(self, matrix: IntegerMatrix, kernel: NativeKernel | None = None, *, cache_bits: int = 8) -> None:
        super().__init__()
        self.cache_bits = cache_bits
        self.out_features, self.in_features = matrix.values.shape
        self.num_bits = matrix.num_bits
        self._kernel = kernel
        self._is_moved = False
        # Plain attributes: moving a model to another number format must not touch them.
        self._weights, self._books, self._scales = (
            (matrix.values.float().t().contiguous(), None, matrix.scales) if kernel is None else _panels(matrix)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] to [..., N], in the number format of `x`."""
        rows = x.reshape(-1, self.in_features).float().contiguous()
        if self._kernel is None:
            out = self._by_torch(rows)
        else:
            out = rows.new_empty((rows.shape[0], self.out_features))
            self._kernel.multiply(rows, self._weights, self._books, self._scales, out)
        return out.view(*x.shape[:-1], self.out_features).to(x.dtype)

    @property
    def kernel(self) -> NativeKernel | None:
        """The native kernel that computes it; None for torch."""
        return self._kernel

    @property
    def panels(self) -> tuple[Tensor, Tensor | None, Tensor] | None:
        """Weights, codebooks of groups, and scales as the native kernel reads them; None without it."""
        return None if self._kernel is None else (self._weights, self._books, self._scales)

    @property
    def is_moved(self) -> bool:
        """Whether `move_to` was called: what the kernel reads stays where it is from then on."""
        return self._is_moved

    @property
    def moved_bytes(self) -> int:
        """Room that `move_to` takes."""
        parts = (self._weights, self._books, self._scales)
        return sum(HugePages.size(part) for part in parts if part is not None)

    def move_to(self, pages: HugePages) -> None:
        """Move what a product reads to the next places of these pages; once, before anybody asks where it lies."""
        if self._is_moved:
            raise ValueError("expected a layer that was not moved yet: somebody may hold its addresses.")
        self._weights = pages.copy(self._weights)
        self._books = None if self._books is None else pages.copy(self._books)
        self._scales = pages.copy(self._scales)
        self._is_moved = True

    @property
    def num_bytes(self) -> int:
        """Bytes that one product reads: weights, codebooks and scales."""
        parts = (self._weights, self._books, self._scales)
        return sum(part.nbytes for part in parts if part is not None)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.num_bits}, native={self._kernel is not None}"

    def _by_torch(self, rows: Tensor) -> Tensor:
        integers, row_scales = quantise_rows(rows)
        sums = torch.zeros((rows.shape[0], self.out_features), dtype=torch.int32)
        slices = torch.split(integers, _EXACT_INPUTS, 1), torch.split(self._weights, _EXACT_INPUTS, 0)
        for some, weights in zip(*slices, strict=True):
            sums += (some @ weights).to(torch.int32)
        return (sums.float() * self._scales) * row_scales


def quantise_rows(rows: Tensor, most_integer: int = MAX_INT8) -> tuple[Tensor, Tensor]:
    """Integers [B, K], as float32, and scales [B, 1] of float32 rows [B, K], as the module's docstring says."""
    largest, is_heard, of_silence = largest_of(rows)
    most = torch.full_like(largest, most_integer)  # a tensor: torch may multiply by the reciprocal of a plain number
    integers = torch.where(is_heard, (rows * (most / largest)).round(), 0.0)
    return integers, torch.where(is_heard, largest / most, of_silence)


def largest_of(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of rows [B, K] the largest magnitudes [B, 1], whether each is one to divide by, and the scale where it is not.

    That is 0, or NaN of a row with an infinity or a NaN. Where it is not one to divide by, the magnitude given is 1.
    """
    magnitudes = rows.abs().amax(1, keepdim=True)
    is_finite = magnitudes <= _MAX_FLOAT
    is_heard = is_finite & (magnitudes >= _LEAST_MAGNITUDE)
    return torch.where(is_heard, magnitudes, 1.0), is_heard, torch.where(is_finite, 0.0, torch.nan)


def _panels(matrix: IntegerMatrix) -> tuple[Tensor, Tensor | None, Tensor]:
    """Weights, codebooks and scales as `native/panels.hpp` reads them; its head says how they lie."""
    num_outputs, num_inputs = matrix.values.shape
    num_panels, num_groups = -(-num_outputs // _PANEL_SIZE), -(-num_inputs // GROUP_SIZE)
    more_outputs, more_inputs = num_panels * _PANEL_SIZE - num_outputs, num_groups * GROUP_SIZE - num_inputs
    scales = nn.functional.pad(matrix.scales, (0, more_outputs))
    if matrix.books is None or matrix.places is None:
        values = nn.functional.pad(matrix.values, (0, more_inputs, 0, more_outputs))
        unsigned = (values.to(torch.int16) + 128).to(torch.uint8)
        lanes = unsigned.view(num_panels, 4, 16, num_groups * 8, 4)  # [P, block, lane, word, 4]
        return lanes.permute(0, 3, 1, 2, 4).contiguous(), None, scales
    places = nn.functional.pad(matrix.places, (0, more_inputs, 0, more_outputs))
    halves = places.view(num_panels, 4, 16, num_groups, 4, 2, 4)
    halves = halves.permute(5, 0, 3, 1, 4, 2, 6)  # [half, P, G, block, pair of words, lane, 4]
    books = nn.functional.pad(matrix.books << 4, (0, 0, 0, more_outputs))
    books = books.view(num_panels, _PANEL_SIZE, num_groups).transpose(1, 2)
    return (halves[0] | halves[1] << 4).contiguous(), books.contiguous(), scales
