"""The layers of EnCodec's decoder on rows, steps first, with what each keeps between two chunks.

Layers are products of rows here: a transposed convolution with a kernel of two strides is one product of [step, step
before it] with a matrix, which CPUs compute several times faster than the scattered form. Every `step` takes the state
that the one before it left, of as many clips, and changes nothing in it; `at_end` says that no input follows, and gives
what was held back. `streaming.py` puts them together.

With the native kernel, for bfloat16, layers whose sizes fit its tiles are a `BandConvolution` in place of a
`PackedMatrix`: rows are read where they lie, and ELU and residual need no pass of their own.

Legend: B clips, T steps, C channels, N outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from stretto_shared.nn.lowbit import BandCells, BandConvolution, NativeKernel, PreciseConvolution, join_elu
from stretto_shared.nn.lowbit.bands import fits_tiles
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_codec.models.encodec.seanet import Conv, ConvTranspose, Lstm, ResidualUnit, pad
from stretto_codec.models.packed_matrix import PackedMatrix

_VECTOR = 64
"""Values that an elementwise loop takes at once, at most."""


@dataclass(frozen=True)
class ConvState:
    """Inputs [B, T, C] that later outputs need; all there were, as long as the clip is too short to be padded."""

    past: Tensor
    has_begun: bool = False


@dataclass(frozen=True)
class UpState:
    """The last input [B, 1, C]."""

    last: Tensor
    has_begun: bool = False


@dataclass(frozen=True)
class UnitState:
    """The state of the unit's convolution, and inputs [B, T, C] whose outputs are not there yet."""

    conv: ConvState
    skipped: Tensor


LayerState = UpState | UnitState


@dataclass(frozen=True)
class CellState:
    """Outputs and cells of an LSTM's layers, [B, layers, C] each."""

    hidden: Tensor
    cell: Tensor


class StreamedConv(nn.Module):
    """`seanet.Conv` with a stride of 1 on rows, [B, T, C] to [B, T', N].

    Args:
        conv: The layer.
        dtype: Of the product.
        by_tap: Multiply each row with all taps at once and add up after that: for few outputs.
        kernel: The native kernel where it is used.
        is_fine: Weights as in float32, and such results, from inputs in bfloat16 in spite of `dtype`; with the kernel.
    """

    def __init__(
        self,
        conv: Conv,
        dtype: torch.dtype,
        *,
        by_tap: bool = False,
        kernel: NativeKernel | None = None,
        is_fine: bool = False,
    ) -> None:
        super().__init__()
        weight, bias = conv.conv.weight, cast(Tensor, conv.conv.bias)  # [N, C, taps]
        self.num_outputs, self.num_inputs, self.num_taps = weight.shape
        self.left, self.right, self.mode = conv.pad_left, conv.pad_right, conv.pad_mode
        self.dilation = conv.conv.dilation[0]
        self.dtype = dtype
        self._by_tap = by_tap
        self.bands: BandConvolution | PreciseConvolution | None = None
        taps_first = weight.permute(0, 2, 1)
        if kernel is not None and fits_tiles(self.num_inputs, 16 if is_fine else self.num_outputs):
            if is_fine or dtype == torch.bfloat16:
                self.dtype = torch.bfloat16
                self.bands = BandConvolution(taps_first, bias, kernel, dilation=self.dilation, is_split=is_fine)
            else:
                self.bands = PreciseConvolution(taps_first, bias, kernel, dilation=self.dilation)
        elif by_tap:
            self.register_buffer("bias", bias.detach().clone(), persistent=False)
            self.matrix = PackedMatrix(weight.permute(2, 0, 1).flatten(0, 1), None, dtype)
        else:
            self.matrix = PackedMatrix(weight.permute(0, 2, 1).flatten(1), bias, dtype)

    def open(self, batch_size: int) -> ConvState:
        return ConvState(torch.zeros(batch_size, 0, self.num_inputs, dtype=self.dtype))

    def step(self, x: Tensor, state: ConvState, *, at_end: bool) -> tuple[Tensor, ConvState]:
        return self.go_on(torch.cat([state.past, x.to(self.dtype)], 1), state, at_end=at_end)

    def go_on(self, x: Tensor, state: ConvState, *, at_end: bool, then_elu: bool = False) -> tuple[Tensor, ConvState]:
        """`step` for inputs that stand behind the state's past already; `then_elu` with the kernel only."""
        has_begun = state.has_begun
        if not has_begun and x.shape[1] > self.left:
            x, has_begun = _padded(x, self.left, 0, self.mode), True
        elif not has_begun and not at_end:
            return x.new_zeros(len(x), 0, self.num_outputs), ConvState(x)
        elif not has_begun and x.shape[1] > 0:  # the clip is too short to be padded on one side after the other
            return self._convolve(_padded(x, self.left, self.right, self.mode), then_elu=then_elu), state
        if at_end:
            x = _padded(x, 0, self.right, self.mode)
        reach = (self.num_taps - 1) * self.dilation
        return self._convolve(x, then_elu=then_elu), ConvState(last_rows(x, reach), has_begun)

    def _convolve(self, x: Tensor, *, then_elu: bool = False) -> Tensor:
        """[B, T, C] to [B, T - reach, N]."""
        if isinstance(self.bands, BandConvolution):
            return cast(Tensor, self.bands(x, elu=then_elu))
        if self.bands is not None:
            return cast(Tensor, self.bands(x))
        num_steps = x.shape[1] - (self.num_taps - 1) * self.dilation
        starts = range(0, self.num_taps * self.dilation, self.dilation)
        if self._by_tap:
            taps = self.matrix(x).unflatten(2, (self.num_taps, self.num_outputs))
            total = cast(Tensor, self.bias) + taps[:, :num_steps, 0]
            for tap, start in list(enumerate(starts))[1:]:
                total = total + taps[:, start : start + num_steps, tap]
            return cast(Tensor, total)
        if self.num_taps == 1:
            return cast(Tensor, self.matrix(x))
        return cast(Tensor, self.matrix(torch.cat([x[:, start : start + num_steps] for start in starts], 2)))


class StreamedUp(nn.Module):
    """ELU and `seanet.ConvTranspose` on rows, [B, T, C] to [B, T * stride, N], late by `trim_left`."""

    def __init__(self, up: ConvTranspose, dtype: torch.dtype, kernel: NativeKernel | None = None) -> None:
        super().__init__()
        self.stride = up.conv.stride[0]
        self.num_inputs, self.num_outputs = up.conv.in_channels, up.conv.out_channels
        self.trim_left = up.trim_left
        self.dtype = dtype
        now, before = up.conv.weight.permute(2, 1, 0).chunk(2)  # [stride, N, C] each
        bias = cast(Tensor, up.conv.bias).repeat(self.stride)
        self._kernel, self.bands = kernel, None
        if kernel is not None and fits_tiles(self.num_inputs, len(bias)):
            self.bands = BandConvolution(torch.stack([before.flatten(0, 1), now.flatten(0, 1)], 1), bias, kernel)
        else:
            self.matrix = PackedMatrix(torch.cat([now.flatten(0, 1), before.flatten(0, 1)], 1), bias, dtype)

    def open(self, batch_size: int) -> UpState:
        return UpState(torch.zeros(batch_size, 1, self.num_inputs, dtype=self.dtype))

    def step(self, x: Tensor, state: UpState, *, at_end: bool) -> tuple[Tensor, UpState]:
        x = after(state.last, x.to(self.dtype), self._kernel if self.bands is not None else None)
        if at_end and self.trim_left > 0:
            x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
        y = self.matrix(torch.cat([x[:, 1:], x[:, :-1]], 2)) if self.bands is None else self.bands(x)
        y = y.reshape(len(x), -1, self.num_outputs)
        num_late = 0 if state.has_begun else self.trim_left
        num_cut = self.stride - self.trim_left if at_end and self.trim_left > 0 else 0
        return y[:, num_late : y.shape[1] - num_cut], UpState(last_rows(x, 1), state.has_begun or x.shape[1] > 1)


class StreamedUnit(nn.Module):
    """`seanet.ResidualUnit` on rows, [B, T, C] to [B, T, C]; the skip waits for the convolution."""

    def __init__(self, unit: ResidualUnit, dtype: torch.dtype, kernel: NativeKernel | None = None) -> None:
        super().__init__()
        self.dtype = dtype
        wide, narrow = cast(Conv, unit.block[1]).conv, cast(Conv, unit.block[3]).conv
        if not all(fits_tiles(conv.in_channels, conv.out_channels) for conv in (wide, narrow)):
            kernel = None
        self._kernel = kernel
        self.wide = StreamedConv(cast(Conv, unit.block[1]), dtype, kernel=kernel)
        self.narrow = StreamedConv(cast(Conv, unit.block[3]), dtype, kernel=kernel)
        self.shortcut = StreamedConv(unit.shortcut, dtype) if isinstance(unit.shortcut, Conv) else None

    def open(self, batch_size: int) -> UnitState:
        conv = self.wide.open(batch_size)
        return UnitState(conv, conv.past)

    def step(self, x: Tensor, state: UnitState, *, at_end: bool) -> tuple[Tensor, UnitState]:
        x = x.to(self.dtype)
        joined = after(state.conv.past, x, self._kernel)
        hidden, conv = self.wide.go_on(joined, state.conv, at_end=at_end, then_elu=self._kernel is not None)
        num_steps, num_early = hidden.shape[1], state.skipped.shape[1]
        if self.narrow.bands is not None and self.shortcut is None and num_steps >= num_early:
            following = UnitState(conv, last_rows(x, x.shape[1] - num_steps + num_early))
            return cast(BandConvolution, self.narrow.bands)(hidden, skip=x, early=state.skipped), following
        skipped = torch.cat([state.skipped, x], 1)
        direct = skipped[:, :num_steps]
        if self.shortcut is not None:
            direct = self.shortcut.matrix(direct)
        following = UnitState(conv, last_rows(skipped, skipped.shape[1] - num_steps))
        if self.narrow.bands is not None:
            return self.narrow.bands(hidden, skip=direct), following
        return direct + self.narrow.matrix(elu(hidden)), following


class StreamedLstm(nn.Module):
    """`seanet.Lstm` on rows, [B, T, C] to [B, T, C] with its skip.

    torch's own packs the weights anew in every call, which costs more than a short chunk's work. Gates lie in the order
    in, keep, out, new, so that one call squashes three of them.
    """

    def __init__(self, lstm: Lstm, dtype: torch.dtype, kernel: NativeKernel | None = None) -> None:
        super().__init__()
        cells = lstm.lstm
        self.width, self.num_layers = cells.hidden_size, cells.num_layers
        self.inward = nn.ModuleList()
        self.recurrent = nn.ModuleList()
        for layer in range(self.num_layers):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            inward, recurrent, bias, second_bias = (_reordered(getattr(cells, f"{name}_l{layer}")) for name in names)
            if kernel is not None and fits_tiles(self.width, self.width):
                self.inward.append(PreciseConvolution(inward[:, None], bias + second_bias, kernel))
                self.recurrent.append(BandCells(recurrent, kernel))
            else:
                self.inward.append(PackedMatrix(inward, bias + second_bias, torch.float32))
                self.recurrent.append(PackedMatrix(recurrent, None, dtype))

    def open(self, batch_size: int) -> CellState:
        rest = torch.zeros(batch_size, self.num_layers, self.width)
        return CellState(rest, rest)

    def step(self, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        rows, hiddens, cells = x, [], []
        for layer in range(self.num_layers):
            rows, hidden, cell = self._layer(layer, rows, state.hidden[:, layer], state.cell[:, layer])
            hiddens.append(hidden)
            cells.append(cell)
        return rows + x, CellState(torch.stack(hiddens, 1), torch.stack(cells, 1))

    def _layer(self, layer: int, rows: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        recurrent, width, outputs = self.recurrent[layer], self.width, []
        if isinstance(recurrent, BandCells):
            return cast(tuple[Tensor, Tensor, Tensor], recurrent(self.inward[layer](rows), hidden, cell))
        for gates in self.inward[layer](rows).unbind(1):
            gates = gates + recurrent(hidden[:, None])[:, 0]
            enter, keep, leave = torch.sigmoid(gates[:, : 3 * width]).chunk(3, 1)
            cell = torch.addcmul(keep * cell, enter, torch.tanh(gates[:, 3 * width :]))
            hidden = leave * torch.tanh(cell)
            outputs.append(hidden)
        return torch.stack(outputs, 1) if outputs else rows, hidden, cell


def _reordered(gates: Tensor) -> Tensor:
    """The gates [4 C, ...] of an LSTM from torch's order in, keep, new, out to in, keep, out, new."""
    enter, keep, new, leave = gates.chunk(4)
    return torch.cat([enter, keep, leave, new])


def last_rows(x: Tensor, count: int) -> Tensor:
    """A copy: a state that were part of a chunk's values would hold all of them, which the next clip's can replace."""
    return x[:, x.shape[1] - count :].clone()


def after(past: Tensor, x: Tensor, kernel: NativeKernel | None) -> Tensor:
    """The rows of `past` and after them the ELU of those of `x`, by the kernel or by torch."""
    return torch.cat([past, elu(x)], 1) if kernel is None else join_elu(kernel, past, x)


def elu(x: Tensor) -> Tensor:
    """ELU of clips [B, T, C], each computed as it would be alone.

    Values at the end of a tensor are computed one by one, and others in vectors, which may round otherwise.
    """
    if len(x) == 1 or x[0].numel() % _VECTOR == 0:
        return F.elu(x)
    return torch.cat([F.elu(clip) for clip in x.chunk(len(x))])


def _padded(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad [B, T, C] along T as `seanet` pads."""
    return pad(x.transpose(1, 2), left, right, mode).transpose(1, 2) if left or right else x
