"""Clips with their notes in a device's memory, windows of them, and what the heads should say of those.

A clip is `NAME.wav` (or `.ogg`, `.opus`, `.flac`) at 16 kHz beside `NAME.npy`, as `render_piano.py` writes them and
`pack_piano.py` packs them. Everything that is done for each step is done for a batch at once, on the device.

Legend: C clips, B windows, S samples, T frames, M notes of the clip that has most; 88 pitches, the first one A0.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from stretto_transcriber.models.onsets_frames.config import LOWEST_PITCH, NUM_PITCHES, OnsetsFramesConfig
from torch import Tensor

SAMPLE_RATE_HZ = 16_000
ENDINGS = (".wav", ".ogg", ".opus", ".flac")
NUM_COLUMNS = 5
_NEVER = -1e6  # when the notes begin and end that only fill a table

Samples = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Clip:
    """Where a clip lies. `notes` float32 [N, 5]: onset_s, offset_s, pitch_midi, velocity, release_s."""

    path: Path
    num_samples: int
    notes: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Targets:
    """Each [B, T, 88]; velocity counts where `is_struck`. `frame`: a note sounds; `key`: its key is down."""

    onset: Tensor
    offset: Tensor
    frame: Tensor
    key: Tensor
    velocity: Tensor
    is_struck: Tensor


def list_clips(folder: Path) -> list[Clip]:
    """All clips that are whole by now, in order of their names.

    Raises:
        ValueError: If labels have no releases.
    """
    clips = []
    for labels in sorted(folder.glob("*.npy")):
        path = next(path for ending in ENDINGS if (path := labels.with_suffix(ending)).exists())
        notes = np.load(labels)
        if notes.ndim != 2 or notes.shape[1] != NUM_COLUMNS:
            raise ValueError(f"{labels}: expected notes [N, 5], got {notes.shape}. Render the corpus again.")
        clips.append(Clip(path, soundfile.info(path).frames, notes))
    return clips


def read_beginning(clip: Clip, length: int) -> Samples:
    """The first samples [S] of a clip; silence lies beyond its end."""
    audio = np.zeros(length, np.float32)
    found = soundfile.read(clip.path, min(length, clip.num_samples), dtype="float32")[0]
    audio[: len(found)] = found
    return audio


class ClipMemory:
    """The audio, as int16, and the notes of clips, on a device."""

    def __init__(self, clips: Sequence[Clip], device: torch.device, num_threads: int = 1) -> None:
        with ThreadPoolExecutor(num_threads) as pool:  # decoding is outside of Python's lock
            audio = list(pool.map(lambda clip: soundfile.read(clip.path, dtype="int16")[0], clips))
        lengths = np.array([len(samples) for samples in audio])
        notes = np.full((len(clips), max(1, *(len(clip.notes) for clip in clips)), NUM_COLUMNS), _NEVER, np.float32)
        for row, clip in zip(notes, clips, strict=True):
            row[: len(clip.notes)] = clip.notes
        self.audio = torch.from_numpy(np.concatenate([*audio, np.zeros(1, np.int16)])).to(device)
        self.lengths = torch.from_numpy(lengths).to(device)  # [C]
        self.starts = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)  # [C]
        self.notes = torch.from_numpy(notes).to(device)  # [C, M, 5]

    def windows(self, chosen: Tensor, first: Tensor, speed: Tensor, length: int) -> Tensor:
        """Samples [B, S] of clips `chosen` from sample `first` on, `speed` times as fast and so much higher."""
        places = first[:, None] + torch.arange(length, device=first.device) * speed[:, None].double()
        whole = places.floor()
        share = (places - whole).float()
        left, right = (self._samples(chosen, whole.long() + step) for step in (0, 1))
        return left * (1 - share) + right * share

    def _samples(self, chosen: Tensor, places: Tensor) -> Tensor:
        inside = (places >= 0) & (places < self.lengths[chosen, None])
        found = self.audio[torch.where(inside, self.starts[chosen, None] + places, 0)]
        return torch.where(inside, found.float() / 32768.0, 0.0)

    def notes_within(self, chosen: Tensor, first: Tensor, speed: Tensor) -> Tensor:
        """The notes [B, M, 5] of clips in the time of their windows."""
        notes = self.notes[chosen].clone()
        for column in (0, 1, 4):
            notes[..., column] = (notes[..., column] - first[:, None].float() / SAMPLE_RATE_HZ) / speed[:, None]
        return notes


def targets_of(notes: Tensor, num_frames: int, config: OnsetsFramesConfig) -> Targets:
    """What the heads should say of notes [B, M, 5] in the time of their windows."""
    rate, reach = config.frame_rate_hz, config.regression_s * config.frame_rate_hz
    pitch = notes[..., 2].round().long() - LOWEST_PITCH
    begin, end, release = (notes[..., column] * rate - config.frame_centre for column in (0, 1, 4))  # in frames
    near = (end > -10) & (begin < num_frames + 10) & (pitch >= 0) & (pitch < NUM_PITCHES)
    batch = torch.nonzero(near)[:, 0]
    cells = _Cells(batch, pitch[near], len(notes), num_frames)
    begin, end, release = begin[near], end[near], release[near]
    first = begin.ceil().long()
    steps = torch.arange(-3, 3, device=notes.device)
    onset = cells.peaks(begin, reach)
    velocity = cells.highest(first[:, None] + steps, (notes[..., 3][near] / 127.0)[:, None].expand(-1, 6))
    return Targets(
        onset=onset,
        offset=cells.peaks(end, reach),
        frame=cells.spans(first, end.ceil().long()),
        key=cells.spans(first, release.ceil().long()),
        velocity=velocity,
        is_struck=onset > 0.2,
    )


class _Cells:
    """Cells [B, T, 88] that notes [N] with their windows and pitches fall into; what lies outside is dropped."""

    def __init__(self, batch: Tensor, pitch: Tensor, num_windows: int, num_frames: int) -> None:
        self.batch, self.pitch = batch, pitch
        self.shape = (num_windows, num_frames + 2, NUM_PITCHES)  # a frame before and one after take what is outside

    def _flat(self, frames: Tensor) -> Tensor:
        extra = frames.ndim - 1
        batch, pitch = (x.reshape(-1, *[1] * extra) for x in (self.batch, self.pitch))
        return ((batch * self.shape[1] + frames.clamp(-1, self.shape[1] - 2) + 1) * NUM_PITCHES + pitch).flatten()

    def highest(self, frames: Tensor, values: Tensor) -> Tensor:
        """The highest of the values [N, K] at frames [N, K] in each cell, or 0."""
        found = torch.zeros(self.shape, device=frames.device).flatten()
        found.scatter_reduce_(0, self._flat(frames), values.float().flatten(), "amax")
        return found.reshape(self.shape)[:, 1:-1]

    def peaks(self, places: Tensor, reach: float) -> Tensor:
        """Triangles around places [N], in frames; with no reach, the frames that hold them alone."""
        if reach <= 0:
            return self.highest(places.round().long()[:, None], torch.ones_like(places)[:, None])
        steps = torch.arange(-int(reach) - 1, int(reach) + 3, device=places.device)
        frames = places.floor().long()[:, None] + steps
        return self.highest(frames, (1.0 - (frames - places[:, None]).abs() / reach).clamp(min=0.0))

    def spans(self, first: Tensor, last: Tensor) -> Tensor:
        """1 from each first frame up to the last, which is left out."""
        last = torch.maximum(first, last)
        change = torch.zeros(self.shape, device=first.device).flatten()
        ones = torch.ones(len(first), device=first.device)
        change.scatter_add_(0, self._flat(first), ones)
        change.scatter_add_(0, self._flat(last), -ones)
        return (change.reshape(self.shape).cumsum(1)[:, 1:-1] > 0.5).float()
