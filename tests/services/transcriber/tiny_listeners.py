"""Tiny random models that hear: what they make of a frame follows from it and its two neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stretto_shared import weights
from stretto_transcriber.models.beats import TrackedBeats
from stretto_transcriber.models.hearing import BeatListener, NoteListener
from stretto_transcriber.models.notes import Notes
from torch import Tensor, nn

NUM_PITCHES = 4
LOWEST_PITCH = 60
MOST_FRAMES = 25
THRESHOLD = 0.02


@dataclass(frozen=True)
class TinyConfig:
    sample_rate_hz: int = 8000
    hop_length: int = 80
    window_frames: int = 20
    context_frames: int = 4

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_length


class TinyNet(nn.Module):
    """Mono windows [N, S] to [N, T, P]: a product of each frame with its neighbours."""

    def __init__(self, config: TinyConfig, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        hop = config.hop_length
        self.conv = nn.Conv1d(1, num_outputs, 3 * hop, stride=hop, padding=hop, bias=False)  # silence is silent

    def forward(self, samples: Tensor) -> Tensor:
        context = self.config.context_frames
        # row by row, so that every processor gives each window what it gives it alone
        heard = torch.cat([self.conv(row[None, None]).transpose(1, 2) for row in samples])
        return heard[:, context : heard.shape[1] - context]


class TinyDecoder:
    """A note of a pitch lasts while its number is above the threshold, and `most_frames` at most."""

    def __init__(self, config: TinyConfig, most_frames: int = MOST_FRAMES) -> None:
        self._frame_s, self._most_frames = 1 / config.frame_rate_hz, most_frames
        self._num_frames = 0
        self._began: dict[int, int] = {}

    @property
    def complete_s(self) -> float:
        return min([self._num_frames, *self._began.values()]) * self._frame_s

    @property
    def num_kept(self) -> int:
        return len(self._began)

    def push(self, frames: Any) -> Notes:
        ended = []
        for frame in frames:
            for pitch, level in enumerate(frame[:NUM_PITCHES]):
                began = self._began.get(pitch)
                if began is not None and (level <= THRESHOLD or self._num_frames - began >= self._most_frames):
                    ended.append(self._end(pitch))
                    began = None
                if began is None and level > THRESHOLD:
                    self._began[pitch] = self._num_frames
            self._num_frames += 1
        return Notes.joined(ended)

    def flush(self) -> Notes:
        return Notes.joined([self._end(pitch) for pitch in list(self._began)])

    def _end(self, pitch: int) -> Notes:
        onset_s, offset_s = self._began.pop(pitch) * self._frame_s, self._num_frames * self._frame_s
        return Notes(*(np.array([value]) for value in (onset_s, offset_s, LOWEST_PITCH + pitch, 64)))  # type: ignore[arg-type]


def track(frames: Any) -> TrackedBeats:
    """A beat on every tenth frame, of which every third is a downbeat; an onset where the first number is high."""
    beat_s = np.arange(0, len(frames), 10) / 100
    onset_s = np.flatnonzero(frames[:, 0] > THRESHOLD) / 100
    bars = np.arange(len(beat_s)) % 3 + 1
    return TrackedBeats(beat_s, bars.astype(np.int32), np.full(len(beat_s), 600.0), 3, onset_s)


def make_net(name: str, num_outputs: int = NUM_PITCHES) -> TinyNet:
    torch.manual_seed(len(name))
    return TinyNet(TinyConfig(), num_outputs).eval()


def note_listener(net: TinyNet) -> NoteListener:
    return NoteListener(net.config, net, net, lambda: TinyDecoder(net.config), lambda: TinyDecoder(net.config, 1))


def beat_listener(net: TinyNet) -> BeatListener:
    return BeatListener(net.config, net, net, track)


def build_notes(resolved: weights.ResolvedWeights) -> NoteListener:
    return note_listener(_loaded(resolved))


def build_beats(resolved: weights.ResolvedWeights) -> BeatListener:
    return beat_listener(_loaded(resolved))


def write_weights(folder: Path, models: Mapping[str, str]) -> None:
    """Write models by name, each of the architecture given."""
    for name, architecture in models.items():
        weights.write(
            folder / name,
            make_net(name).state_dict(),
            name=name,
            architecture=architecture,
            config={"num_outputs": NUM_PITCHES},
            licence="CC0-1.0",
            score="random",
            training={},
        )


def _loaded(resolved: weights.ResolvedWeights) -> TinyNet:
    net = TinyNet(TinyConfig(), **resolved.config["config"])
    net.load_state_dict(weights.load_tensors(resolved))
    return net
