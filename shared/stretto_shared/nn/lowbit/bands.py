"""Convolutions and LSTM cells of rows in bfloat16 by the native kernel, ELU and residual included.

A row's bytes depend on the rows that it is made of alone: sums are float32, in one order whatever stands beside it. So
clips may be joined in any number. The order is one in AMX tiles and another in AVX-512, which computes where there are
none (`NativeKernel.rounded_as`). There is no further form of it in torch: a processor that multiplies bfloat16 in
neither computes with torch's own products, which round otherwise.

Legend: B clips, T steps, C inputs, N outputs, S taps.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_shared.nn.heap import on_huge_pages
from stretto_shared.nn.lowbit.kernel import NativeKernel, load_native_kernel

ARITHMETIC = "bands-2"
"""What is computed, to the bit; a change of bytes changes this name, and with it the identity of codecs served so."""
_INPUTS, _OUTPUTS = 32, 16  # of a tile
_FLOATS = 16  # inputs of a tile in float32


def load_bands(folder: Path) -> NativeKernel | None:
    """The native kernel, compiled into `folder` if need be; None where it, or bfloat16, is not to be had."""
    kernel = load_native_kernel(folder)
    return kernel if kernel is not None and kernel.has_bands() else None


def fits_tiles(num_inputs: int, num_outputs: int) -> bool:
    """Whether a convolution of this size can be a `BandConvolution` without `is_split`."""
    return num_inputs % _INPUTS == 0 and num_outputs % _OUTPUTS == 0


class BandConvolution(nn.Module):
    """out[t] = bias + sum over taps of weight[:, tap] x[t + tap * dilation]; for inference.

    Invariant: a clip's bytes depend on nothing but the clip (`tests/shared/nn/test_lowbit_bands.py`).

    Args:
        weight: [N, S, C], C a multiple of 32, N of 16 unless it is split.
        bias: [N], or None.
        kernel: One that has bands.
        dilation: Steps from one tap to the next.
        is_split: Hold what rounding takes off the weights in outputs of its own, for sums as exact as with weights
            in float32; results are float32 then.
        again: So many inputs, a multiple of 32, have weights that serve as many inputs after them too, which `weight`
            leaves out of C then.
        is_float: Weights and rows in float32, by AVX-512 always; C a multiple of 16, and results are float32 then.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        kernel: NativeKernel,
        *,
        dilation: int = 1,
        is_split: bool = False,
        again: int = 0,
        is_float: bool = False,
    ) -> None:
        super().__init__()
        self.num_outputs, self.num_taps, num_stored = weight.shape
        self.num_inputs = num_stored + again
        self.reach = (self.num_taps - 1) * dilation
        self._kernel, self._is_split, self._is_float = kernel, is_split, is_float
        offset = torch.zeros(self.num_outputs) if bias is None else bias.detach().float()
        weight = weight.detach().float()
        if is_split:
            rest = weight - weight.bfloat16().float()
            weight, offset = torch.cat([weight, rest]), torch.cat([offset, torch.zeros_like(offset)])
            lacking = -len(weight) % _OUTPUTS
            weight, offset = F.pad(weight, (0, 0, 0, 0, 0, lacking)), F.pad(offset, (0, lacking))
        num_together = _FLOATS if is_float else _INPUTS
        if self.num_inputs % num_together or len(weight) % _OUTPUTS:
            raise ValueError(
                f"expected inputs by {num_together} and outputs by 16, got {self.num_inputs} and {len(weight)}."
            )
        tiles = weight if is_float else weight.bfloat16()
        tiles = tiles.reshape(-1, _OUTPUTS, self.num_taps * num_stored // num_together, 16, num_together // 16)
        self.register_buffer("_weights", on_huge_pages(tiles.permute(0, 2, 3, 1, 4)), persistent=False)
        self.register_buffer("_bias", offset.contiguous(), persistent=False)
        self._stored_outputs = len(weight)
        num_read = self.num_inputs * (2 if is_float else 1)  # in numbers of bfloat16
        num_used = self.num_outputs * (2 if is_split else 1)
        self._sizes = (num_read, len(weight), self.num_taps, dilation, again, num_used)

    @property
    def argument(self) -> _Convolution:
        """As the native kernel reads it."""
        pointers = (self.get_buffer(name).data_ptr() for name in ("_weights", "_bias"))
        return _Convolution(*pointers, *self._sizes, self._is_float)

    @property
    def num_weights(self) -> int:
        return self.num_outputs * self.num_taps * self.num_inputs

    def forward(
        self,
        x: Tensor,
        *,
        skip: Tensor | None = None,
        early: Tensor | None = None,
        elu: bool = False,
        is_plain: bool = False,
    ) -> Tensor:
        """[B, T, C] to [B, T - reach, N].

        Args:
            x: bfloat16, or float32 where its weights are.
            skip: Added to the sums, bfloat16 [B, T - reach, N] or more rows; not where it is split.
            early: Rows of the same that come before those of `skip`.
            elu: Give the ELU of the results; in bfloat16 only.
            is_plain: Give float32 in place of bfloat16.
        """
        x = _whole_rows(x, torch.float32 if self._is_float else torch.bfloat16)
        is_plain = is_plain or self._is_split or self._is_float
        if elu and is_plain:
            raise ValueError("elu: expected results in bfloat16, got float32. Apply it to them.")
        num_clips, num_steps = len(x), max(0, x.shape[1] - self.reach)
        dtype = torch.float32 if is_plain else torch.bfloat16
        out = torch.empty(num_clips, num_steps, self._stored_outputs, dtype=dtype)
        skip, early = (None if each is None else _whole_rows(each) for each in (skip, early))
        num_skipped = sum(each.shape[1] for each in (skip, early) if each is not None)
        if skip is not None and num_skipped < num_steps:
            raise ValueError(f"expected {num_steps} rows or more to add, got {num_skipped}.")
        if skip is None and early is not None:
            raise ValueError(f"early: expected none without skip, got {num_skipped} rows. Give them as skip.")
        if out.numel():
            self._kernel.library.stretto_convolve(
                ctypes.byref(_band(x)),
                num_clips,
                ctypes.byref(self.argument),
                ctypes.byref(_finish(out, skip, early, elu=elu)),
            )
        return (
            out[..., : self.num_outputs] + out[..., self.num_outputs : 2 * self.num_outputs] if self._is_split else out
        )


class PreciseConvolution(nn.Module):
    """A `BandConvolution` of rows in float32, to float32.

    In tiles inputs and weights are what bfloat16 holds of them, and the rest: three products in place of one. What is
    left out is the product of both rests, 2^-16 of a result or less. AVX-512 multiplies float32 half as fast as
    bfloat16, and so computes with the numbers themselves.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, kernel: NativeKernel, *, dilation: int = 1) -> None:
        super().__init__()
        weight = weight.detach().float()
        self._is_float = not kernel.has_bfloat16_tiles()
        if self._is_float:
            self.parts = BandConvolution(weight, bias, kernel, dilation=dilation, is_float=True)
            return
        rounded = weight.bfloat16().float()
        both = torch.cat([rounded, weight - rounded], 2)
        self.parts = BandConvolution(both, bias, kernel, dilation=dilation, again=weight.shape[2])

    @property
    def num_weights(self) -> int:
        return self.parts.num_weights

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] to [B, T - reach, N]."""
        if self._is_float:
            return cast(Tensor, self.parts(x))
        rounded = x.bfloat16()
        return cast(Tensor, self.parts(torch.cat([rounded, (x - rounded).bfloat16(), rounded], 2), is_plain=True))


class BandCells(nn.Module):
    """A layer of an LSTM whose gates lie in the order in, keep, out, new; C a multiple of 32.

    Args:
        recurrent: Weights [4 C, C] of its own outputs.
        kernel: One that has bands.
    """

    def __init__(self, recurrent: Tensor, kernel: NativeKernel) -> None:
        super().__init__()
        self._kernel = kernel
        self._recurrent = BandConvolution(recurrent[:, None], None, kernel)

    def forward(self, gates: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gates of the inputs [B, T, 4 C] and a state [B, C] twice, to outputs [B, T, C] and the next state."""
        num_clips, num_steps, width = *gates.shape[:2], self._recurrent.num_inputs
        gates, hidden, cell = gates.contiguous(), hidden.clone(), cell.clone()
        out = torch.empty(num_clips, num_steps, width)
        pointers = (each.data_ptr() for each in (gates, hidden, cell, out))
        self._kernel.library.stretto_run_cells(
            ctypes.byref(_Cells(num_clips, num_steps, width, *pointers)), ctypes.byref(self._recurrent.argument)
        )
        return out, hidden, cell


def join_elu(kernel: NativeKernel, past: Tensor, x: Tensor) -> Tensor:
    """`past` [B, P, C] and after it the ELU of x [B, T, C], bfloat16, C a multiple of 16."""
    past, x = _whole_rows(past), _whole_rows(x)
    out = torch.empty(len(x), past.shape[1] + x.shape[1], x.shape[2], dtype=torch.bfloat16)
    if out.numel():
        kernel.library.stretto_join_elu(
            ctypes.byref(_band(past)), ctypes.byref(_band(x)), len(x), x.shape[2], out.data_ptr()
        )
    return out


class _Band(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("clip_stride", ctypes.c_int64), ("count", ctypes.c_int64))


class _Convolution(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "taps", "dilation", "again", "used")),
        ("is_float", ctypes.c_bool),
    )


class _Finish(ctypes.Structure):
    _fields_ = (
        ("early", _Band),
        ("skip", _Band),
        ("elu", ctypes.c_bool),
        ("rounded", ctypes.c_void_p),
        ("plain", ctypes.c_void_p),
    )


class _Cells(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("clips", "steps", "width")),
        *((name, ctypes.c_void_p) for name in ("gates", "hidden", "cell", "out")),
    )


def _whole_rows(x: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """With each clip's rows one after the other; clips may lie apart."""
    if x.dtype != dtype:
        raise ValueError(f"expected rows in {str(dtype).removeprefix('torch.')}, got {x.dtype}.")
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


def _band(x: Tensor) -> _Band:
    return _Band(x.data_ptr(), x.stride(0) * x.element_size() // 2, x.shape[1])  # strides in numbers of bfloat16


def _finish(out: Tensor, skip: Tensor | None, early: Tensor | None, *, elu: bool) -> _Finish:
    at, is_plain = out.data_ptr(), out.dtype == torch.float32
    bands = (_Band() if each is None else _band(each) for each in (early, skip))
    return _Finish(*bands, elu, None if is_plain else at, at if is_plain else None)
