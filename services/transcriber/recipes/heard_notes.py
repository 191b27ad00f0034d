"""What a transcriber heard around each note that it found: all notes of a corpus on one device, many of them at once.

`NoteDeck.batch` gives what `Surroundings.of_note` gives of each note by itself; `tests/recipes/test_release_recipe.py`
holds it to that.

Legend: N notes, T = 120 steps, C = 107 numbers of a step, F frames of all clips, P pitches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from note_scores import matched
from numpy.typing import NDArray
from stretto_transcriber.models.notes import Notes
from stretto_transcriber.models.onsets_frames import NoteDecoder, OnsetsFramesConfig
from stretto_transcriber.models.onsets_frames.config import LOWEST_PITCH
from stretto_transcriber.models.onsets_frames.release_decoding import onset_frames
from stretto_transcriber.models.onsets_frames.releases import (
    AFTER,
    BEFORE,
    LASTS,
    NEIGHBOURS,
    NUM_INPUTS,
    NUM_STEPS,
    OWN_FRAME,
    REACH,
    STRIDE,
    Surroundings,
)
from torch import Tensor

ONSET_TOLERANCE_S = 0.05
OF_MAPS = ("MAPS", "pianomidi")


def is_of_maps(name: str) -> bool:
    """Whether a clip is of MAPS or of piano-midi.de, from which MAPS plays: notated, not played by hand."""
    return any(source in name for source in OF_MAPS)


class HeardClip:
    """One clip: its notes that were found and are among its labels, and what was heard around them.

    `notes` float32 [N, 6]: the frame that lies `BEFORE` frames before its onset's, pitch_midi, velocity, how long its
    frame head let it sound, and when its key and its sound end by the labels, in steps after its onset.
    """

    def __init__(self, path: Path, config: OnsetsFramesConfig) -> None:
        with np.load(path) as file:
            heads, labels = file["heads"], file["notes"].astype(np.float64)
        frames = heads.astype(np.float32).reshape(len(heads), -1)
        decoder = NoteDecoder(dataclasses.replace(config, release_channels=0))
        notes = Notes.joined([decoder.push(frames), decoder.flush()])
        pairs = matched(notes, labels[:, :4], ONSET_TOLERANCE_S)
        found, label = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
        onset_s = notes.onset_s[found]
        ends = (labels[label][:, [4, 1]] - onset_s[:, None]) * config.frame_rate_hz / STRIDE  # as KEY and SOUND
        sound = (notes.offset_s[found] - onset_s) * config.frame_rate_hz
        first = onset_frames(notes, config)[found]
        table = np.column_stack([first, notes.pitch_midi[found], notes.velocity[found], sound, ends])
        self.name, self.notes = path.stem, table.astype(np.float32)
        padded = np.zeros((BEFORE + len(heads) + AFTER + 1, *heads.shape[1:]), np.float16)
        padded[BEFORE : BEFORE + len(heads)] = heads
        self.around = Surroundings(padded)


def read_clips(paths: Sequence[Path], config: OnsetsFramesConfig, jobs: int) -> list[HeardClip]:
    """Clips in the order of their paths, read by `jobs` processes; by this one if it is one."""
    read = partial(HeardClip, config=config)
    if jobs == 1:
        return [read(path) for path in paths]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(read, paths, chunksize=4))


class NoteDeck:
    """All notes of some clips on a device, those of MAPS and piano-midi.de drawn `maps_weight` times as often."""

    def __init__(self, clips: Sequence[HeardClip], maps_weight: float, device: torch.device) -> None:
        sizes = [len(clip.notes) for clip in clips]
        weight = [maps_weight if is_of_maps(clip.name) else 1.0 for clip in clips]
        reached = np.cumsum(np.repeat(weight, sizes))
        self._reached: NDArray[np.float64] = reached / reached[-1]
        lengths = [len(clip.around.planes) for clip in clips]
        starts = np.cumsum([0, *lengths])[:-1]
        self._start = torch.from_numpy(np.repeat(starts, sizes)).to(device)  # [N]
        self._last = torch.from_numpy(np.repeat(starts + lengths - 1, sizes)).to(device)  # [N]
        self._notes = torch.from_numpy(np.concatenate([clip.notes for clip in clips])).to(device)  # [N, 6]
        self._planes = torch.from_numpy(np.concatenate([clip.around.planes for clip in clips])).to(device)
        self._sums = torch.from_numpy(np.concatenate([clip.around.sums for clip in clips])).to(device)

    def __len__(self) -> int:
        return len(self._notes)

    def batch(self, places: NDArray[np.float64], slower: NDArray[np.float64] | None = None) -> tuple[Tensor, Tensor]:
        """The notes at places from 0 to 1: what they are told from [N, T, C], their ends in steps [N, 2].

        Args:
            places: Of each note.
            slower: How many times as slowly as it is heard each is told; None for all as they are heard.
        """
        numbers = np.minimum(np.searchsorted(self._reached, places, "right"), len(self) - 1)
        chosen = torch.from_numpy(numbers).to(self._notes.device)
        first, pitch, velocity, sound = self._notes[chosen, :4].unbind(1)
        ends = self._notes[chosen, 4:]
        since = torch.arange(NUM_STEPS, device=chosen.device) * STRIDE - BEFORE  # frames after the onset
        read = self._start[chosen] + first.long()
        frames = read[:, None] + since + BEFORE  # [N, T]
        if slower is not None:
            times = torch.from_numpy(slower.astype(np.float32)).to(chosen.device)
            sound, ends = sound * times, ends * times[:, None]
            frames = read[:, None] + BEFORE + (since / times[:, None]).round().long()
            frames = frames.clamp(min=self._start[chosen][:, None]).minimum(self._last[chosen][:, None])
        keys = (pitch.long() - LOWEST_PITCH)[:, None] + torch.arange(NEIGHBOURS, device=chosen.device)
        near = self._planes[frames].gather(3, keys[:, None, None].expand(-1, NUM_STEPS, 3, -1)).float()
        given = torch.zeros(len(chosen), NUM_STEPS, NUM_INPUTS, device=chosen.device)
        given[..., :NEIGHBOURS] = near[:, :, 0]
        given[..., NEIGHBOURS : 2 * NEIGHBOURS] = near[:, :, 1]
        given[..., OWN_FRAME] = near[:, :, 2, REACH]
        given[..., 2 * NEIGHBOURS + 1 : 2 * NEIGHBOURS + 4] = self._sums[frames].float()
        lasts = ((sound[:, None] - since) / STRIDE).clamp(0.0, 1.0)
        given[..., LASTS] = torch.where(since >= 0, lasts, 0.0)
        given[..., -4] = (since >= 0).float()
        given[..., -3] = since / 100.0
        given[..., -2] = ((pitch - 60) / 24.0)[:, None]
        given[..., -1] = (velocity / 64.0 - 1.0)[:, None]
        return given, ends
