"""`NoteDecoder`: notes from what is heard of every pitch, frame by frame, in any portions.

A note begins where the onset head has a peak of at least `onset_threshold` within two frames of either side; the head
falls linearly from the onset on either side, so the place between frames follows from its neighbours (Kong et al. 2021,
https://arxiv.org/abs/2010.01815). It ends at the first of: the next onset of its pitch; a peak of the offset head of at
least `offset_threshold` that is followed by silence of the frame head; the frame where the frame head falls below
`frame_threshold` and stays there. Or, of `ends="key"`, where the key head falls below `key_threshold` and stays there,
which is before the sound ends if the pedal is down; that threshold falls while a key is held to `held_key_threshold`,
for where only the pedal can be heard most keys are soon released, and one that was held long is held on. A note longer
than 30 s is ended, which bounds what is kept.

Notes are returned when they have ended, so not in order of onset from one push to the next; `complete_s` says up to
where all onsets are out. What is kept: five frames, and the note that sounds of each pitch.

Legend: T frames, P = 4 * 88 or 5 * 88 numbers of a frame: onset, offset, frame, velocity, key.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_transcriber.models.notes import NoteEnds, Notes
from stretto_transcriber.models.onsets_frames.config import LOWEST_PITCH, NUM_PITCHES, OnsetsFramesConfig

REACH = 2
"""Frames on either side that decide about one."""
MAX_NOTE_S = 30.0
MIN_NOTE_S = 0.02
RELEASE_FRAMES = 2
"""Frames in which the frame head must stay below its threshold: one alone may be a dropout."""
HELD_S = 1.0
"""How long a key's threshold falls."""


@dataclass
class _Sounding:
    onset_s: float
    velocity: int
    onset_frame: int
    peak_s: float | None = None  # the last offset peak, while the frame head is on
    quiet: int = 0
    quiet_s: float = 0.0


class NoteDecoder:
    """Notes of one stream, by the thresholds of its config.

    Invariant: portions of any sizes give the same notes as all frames at once, and what is kept is bounded;
    `tests/services/transcriber/test_onsets_frames_decoding.py` holds it to that.

    Args:
        config: The model's.
        ends: When a note ends: with its sound, the pedal included, or with its key.

    Raises:
        ValueError: For keys, if the model does not hear them.
    """

    def __init__(self, config: OnsetsFramesConfig, ends: NoteEnds = "sound") -> None:
        if ends == "key" and not config.has_key_head:
            raise ValueError("ends: this model does not hear when keys are released. Ask for 'sound'.")
        self._config = config
        self._by_key = ends == "key"
        self._struck = config.key_threshold if self._by_key else config.frame_threshold
        held = config.held_key_threshold if self._by_key else None
        self._held = self._struck if held is None else held
        self._rate = config.frame_rate_hz
        self._kept = np.zeros((REACH, config.num_heads, NUM_PITCHES), np.float32)  # silence before the first frame
        self._frame = 0  # the next frame to decide about
        self._sounding: dict[int, _Sounding] = {}

    @property
    def complete_s(self) -> float:
        """Every note that begins before this second has been returned. Never falls."""
        decided = max(0.0, self._time_s(self._frame - 1.0))
        return min([decided, *(note.onset_s for note in self._sounding.values())])

    def push(self, frames: NDArray[np.float32]) -> Notes:
        """Take the next frames [T, P]; give the notes that have ended.

        Raises:
            ValueError: On another shape.
        """
        num_heads = self._config.num_heads
        if frames.ndim != 2 or frames.shape[1] != num_heads * NUM_PITCHES:
            raise ValueError(f"frames: expected [T, {num_heads * NUM_PITCHES}], got {frames.shape}.")
        heard = np.concatenate([self._kept, frames.reshape(-1, num_heads, NUM_PITCHES)])
        count = max(0, len(heard) - 2 * REACH)
        ended = self._decide(heard, count)
        self._kept = heard[count:]
        return ended

    def flush(self) -> Notes:
        """No frame comes any more: the notes that still sounded, and those of the last frames."""
        last = self.push(np.zeros((REACH, self._config.num_heads * NUM_PITCHES), np.float32))
        end_s = self._time_s(self._frame - self._config.frame_centre)
        rest = [self._ended(pitch, note, note.quiet_s or end_s) for pitch, note in self._sounding.items()]
        self._sounding = {}
        return Notes.joined([last, _notes_of(rest)])

    def _decide(self, heard: NDArray[np.float32], count: int) -> Notes:
        if count == 0:
            return Notes.empty()
        config = self._config
        is_onset = _peaks(heard[:, 0], config.onset_threshold)
        is_offset = _peaks(heard[:, 1], config.offset_threshold) & (not self._by_key)
        middle = heard[REACH : REACH + count]
        ended: list[tuple[float, float, int, int]] = []
        level = middle[:, 4 if self._by_key else 2]
        for index in range(count):
            for pitch in np.nonzero(is_onset[index])[0].tolist():
                ended += self._begin(heard[index : index + 2 * REACH + 1], pitch)
            for pitch in list(self._sounding):
                peak_s = (
                    self._place_s(heard[index : index + 2 * REACH + 1, 1, pitch]) if is_offset[index, pitch] else None
                )
                ended += self._continue(pitch, float(level[index, pitch]), peak_s)
            self._frame += 1
        return _notes_of(ended)

    def _begin(self, around: NDArray[np.float32], pitch: int) -> list[tuple[float, float, int, int]]:
        onset_s = max(0.0, self._place_s(around[:, 0, pitch]))
        before = self._sounding.pop(pitch, None)
        ended = []
        if before is not None:
            ended.append(self._ended(pitch, before, min(before.quiet_s or onset_s, onset_s)))
        velocity = int(np.clip(round(127.0 * float(around[REACH, 3, pitch])), 1, 127))
        self._sounding[pitch] = _Sounding(onset_s, velocity, self._frame)
        return ended

    def _continue(self, pitch: int, level: float, peak_s: float | None) -> list[tuple[float, float, int, int]]:
        note = self._sounding[pitch]
        if peak_s is not None and self._frame > note.onset_frame + 1:
            note.peak_s = peak_s
        if self._frame <= note.onset_frame + 1:  # the frame head may come a frame after the onset
            return []
        if level < self._threshold(self._frame - note.onset_frame):
            if note.quiet == 0:
                note.quiet_s = self._time_s(self._frame - self._config.frame_centre)
            note.quiet += 1
        else:
            note.quiet, note.quiet_s = 0, 0.0
        is_long = self._time_s(self._frame) - note.onset_s > MAX_NOTE_S
        if note.quiet < RELEASE_FRAMES and not is_long:
            return []
        del self._sounding[pitch]
        end_s = note.quiet_s if note.quiet else self._time_s(self._frame)
        if note.peak_s is not None and abs(note.peak_s - end_s) < 0.1:
            end_s = note.peak_s
        return [self._ended(pitch, note, end_s)]

    def _threshold(self, num_frames: int) -> float:
        """Of a note that was struck so many frames ago."""
        share = min(1.0, num_frames / (HELD_S * self._rate))
        return self._struck + share * (self._held - self._struck)

    def _ended(self, pitch: int, note: _Sounding, end_s: float) -> tuple[float, float, int, int]:
        return note.onset_s, max(end_s, note.onset_s + MIN_NOTE_S), pitch + LOWEST_PITCH, note.velocity

    def _place_s(self, around: NDArray[np.float32]) -> float:
        # Kong et al.: on a triangle, the smaller neighbour's distance to the peak says how far it lies between frames.
        left, peak, right = (float(x) for x in around[REACH - 1 : REACH + 2])
        lowest = min(left, right)
        shift = (right - left) / (2 * (peak - lowest)) if peak > lowest and self._config.regression_s > 0 else 0.0
        return self._time_s(self._frame + shift)

    def _time_s(self, frame: float) -> float:
        return (frame + self._config.frame_centre) / self._rate


def _peaks(column: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Which frames but the first and last `REACH` are the highest of their surroundings; of equal ones, the first."""
    count = len(column) - 2 * REACH
    middle = column[REACH : REACH + count]
    highest = middle >= threshold
    for step in range(1, REACH + 1):
        highest &= middle > column[REACH - step : REACH - step + count]
        highest &= middle >= column[REACH + step : REACH + step + count]
    return highest


def _notes_of(rows: list[tuple[float, float, int, int]]) -> Notes:
    if not rows:
        return Notes.empty()
    onset_s, offset_s, pitch, velocity = (np.array(column) for column in zip(*rows, strict=True))
    return Notes.sorted(onset_s, offset_s, pitch.astype(np.int32), velocity.astype(np.int32))
