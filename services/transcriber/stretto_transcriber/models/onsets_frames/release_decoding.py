"""`ReleaseDecoder`: the notes of a `NoteDecoder`, that end where a `ReleaseNetwork` tells.

A note is read when its sound has ended and 4 s have been heard since its onset, so it is final then. It ends where the
chance that its key, or its sound, still lasts falls to the config's level, but no later than the frame head let it
sound; where that chance does not fall so far within 4 s, it ends with the frame head.

What is kept: the heads since .8 s before the earliest note that has not been read, which is 36 s at most.

Legend: T frames, P = 5 * 88 numbers of a frame.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stretto_transcriber.models.notes import NoteEnds, Notes
from stretto_transcriber.models.onsets_frames.config import NUM_PITCHES, OnsetsFramesConfig
from stretto_transcriber.models.onsets_frames.decoding import MIN_NOTE_S, NoteDecoder
from stretto_transcriber.models.onsets_frames.releases import (
    AFTER,
    BEFORE,
    KEY,
    SOUND,
    Floats,
    Surroundings,
    end_frames,
)


class Reader(Protocol):
    """What tells how long notes last: a `ReleaseReader`, or a `TiledReleases`."""

    def lasting(self, given: Floats) -> Floats:
        """What notes are told from [N, T, C] to the chance that key and sound last over each step [N, A, 2]."""


class ReleaseDecoder:
    """Notes of one stream.

    Invariant: portions of any sizes give the same notes as all frames at once, and what is kept is bounded;
    `tests/services/transcriber/test_release_decoding.py` holds it to that.

    Args:
        config: The model's.
        reader: Its network of releases.
        ends: When a note ends: with its sound, the pedal included, or with its key.
    """

    def __init__(self, config: OnsetsFramesConfig, reader: Reader, ends: NoteEnds) -> None:
        self._config = config
        self._reader = reader
        self._column = KEY if ends == "key" else SOUND
        self._level = config.key_level if ends == "key" else config.sound_level
        self._found = NoteDecoder(config)
        self._waiting = Notes.empty()
        self._heads = np.zeros((BEFORE, config.num_heads, NUM_PITCHES), np.float32)  # silence before the first frame
        self._first = -BEFORE  # the frame of their first row

    @property
    def complete_s(self) -> float:
        """Every note that begins before this second has been returned. Never falls."""
        first_s = float(self._waiting.onset_s[0]) if len(self._waiting) else math.inf
        return min(self._found.complete_s, first_s)

    @property
    def num_kept(self) -> int:
        """Count the frames that are kept."""
        return len(self._heads)

    def push(self, frames: NDArray[np.float32]) -> Notes:
        """Take the next frames [T, P]; give the notes that have become final.

        Raises:
            ValueError: On another shape.
        """
        self._waiting = Notes.joined([self._waiting, self._found.push(frames)])
        self._heads = np.concatenate([self._heads, frames.reshape(-1, self._config.num_heads, NUM_PITCHES)])
        return self._read(self._first + len(self._heads))

    def flush(self) -> Notes:
        """No frame comes any more: the notes that were not final."""
        self._waiting = Notes.joined([self._waiting, self._found.flush()])
        silence = np.zeros((AFTER + 2, self._config.num_heads, NUM_PITCHES), np.float32)
        self._heads = np.concatenate([self._heads, silence])
        return self._read(self._first + len(self._heads))

    def _read(self, num_heard: int) -> Notes:
        """The waiting notes of which enough has been heard; the others go on waiting."""
        waiting = self._waiting
        frames = onset_frames(waiting, self._config)
        is_due = frames + AFTER + 1 <= num_heard
        due = _some(waiting, is_due)
        if len(due):
            around = Surroundings(self._heads)
            due = self._told(due, around, frames[is_due] - BEFORE - self._first)
        self._waiting = _some(waiting, ~is_due)
        self._forget()
        return due

    def _told(self, notes: Notes, around: Surroundings, first: NDArray[np.int64]) -> Notes:
        ends_s, rate = np.array(notes.offset_s), self._config.frame_rate_hz
        lasts_s = notes.offset_s - notes.onset_s
        given = [
            around.of_note(int(at), int(pitch), int(velocity), float(frames))
            for at, pitch, velocity, frames in zip(first, notes.pitch_midi, notes.velocity, lasts_s * rate, strict=True)
        ]
        for index, lasts in enumerate(self._reader.lasting(np.stack(given))[..., self._column]):
            told_s = end_frames(lasts, self._level) / rate
            ends_s[index] = min(ends_s[index], notes.onset_s[index] + max(told_s, MIN_NOTE_S))
        return Notes(notes.onset_s, ends_s, notes.pitch_midi, notes.velocity)

    def _forget(self) -> None:
        """Leave out the frames that no note will be read with."""
        earliest = int(np.floor(self.complete_s * self._config.frame_rate_hz)) - BEFORE - 1
        if (beyond := earliest - self._first) > 0:
            self._heads, self._first = self._heads[beyond:].copy(), earliest


def decoder_of(
    config: OnsetsFramesConfig, reader: Reader | None, ends: NoteEnds = "sound"
) -> NoteDecoder | ReleaseDecoder:
    """What makes notes for one stream: with the network of releases, if there is one and the config lets it tell.

    Raises:
        ValueError: For keys, if the model does not hear them.
    """
    level = config.key_level if ends == "key" else config.sound_level
    return NoteDecoder(config, ends) if reader is None or level == 0.0 else ReleaseDecoder(config, reader, ends)


def onset_frames(notes: Notes, config: OnsetsFramesConfig) -> NDArray[np.int64]:
    """The frame that is nearest to each onset [N]."""
    place = notes.onset_s * config.frame_rate_hz - config.frame_centre
    return np.maximum(0, np.round(place)).astype(np.int64)


def _some(notes: Notes, chosen: NDArray[np.bool_]) -> Notes:
    return Notes(notes.onset_s[chosen], notes.offset_s[chosen], notes.pitch_midi[chosen], notes.velocity[chosen])
