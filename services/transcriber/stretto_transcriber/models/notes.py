"""`Notes`: what a piano played, in columns; numpy only.

Legend: N notes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NoteEnds = Literal["sound", "key"]
"""Whether a note ends with its sound, the pedal included, or with its key."""


@dataclass(frozen=True, eq=False)
class Notes:
    """Some notes, in order of onset and, of those that begin together, of pitch.

    Invariant: the columns are one-dimensional, of one length and read-only, and no note ends before it has begun;
    `tests/services/transcriber/test_notes.py` holds it to that.

    Args:
        onset_s: float64 [N], seconds from the start of the audio.
        offset_s: float64 [N], each later than its onset.
        pitch_midi: int32 [N]; 60 is middle C.
        velocity: int32 [N], 1 to 127.

    Raises:
        ValueError: On any other shape, order or value.
    """

    onset_s: NDArray[np.float64]
    offset_s: NDArray[np.float64]
    pitch_midi: NDArray[np.int32]
    velocity: NDArray[np.int32]

    def __post_init__(self) -> None:
        for name, dtype in (
            ("onset_s", np.float64), ("offset_s", np.float64), ("pitch_midi", np.int32), ("velocity", np.int32)
        ):  # fmt: skip
            column = np.array(getattr(self, name), dtype)
            if column.shape != (np.size(self.onset_s),):
                raise ValueError(f"{name}: expected shape ({np.size(self.onset_s)},), got {column.shape}.")
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        if not (self.offset_s > self.onset_s).all():
            raise ValueError("offset_s: expected every note to end after its onset.")
        if not ((1 <= self.velocity) & (self.velocity <= 127)).all():
            raise ValueError("velocity: expected 1 to 127.")
        if not _in_order(self.onset_s, self.pitch_midi):
            raise ValueError("onset_s: expected the notes in order of onset, then of pitch. Call Notes.sorted.")

    @classmethod
    def empty(cls) -> Notes:
        """No notes."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0, np.int32), np.zeros(0, np.int32))

    @classmethod
    def sorted(
        cls,
        onset_s: NDArray[np.float64],
        offset_s: NDArray[np.float64],
        pitch_midi: NDArray[np.int32],
        velocity: NDArray[np.int32],
    ) -> Notes:
        """Notes in any order, put in order."""
        order = np.lexsort((pitch_midi, onset_s))
        return cls(onset_s[order], offset_s[order], pitch_midi[order], velocity[order])

    @classmethod
    def joined(cls, parts: Iterable[Notes]) -> Notes:
        """All notes of all parts, in order."""
        parts = [cls.empty(), *parts]
        return cls.sorted(
            np.concatenate([part.onset_s for part in parts]),
            np.concatenate([part.offset_s for part in parts]),
            np.concatenate([part.pitch_midi for part in parts]),
            np.concatenate([part.velocity for part in parts]),
        )

    def __len__(self) -> int:
        return int(self.onset_s.size)


def _in_order(onset_s: NDArray[np.float64], pitch_midi: NDArray[np.int32]) -> bool:
    step_s = np.diff(onset_s)
    return bool(((step_s > 0) | ((step_s == 0) & (np.diff(pitch_midi) >= 0))).all())
