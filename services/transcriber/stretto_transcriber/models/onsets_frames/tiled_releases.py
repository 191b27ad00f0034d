"""`TiledReleases`: a trained `ReleaseNetwork` by the native kernel, in bfloat16, many notes at once.

Notes are the frames of a lattice and their steps its columns, so that a note is told the same bytes in any company. The
layers, and what rounds, are those of `tiled.py`; hazards are float32.

Legend: N notes, T = 120 steps, of which A = 100 after the onset, C = 107 numbers of a step, H channels.
"""

from __future__ import annotations

import numpy as np
import torch
from stretto_shared.nn.lowbit import NativeKernel
from stretto_shared.nn.lowbit.lattice import STRETCH, Lattice, Layer, ShiftedSum, run_layers
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_transcriber.models.onsets_frames.releases import (
    DILATIONS,
    NUM_ENDS_STEPS,
    NUM_INPUTS,
    NUM_STEPS,
    Floats,
    ReleaseNetwork,
    lasting_of,
)

_WHOLE = 16  # channels of a tile
_GIVEN = -(-NUM_INPUTS // _WHOLE) * _WHOLE
_MOST_NOTES = 64  # of a pass: they bound what it takes


class TiledReleases:
    """What `ReleaseReader` is, but for rounding.

    Args:
        network: With its final weights.
        kernel: One that has bands.
    """

    def __init__(self, network: ReleaseNetwork, kernel: NativeKernel) -> None:
        self._kernel = kernel
        self._stem = _summed(network.stem, relu=True)
        self._convs = [_dilated(conv, d) for conv, d in zip(network.convs, DILATIONS, strict=True)]
        self._mixes = [_summed(mix) for mix in network.mixes]
        self._head = _summed(network.head)

    @torch.inference_mode()
    def lasting(self, given: Floats) -> Floats:
        """What notes are told from [N, T, C] to the chance that key and sound last over each step [N, A, 2]."""
        starts = range(0, len(given), _MOST_NOTES)
        logits = [self._logits(given[start : start + _MOST_NOTES]) for start in starts]
        return lasting_of(np.concatenate(logits)) if logits else np.zeros((0, NUM_ENDS_STEPS, 2), np.float32)

    def _logits(self, given: Floats) -> Floats:
        notes, width = len(given), self._stem.width
        x = Lattice((1, notes, NUM_STEPS, _GIVEN), above=1)
        x.values[0, ..., :NUM_INPUTS] = torch.from_numpy(given)
        hidden = _hidden(notes, width, DILATIONS[0])
        layers = [Layer(self._stem, x, hidden)]
        for conv, mix, reach in zip(self._convs, self._mixes, [*DILATIONS[1:], 0], strict=True):
            inner, mixed = _hidden(notes, width, 0), _hidden(notes, width, reach)
            layers += [Layer(conv, hidden, inner), Layer(mix, inner, mixed, hidden)]
            hidden = mixed
        told = torch.empty(1, notes, NUM_STEPS, self._head.width)
        run_layers(self._kernel, [*layers, Layer(self._head, hidden, told)])
        logits: Floats = told[0, :, -NUM_ENDS_STEPS:, :2].numpy()
        return logits


def _hidden(notes: int, width: int, reach: int) -> Lattice:
    return Lattice((1, notes, NUM_STEPS, width), below=reach, above=reach + 1, kept=STRETCH)


def _summed(layer: nn.Module, *, relu: bool = False) -> ShiftedSum:
    assert isinstance(layer, nn.Linear)
    return ShiftedSum(_whole(layer.weight[:, None]), layer.bias, [(0, 0)], relu=relu)


def _dilated(conv: nn.Module, dilation: int) -> ShiftedSum:
    assert isinstance(conv, nn.Conv1d) and conv.bias is not None
    shifts = [(0, -dilation), (0, 0), (0, dilation)]
    return ShiftedSum(_whole(conv.weight.transpose(1, 2)), conv.bias, shifts, relu=True)


def _whole(weight: Tensor) -> Tensor:
    """[N, S, C] with C as wide as the lattice before it."""
    return F.pad(weight, (0, -weight.shape[2] % _WHOLE))
