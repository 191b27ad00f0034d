"""Convolutions and LSTMs over lattices of columns in bfloat16, by the native kernel; for inference.

A lattice is clips of frames of columns, [B, T, P, C]: spectra by bands, or pitches over time. A convolution is a sum
over shifted copies of it, so what surrounds a lattice is kept as zeros and read in place. A column's bytes depend on
what the layer reads of it and on nothing else: clips may be joined in any number. Weights are held as bfloat16. AMX
tiles and AVX-512 sum in orders of their own (`NativeKernel.rounded_as`). There is no other form of it in torch: on
processors without bfloat16, callers compute with torch's own layers, which round otherwise.

Legend: B clips, T frames, P columns, C inputs, N outputs, H units.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_shared.nn.lowbit.kernel import NativeKernel

ARITHMETIC = "lattice-1"
"""What is computed, to the bit; a change of bytes changes this name, and with it the identity of models served so."""
_INPUTS, _OUTPUTS = 32, 16  # of a tile
_MOST_STEPS = 256
LEAST_COLUMNS = 17
_EXPONENTS = -math.log2(math.e) * torch.tensor([1.0, 1.0, 2.0, 1.0])
"""The kernel's cells take exponents of two: of e^-x of the gates in, keep and out, and of e^-2x of what is new."""
STRETCH = 8
"""Frames of one layer of a chain before the next one's turn."""


class Lattice:
    """bfloat16 [B, T, P, C] with columns of zeros around it, and zeros before the first frame and after the last.

    Args:
        shape: B, T, P and C.
        below: Columns of zeros before the first one; at least what every layer that reads it reaches.
        above: The same after the last one; one more than that where a column's inputs are no whole steps of 32, since
            a last step reads on.
        kept: So many frames are there, of one clip: each takes the place of the one so many before it. 0 for all.
    """

    def __init__(self, shape: tuple[int, int, int, int], *, below: int = 0, above: int = 0, kept: int = 0) -> None:
        clips, frames, columns, width = shape
        self.shape, self.below, self.above, self.kept = shape, below, above, kept
        whole = (1, kept, below + columns + above, width) if kept else (clips, frames, below + columns + above, width)
        frame = whole[2] * width
        numbers = whole[0] * whole[1] * frame
        flat = torch.zeros(numbers + frame + _INPUTS, dtype=torch.bfloat16)  # with a frame of zeros
        self.values = flat[:numbers].view(whole)[:, :, below : below + columns]
        self._nothing = flat[numbers + below * width :]

    def offset(self, columns: int) -> int:
        """Numbers from a place to the one so many columns after it.

        Raises:
            ValueError: If that is beyond what is kept.
        """
        if not -self.below <= columns <= self.above:
            raise ValueError(f"expected a shift of -{self.below} to {self.above} columns, got {columns}.")
        return columns * self.shape[3]

    def as_argument(self) -> _Lattice:
        """As the native kernel reads it."""
        clip, frame, column = self.values.stride()[:3]
        kept = self.kept or self.shape[1]
        return _Lattice(self.values.data_ptr(), self._nothing.data_ptr(), 0 if self.kept else clip, frame, column, kept)


class ShiftedSum(nn.Module):
    """out[t, p] = then(bias + sum over shifts of weight[:, shift] x[t + frames, p + columns] + skip[t, p]).

    Invariant: a place's bytes depend on nothing but what it reads (`tests/shared/nn/test_lowbit_lattice.py`).

    Args:
        weight: [N, S, C].
        bias: [N], or one for each column [P, N].
        shifts: Frames and columns of each of S copies.
        relu: Give what is above 0.
        stride: Columns of the input from one of the output to the next.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        shifts: Sequence[tuple[int, int]],
        *,
        relu: bool = False,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.num_outputs, _, self.num_inputs = weight.shape
        self.width = -(-self.num_outputs // _OUTPUTS) * _OUTPUTS
        self.shifts, self.stride, self._relu = list(shifts), stride, relu
        lacking = self.width - self.num_outputs
        self._runs = _runs(self.shifts)
        steps = []
        for run in self._runs:
            inputs = weight[:, run].detach().float().flatten(1)
            steps.append(F.pad(inputs, (0, -inputs.shape[1] % _INPUTS, 0, lacking)))
        tiles = tiled(torch.cat(steps, 1))
        if tiles.shape[1] > _MOST_STEPS:
            raise ValueError(f"expected {_MOST_STEPS} steps of 32 inputs at most, got {tiles.shape[1]}.")
        self.register_buffer("_weights", tiles, persistent=False)
        self.register_buffer("_bias", F.pad(bias.detach().float(), (0, lacking)).contiguous(), persistent=False)

    def steps(self, x: Lattice) -> Tensor:
        """Frames and numbers from a place to what every step reads, and its pairs that have weights [steps, 3]."""
        found = []
        for run in self._runs:
            for index in run:
                x.offset(self.shifts[index][1])  # refuses one that is not kept
            frames, columns = self.shifts[run[0]]
            count = len(run) * self.num_inputs
            for step in range(0, count, _INPUTS):
                found.append((frames, x.offset(columns) + step, _pairs(min(_INPUTS, count - step))))
        return torch.tensor(found, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Layer:
    """A `ShiftedSum` with what it reads and writes.

    Args:
        sums: The layer.
        x: What it reads.
        out: What it writes, `sums.width` wide; or a float32 tensor [B, T, P, sums.width].
        skip: Added before the rest is done, as wide; may be `x`.
        lag: Frames that it stays behind the first layer of a chain: those that its own shifts reach beyond the lag of
            the one before.
    """

    sums: ShiftedSum
    x: Lattice
    out: Lattice | Tensor
    skip: Lattice | None = None
    lag: int = 0


def run_layers(kernel: NativeKernel, layers: Sequence[Layer]) -> None:
    """Run layers of as many clips and frames, one behind the other by their lags."""
    first = layers[0].x
    steps = [layer.sums.steps(layer.x) for layer in layers]
    arguments = (_Shifts * len(layers))(*map(_shifts, layers, steps))
    kernel.library.stretto_run_shifts(ctypes.addressof(arguments), len(layers), first.shape[0], first.shape[1])


class Strands(nn.Module):
    """An LSTM in both directions over the frames of each column by itself, [B, T, P, C] to [B, T, P, 2 * width].

    Args:
        lstm: One layer, of both directions.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        units, self._inputs = int(lstm.hidden_size), int(lstm.input_size)
        self.width = -(-units // _INPUTS) * _INPUTS  # of a direction
        weights, biases = [], []
        for suffix in ("", "_reverse"):
            of_inputs, of_units = (getattr(lstm, f"weight_{name}_l0{suffix}").detach() for name in ("ih", "hh"))
            bias = (getattr(lstm, f"bias_ih_l0{suffix}") + getattr(lstm, f"bias_hh_l0{suffix}")).detach()
            both = torch.cat([_whole(of_inputs), _whole(of_units)], 1).view(4, units, -1)
            both = F.pad(both, (0, 0, 0, self.width - units)) * _EXPONENTS[:, None, None]  # [4, H, K]
            tiles = tiled(both.flatten(0, 1)).reshape(4, -1, both.shape[2] // _INPUTS, _OUTPUTS, _OUTPUTS, 2)
            weights.append(tiles.permute(1, 2, 0, 3, 4, 5))  # [H / 16, steps, 4, 16, 16, 2]
            bias = F.pad(bias.view(4, units), (0, self.width - units)) * _EXPONENTS[:, None]
            biases.append(bias.view(4, -1, _OUTPUTS).transpose(0, 1))
        self.register_buffer("_weights", torch.stack(weights).contiguous(), persistent=False)
        self.register_buffer("_bias", torch.stack(biases).float().contiguous(), persistent=False)

    @property
    def padded_inputs(self) -> int:
        """Inputs of whole steps: those beyond the LSTM's own have weights of zero."""
        return -(-self._inputs // _INPUTS) * _INPUTS

    def run(self, kernel: NativeKernel, x: Lattice, out: Lattice, directions: range = range(2)) -> None:
        """Write the outputs of directions 0, forward, or 1, backward, or both, each to its half of `out`."""
        clips, frames, columns, width = x.shape
        if width < self._inputs or columns < LEAST_COLUMNS or out.shape != (clips, frames, columns, 2 * self.width):
            raise ValueError(
                f"expected {self._inputs} inputs of {LEAST_COLUMNS} columns or more, got {x.shape} and {out.shape}."
            )
        argument = _Strands(
            x.as_argument(),
            out.as_argument(),
            self.get_buffer("_weights").data_ptr(),
            self.get_buffer("_bias").data_ptr(),
            clips,
            frames,
            columns,
            self.padded_inputs // _INPUTS,
            self.width,
            _pairs(self._inputs),
        )
        kernel.library.stretto_run_strands(ctypes.addressof(argument), directions.start, directions.stop)


def tiled(weight: Tensor) -> Tensor:
    """Weights [N, K] as tiles of 16 outputs, 16 pairs of inputs: [N / 16, K / 32, 16, 16, 2]."""
    rows = weight.bfloat16().reshape(-1, _OUTPUTS, weight.shape[1] // _INPUTS, _INPUTS // 2, 2)
    return rows.permute(0, 2, 3, 1, 4).contiguous()


def _pairs(inputs: int) -> int:
    return -(-inputs // 2)


def _whole(weight: Tensor) -> Tensor:
    return F.pad(weight, (0, -weight.shape[1] % _INPUTS))


def _runs(shifts: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Places in `shifts` of copies that lie side by side: their numbers are one run."""
    runs: list[list[int]] = []
    for index, (frames, columns) in enumerate(shifts):
        if index and shifts[index - 1] == (frames, columns - 1):
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _shifts(layer: Layer, steps: Tensor) -> _Shifts:
    sums, x, out, skip = layer.sums, layer.x.as_argument(), layer.out, layer.skip
    shape = tuple(out.shape)
    if layer.x.shape[3] != sums.num_inputs or shape[3] != sums.width or shape[2] < _OUTPUTS:
        raise ValueError(f"expected {sums.num_inputs} inputs and {sums.width} outputs, got {layer.x.shape}, {shape}.")
    if shape[:2] != layer.x.shape[:2] or (skip is not None and skip.shape != shape):
        raise ValueError(f"expected as many clips and frames, got {layer.x.shape}, {shape} and the skip's.")
    x.column *= sums.stride
    bias = sums.get_buffer("_bias")
    if bias.ndim == 2 and len(bias) != shape[2]:
        raise ValueError(f"expected {len(bias)} columns, got {shape[2]}.")
    return _Shifts(
        x,
        _Lattice() if skip is None else skip.as_argument(),
        out.as_argument() if isinstance(out, Lattice) else _Lattice(),
        None if isinstance(out, Lattice) else out.data_ptr(),
        sums.get_buffer("_weights").data_ptr(),
        bias.data_ptr(),
        steps.data_ptr(),
        sums.width if bias.ndim == 2 else 0,
        len(steps),
        sums.width,
        shape[2],
        layer.lag,
        int(sums._relu),
    )


class _Lattice(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("at", "nothing")),
        *((name, ctypes.c_int64) for name in ("clip", "frame", "column", "kept")),
    )


class _Shifts(ctypes.Structure):
    _fields_ = (
        *((name, _Lattice) for name in ("x", "skip", "out")),
        *((name, ctypes.c_void_p) for name in ("plain", "weights", "bias", "steps")),
        *((name, ctypes.c_int64) for name in ("bias_column", "num_steps", "outputs", "columns", "lag", "relu")),
    )


class _Strands(ctypes.Structure):
    _fields_ = (
        *((name, _Lattice) for name in ("x", "out")),
        *((name, ctypes.c_void_p) for name in ("weights", "bias")),
        *((name, ctypes.c_int64) for name in ("clips", "frames", "columns", "input_steps", "units", "input_pairs")),
    )
