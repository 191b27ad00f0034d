"""`ReleaseNetwork`: when the key of a note goes up, and when its sound ends, from what is heard around it.

Under the pedal a release can hardly be heard, but it can be told: a player lets go of a key as the next note of its
voice begins. So a note is read with its neighbours: the onsets and keys of 24 semitones on either side, from .8 s
before its onset to 4 s after it, at 25 Hz. Dilated convolutions over that time give, of each step after the onset, the
chance that the note ends in it if it has not yet ended (a discrete-time hazard, Gensheimer and Narasimhan 2019,
https://arxiv.org/abs/1805.00917), once for its key and once for its sound. It ends where the chance that it still lasts
falls below a level that validation has chosen. The network and its use are the house's own; no paper is followed.

`ReleaseNetwork` learns, in torch; `ReleaseReader` reads with its weights, in numpy, one note by itself, so that what a
note is told does not depend on the others that are told with it; `tiled_releases.py` does so by the native kernel. None
knows of streams; `release_decoding.py` does.

Legend: N notes, T = 120 steps, of which A = 100 after the onset, C = 107 numbers of a step, H channels; frames of
50 Hz, P = 88 pitches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_transcriber.models.onsets_frames.config import LOWEST_PITCH, NUM_PITCHES

STRIDE = 2
"""Frames of a step."""
BEFORE, AFTER = 40, 200
"""Frames before and from the onset on that are read."""
REACH = 24
"""Semitones on either side."""
NEIGHBOURS = 2 * REACH + 1
NUM_STEPS, NUM_ENDS_STEPS = (BEFORE + AFTER) // STRIDE, AFTER // STRIDE
NUM_INPUTS = 2 * NEIGHBOURS + 9
OWN_KEY, OWN_FRAME, LASTS = NEIGHBOURS + REACH, 2 * NEIGHBOURS, NUM_INPUTS - 5
"""Columns of what a note is told that say of itself how its key and its sound are heard, and how long it sounds."""
DILATIONS = (1, 2, 4, 8, 16, 32)
DROPOUT = 0.1
KEY, SOUND = 0, 1
"""Columns of what is told."""
_RARE = -3.0
_ONSET, _FRAME, _KEY_DOWN = 0, 2, 4  # of the heads, as `Heads.stacked` has them

Floats = NDArray[np.float32]


class Surroundings:
    """What is heard of all pitches in consecutive frames, as notes are read with it.

    `planes` [T, 3, P + 2 * REACH]: onsets, keys and frames with silent neighbours; `sums` [T, 3] over pitch.

    Args:
        heads: [T + 1, heads, P], of any precision, which is kept: the frame after the last one is needed, too.
    """

    def __init__(self, heads: NDArray[np.floating[Any]]) -> None:
        onset = np.maximum(heads[:-1, _ONSET], heads[1:, _ONSET])  # of both frames of a step that begins here
        planes = np.stack([onset, heads[:-1, _KEY_DOWN], heads[:-1, _FRAME]], 1)
        self.planes = np.zeros((len(planes), 3, NUM_PITCHES + 2 * REACH), heads.dtype)
        self.planes[:, :, REACH:-REACH] = planes
        self.sums = planes.sum(2) / 8.0

    def of_note(self, first: int, pitch_midi: int, velocity: int, sound_frames: float) -> Floats:
        """What a note is told from [T, C].

        Args:
            first: The frame that lies `BEFORE` frames before the one of its onset.
            pitch_midi: Its pitch.
            velocity: 1 to 127.
            sound_frames: How long after its onset its frame head fell, in frames; infinite if it has not.
        """
        steps = slice(first, first + BEFORE + AFTER, STRIDE)
        key = pitch_midi - LOWEST_PITCH
        planes = self.planes[steps, :, key : key + NEIGHBOURS]
        given = np.zeros((NUM_STEPS, NUM_INPUTS), np.float32)
        given[:, :NEIGHBOURS] = planes[:, 0]
        given[:, NEIGHBOURS : 2 * NEIGHBOURS] = planes[:, 1]
        given[:, OWN_FRAME] = planes[:, 2, REACH]
        given[:, 2 * NEIGHBOURS + 1 : 2 * NEIGHBOURS + 4] = self.sums[steps]
        since = (np.arange(NUM_STEPS) * STRIDE - BEFORE).astype(np.float32)  # frames after the onset
        lasts = np.clip((np.float32(sound_frames) - since) / STRIDE, 0.0, 1.0)
        given[:, LASTS] = np.where(since >= 0, lasts, 0.0)
        given[:, -4] = since >= 0
        given[:, -3] = since / 100.0
        given[:, -2] = (pitch_midi - 60) / 24.0
        given[:, -1] = velocity / 64.0 - 1.0
        return given


class ReleaseNetwork(nn.Module):
    """Notes to logits of hazards.

    Args:
        channels: H.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Linear(NUM_INPUTS, channels)
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, 3, padding=d, dilation=d) for d in DILATIONS)
        self.mixes = nn.ModuleList(nn.Linear(channels, channels) for _ in DILATIONS)
        self.head = nn.Linear(channels, 2)
        nn.init.constant_(self.head.bias, _RARE)

    def forward(self, given: Tensor) -> Tensor:
        """What notes are told from [N, T, C] to logits [N, A, 2] of the end of a key and of a sound in each step.

        Raises:
            ValueError: On another shape.
        """
        if given.ndim != 3 or given.shape[1:] != (NUM_STEPS, NUM_INPUTS):
            raise ValueError(f"given: expected [N, {NUM_STEPS}, {NUM_INPUTS}], got {tuple(given.shape)}.")
        hidden = F.relu(self.stem(given)).transpose(1, 2).unsqueeze(2)  # [N, H, 1, T], channels last in memory
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for dilation, conv, mix in zip(DILATIONS, self.convs, self.mixes, strict=True):
            assert isinstance(conv, nn.Conv1d)
            assert isinstance(mix, nn.Linear)
            inner = F.conv2d(hidden, conv.weight.unsqueeze(2), conv.bias, padding=(0, dilation), dilation=(1, dilation))
            inner = F.dropout(F.relu(inner), DROPOUT, self.training)
            hidden = hidden + F.conv2d(inner, mix.weight[:, :, None, None], mix.bias)
        logits: Tensor = self.head(hidden[:, :, 0, -NUM_ENDS_STEPS:].transpose(1, 2))
        return logits


def hazard_loss(logits: Tensor, ends: Tensor) -> Tensor:
    """Mean negative log-likelihood of ends [N], in steps after the onset; one beyond the last step is only outlasted.

    Args:
        logits: [N, A].
        ends: Not negative.
    """
    step = ends.floor().clamp(min=0.0)[:, None]
    steps = logits.new_tensor(range(logits.shape[1]))[None]
    outlasted, ended = (steps < step).float(), (steps == step).float()
    return (F.softplus(logits) * outlasted + F.softplus(-logits) * ended).sum(1).mean()


class ReleaseReader:
    """The same network with given weights, in numpy.

    Invariant: it gives what the network gives but for rounding, and the same bytes for a note whatever the others are;
    `tests/services/transcriber/test_releases.py` holds it to that.
    """

    def __init__(self, network: ReleaseNetwork) -> None:
        state = {name: value.detach().cpu().float().numpy() for name, value in network.state_dict().items()}
        self._stem, self._head = _transposed(state, "stem"), _transposed(state, "head")
        self._blocks = []
        for index, dilation in enumerate(DILATIONS):
            kernel = np.ascontiguousarray(state[f"convs.{index}.weight"].transpose(2, 1, 0))  # [3, H, H]
            self._blocks.append((dilation, kernel, state[f"convs.{index}.bias"], *_transposed(state, f"mixes.{index}")))

    def lasting(self, given: Floats) -> Floats:
        """What notes are told from [N, T, C] to the chance that key and sound last over each step [N, A, 2]."""
        logits = [self._logits(note) for note in given]
        return lasting_of(np.stack(logits)) if logits else np.zeros((0, NUM_ENDS_STEPS, 2), np.float32)

    def _logits(self, given: Floats) -> Floats:
        hidden = np.maximum(given @ self._stem[0] + self._stem[1], 0.0)
        for dilation, kernel, bias, mix, mix_bias in self._blocks:
            padded = np.zeros((NUM_STEPS + 2 * dilation, hidden.shape[1]), np.float32)
            padded[dilation:-dilation] = hidden
            inner = bias + padded[:NUM_STEPS] @ kernel[0]
            inner += padded[dilation : dilation + NUM_STEPS] @ kernel[1]
            inner += padded[2 * dilation :] @ kernel[2]
            hidden = hidden + (np.maximum(inner, 0.0) @ mix + mix_bias)
        logits: Floats = hidden[-NUM_ENDS_STEPS:] @ self._head[0] + self._head[1]
        return logits


def lasting_of(logits: Floats) -> Floats:
    """Logits of hazards [N, A, 2] to the chance that a note lasts over each step."""
    lasts: Floats = np.exp(-np.logaddexp(np.float32(0.0), logits).cumsum(1)).astype(np.float32)
    return lasts


def end_frames(lasts: Floats, level: float) -> float:
    """Frames after the onset where the chance to last [A] falls to `level`, on the line between steps; or infinite."""
    below = np.nonzero(lasts < level)[0]
    if not len(below):
        return math.inf
    step = int(below[0])
    before = float(lasts[step - 1]) if step else 1.0
    return STRIDE * (step + (before - level) / (before - float(lasts[step])))


def _transposed(state: dict[str, Floats], name: str) -> Sequence[Floats]:
    return np.ascontiguousarray(state[f"{name}.weight"].T), state[f"{name}.bias"]
