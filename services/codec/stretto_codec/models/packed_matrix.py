"""`PackedMatrix`: a matrix as oneDNN's kernels read it, that takes clips together only where it was tried.

A row's result may depend on how many rows stand beside it (`docs/adr/0008`): bfloat16 products with many inputs are
summed in other pieces when rows are many. So the clips of a batch go through one by one, unless `try_joining` found
for this number of rows a clip that the bytes stay the same.

Legend: B clips, R rows of each, N outputs, M inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

JOINED_CLIPS = (2, 4, 8)
"""How many clips may share a step: each number is tried at load, so few."""
_ROWS = 2  # for which the packing is chosen; it serves any number
_SEED = 20_003


class PackedMatrix(nn.Module):
    """[B, R, M] to [B, R, N] in its own number format, plus a bias; for inference.

    Invariant: a clip's result does not depend on the clips beside it
    (`tests/services/codec/test_packed_matrix.py`).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_outputs, self.num_inputs = weight.shape
        self.dtype = dtype
        self.rows_seen: set[int] | None = None  # of one clip alone, while somebody wants to know
        self._joined: frozenset[tuple[int, int]] = frozenset()  # clips, and rows of each
        self._bias = None if bias is None else bias.detach().to(dtype, copy=True)
        self._weight, self._is_packed = _packed(weight.detach().to(dtype, copy=True).contiguous())

    @property
    def num_weights(self) -> int:
        return self.num_outputs * self.num_inputs

    def forward(self, x: Tensor) -> Tensor:
        """[B, R, M] to [B, R, N]."""
        num_clips, num_rows = x.shape[:2]
        x = x.to(self.dtype)
        if num_rows == 0:
            return x.new_zeros(num_clips, 0, self.num_outputs)
        if num_clips == 1 and self.rows_seen is not None:
            self.rows_seen.add(num_rows)
        if num_clips > 1 and (num_clips, num_rows) not in self._joined:
            return torch.cat([self._product(clip, self._weight, self._bias) for clip in x.chunk(len(x))])
        return self._product(x, self._weight, self._bias)

    def try_joining(self, num_clips: Iterable[int], num_rows: Iterable[int]) -> None:
        """Try which of these numbers of clips, of so many rows each, keep their bytes; join those from now on.

        Kernels are chosen by shape, so other weights stand in: their sums nearly cancel, and so show in every format
        whether they were added in another order, which rounding to bfloat16 hides nearly always in plain sums.
        """
        generator = torch.Generator().manual_seed(_SEED)
        half = self.num_inputs // 2
        weight = torch.randn(self.num_outputs, self.num_inputs, generator=generator)
        weight[:, half : 2 * half] = -weight[:, :half]
        weight, _ = _packed(weight.to(self.dtype))
        bias = None if self._bias is None else torch.zeros_like(self._bias)
        found = set()
        for rows, count in itertools.product(sorted(num_rows), num_clips):
            x = torch.randn(count, rows, self.num_inputs, generator=generator).to(self.dtype)
            x[..., half : 2 * half] = x[..., :half]
            x[..., half::16] *= 1 + 2**-7
            alone = [self._product(clip, weight, bias) for clip in x.chunk(len(x))]
            if torch.equal(self._product(x, weight, bias), torch.cat(alone)):
                found.add((count, rows))
        self._joined = frozenset(found)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._is_packed:
            return F.linear(x, weight, bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out


def _packed(weight: Tensor) -> tuple[Tensor, bool]:
    """A matrix as oneDNN reads it, and whether it is: not where this machine has no kernel for its format."""
    is_packed = weight.device.type == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if is_packed and weight.dtype == torch.bfloat16:
        is_packed = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return (torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS) if is_packed else weight), is_packed


def try_joining(matrices: Sequence[PackedMatrix], max_clips: int, run: Callable[[], object]) -> None:
    """Try each matrix with up to `max_clips` clips, for the numbers of rows that it gets in `run`, of one clip."""
    for matrix in matrices:
        matrix.rows_seen = set()
    run()
    for matrix in matrices:
        matrix.try_joining([count for count in JOINED_CLIPS if count <= max_clips], matrix.rows_seen or ())
        matrix.rows_seen = None


def pack_linears(module: nn.Module, dtype: torch.dtype) -> None:
    """Replace every linear layer below `module`, which cannot be trained after that."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, PackedMatrix(child.weight, child.bias, dtype))
        else:
            pack_linears(child, dtype)
