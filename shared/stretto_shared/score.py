"""`Score`: notes, and what is known of their metre and keys, as every room of the house passes them on.

Times are seconds from the start of the music. `beat_s` relates them to the beat: a note at the time of a beat is on it,
and between two beats time is linear. A score that nobody performed has its times at its written tempo.

Tonics and spelled pitches are places on the line of fifths: F is -1, C 0, G 1, F sharp 6, G flat -6. The 35 from
F double flat (-15) to B double sharp (19) are the seven letters with up to two accidentals.

Numpy only; no torch, no wire, no files.

Legend: N notes, B beats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stretto_shared.errors import InvalidInput

MAX_NOTES = 100_000
"""Three hours of dense piano, and about 2 MB on the wire."""
MAX_PARTS = 256
MAX_BEATS = 100_000
MAX_MARKS = 10_000
"""Of tempos, of time signatures and of keys, each."""
MAX_TIME_S = 86_400.0
"""A day. Whoever lays a score out in time, as audio or as a piano roll, can count on it."""
MAX_NAME_CHARACTERS = 200
MIN_TEMPO_BPM = 1.0
MAX_TEMPO_BPM = 1_000.0
MAX_BEATS_PER_BAR = 64
NOTE_VALUES = (1, 2, 4, 8, 16, 32, 64)
MIN_FIFTHS = -15
MAX_FIFTHS = 19


@dataclass(frozen=True)
class Part:
    """One player. `program` is the General MIDI program, counted from 0 as in MIDI files; of drums, the kit.

    Raises:
        InvalidInput: On a name above 200 characters, or a program outside 0 to 127.
    """

    name: str = ""
    program: int = 0
    is_drum: bool = False

    def __post_init__(self) -> None:
        if len(self.name) > MAX_NAME_CHARACTERS:
            raise InvalidInput(
                "part.name",
                f"expected at most {MAX_NAME_CHARACTERS} characters, got {len(self.name)}. Shorten the name.",
            )
        if self.program not in range(128):
            raise InvalidInput(
                "part.program", f"expected 0 to 127, got {self.program}. Count General MIDI programs from 0."
            )


@dataclass(frozen=True)
class Tempo:
    """From `time_s` on, `tempo_bpm` quarter notes a minute, whatever the time signature.

    Raises:
        InvalidInput: On a time outside the day, or a tempo outside 1 to 1000.
    """

    time_s: float
    tempo_bpm: float

    def __post_init__(self) -> None:
        _check_time("tempo", self.time_s)
        if not MIN_TEMPO_BPM <= self.tempo_bpm <= MAX_TEMPO_BPM:
            raise InvalidInput(
                "tempo.tempo_bpm",
                f"expected {MIN_TEMPO_BPM:g} to {MAX_TEMPO_BPM:g} quarter notes a minute, got {self.tempo_bpm}. "
                "Convert the tempo, or leave it out.",
            )


@dataclass(frozen=True)
class TimeSignature:
    """From `time_s` on, bars of `numerator` notes of 1/`denominator`.

    Raises:
        InvalidInput: On a time outside the day, a numerator outside 1 to 64, or a denominator not in `NOTE_VALUES`.
    """

    time_s: float
    numerator: int
    denominator: int

    def __post_init__(self) -> None:
        _check_time("time_signature", self.time_s)
        if self.numerator not in range(1, MAX_BEATS_PER_BAR + 1):
            raise InvalidInput(
                "time_signature.numerator",
                f"expected 1 to {MAX_BEATS_PER_BAR}, got {self.numerator}. Divide the bar.",
            )
        if self.denominator not in NOTE_VALUES:
            raise InvalidInput(
                "time_signature.denominator",
                f"expected one of {', '.join(map(str, NOTE_VALUES))}, got {self.denominator}. "
                "Send the note value itself, not its logarithm.",
            )


@dataclass(frozen=True)
class Key:
    """From `time_s` on, the key on the tonic `tonic_fifths`, a place on the line of fifths.

    Raises:
        InvalidInput: On a time outside the day, or a tonic outside -15 to 19.
    """

    time_s: float
    tonic_fifths: int
    is_minor: bool = False

    def __post_init__(self) -> None:
        _check_time("key", self.time_s)
        if self.tonic_fifths not in range(MIN_FIFTHS, MAX_FIFTHS + 1):
            raise InvalidInput(
                "key.tonic_fifths",
                f"expected {MIN_FIFTHS} (F double flat) to {MAX_FIFTHS} (B double sharp), got {self.tonic_fifths}. "
                "Respell the tonic.",
            )

    @property
    def signature_fifths(self) -> int:
        """Sharps of the key signature, or flats below 0: 0 for C major and for A minor."""
        return self.tonic_fifths - (3 if self.is_minor else 0)


@dataclass(frozen=True, eq=False)
class Score:
    """The notes of one piece, in order of onset; there may be none.

    Invariant: arrays are one-dimensional, read-only and in the ranges below; every note belongs to a part, and beats
    and marks are in order of time. `tests/shared/test_score.py` holds it to that.

    Args:
        onset_s: float64 [N], from 0, never falling.
        duration_s: float64 [N], above 0; every note ends within the day.
        pitch_midi: int32 [N], 0 to 127, where 60 is middle C; in a drum part, General MIDI's percussion key.
        velocity: int32 [N], 1 to 127.
        part_index: int32 [N], the place of the note's part in `parts`.
        parts: Up to `MAX_PARTS`, also such without notes.
        spelling_fifths: int32 [N], every pitch on the line of fifths; empty where nobody knows the spelling.
        beat_s: float64 [B], each later than the one before; empty where nobody knows the beats.
        beat_in_bar: int32 [B], 1 on a downbeat, up to 64; empty where nobody knows the bars.
        tempos: Each later than the one before, as are the next two; empty where nobody knows them.
        time_signatures: What the bars are.
        keys: What the keys are.

    Raises:
        InvalidInput: On any other shape, order or value; the field has the place of the first that is off.
    """

    onset_s: NDArray[np.float64]
    duration_s: NDArray[np.float64]
    pitch_midi: NDArray[np.int32]
    velocity: NDArray[np.int32]
    part_index: NDArray[np.int32]
    parts: tuple[Part, ...]
    spelling_fifths: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    beat_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0, np.float64))
    beat_in_bar: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    tempos: tuple[Tempo, ...] = ()
    time_signatures: tuple[TimeSignature, ...] = ()
    keys: tuple[Key, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        check_count("score.parts", len(self.parts), MAX_PARTS)
        check_count("score.onset_s", np.size(self.onset_s), MAX_NOTES)
        check_count("score.beat_s", np.size(self.beat_s), MAX_BEATS)
        self._keep_notes(np.size(self.onset_s))
        self._keep_beats(np.size(self.beat_s))
        for name in ("tempos", "time_signatures", "keys"):
            marks = tuple(getattr(self, name))
            check_count(f"score.{name}", len(marks), MAX_MARKS)
            times_s = np.array([mark.time_s for mark in marks], np.float64)
            _check(f"score.{name}[{{}}].time_s", times_s, _rises(times_s), "above the time before", "Sort the marks.")
            object.__setattr__(self, name, marks)

    @property
    def num_notes(self) -> int:
        return int(self.onset_s.size)

    @property
    def offset_s(self) -> NDArray[np.float64]:
        """When each note ends: float64 [N], above its onset."""
        return self.onset_s + self.duration_s

    @property
    def end_s(self) -> float:
        """When the last note ends; 0 without notes."""
        return float(self.offset_s.max(initial=0.0))

    def _keep_notes(self, num_notes: int) -> None:
        if num_notes and not self.parts:
            raise InvalidInput("score.parts", f"expected at least one for {num_notes} notes, got 0. Name a part.")
        onset_s = self._keep("onset_s", np.float64, num_notes, (0, MAX_TIME_S), "Count seconds from the start.")
        in_order = np.diff(onset_s, prepend=0.0) >= 0
        _check("score.onset_s[{}]", onset_s, in_order, "at least the onset before", "Sort the notes by onset.")
        duration_s = self._keep("duration_s", np.float64, num_notes, (0, MAX_TIME_S), "Send lengths in seconds.")
        offset_s = onset_s + duration_s
        sounds = (offset_s > onset_s) & (offset_s <= MAX_TIME_S)
        expected = f"above 0 and an end by {MAX_TIME_S:g} s"
        _check("score.duration_s[{}]", duration_s, sounds, expected, "Give the note a length within the day.")
        pitch_midi = self._keep("pitch_midi", np.int32, num_notes, (0, 127), "Leave out what MIDI has no pitch for.")
        self._keep("velocity", np.int32, num_notes, (1, 127), "Leave out notes of velocity 0.")
        self._keep("part_index", np.int32, num_notes, (0, len(self.parts) - 1), "Count the parts from 0.")
        if np.size(self.spelling_fifths) == 0:
            num_notes, pitch_midi = 0, pitch_midi[:0]
        fifths = (MIN_FIFTHS, MAX_FIFTHS)
        spelling = self._keep(
            "spelling_fifths", np.int32, num_notes, fifths, "Respell it with two accidentals or fewer."
        )
        is_right = (7 * spelling - pitch_midi) % 12 == 0
        _check("score.spelling_fifths[{}]", spelling, is_right, "a spelling of the note's pitch_midi", "Respell it.")

    def _keep_beats(self, num_beats: int) -> None:
        beat_s = self._keep("beat_s", np.float64, num_beats, (0, MAX_TIME_S), "Count seconds from the start.")
        _check("score.beat_s[{}]", beat_s, _rises(beat_s), "above the beat before", "Sort the beats, each once.")
        num_places = num_beats if np.size(self.beat_in_bar) else 0
        self._keep("beat_in_bar", np.int32, num_places, (1, MAX_BEATS_PER_BAR), "Count from 1 on the downbeat.")

    def _keep(
        self, name: str, dtype: type[np.generic], size: int, limits: tuple[float, float], remedy: str
    ) -> NDArray[Any]:
        """Check one array, and put a read-only copy of it in its place."""
        given = np.asarray(getattr(self, name))
        if given.shape != (size,):
            raise InvalidInput(
                f"score.{name}", f"expected shape ({size},), got {given.shape}. Send one number a note, or one a beat."
            )
        low, high = limits
        is_valid, kind = (low <= given) & (given <= high), "number"
        if issubclass(dtype, np.integer):
            is_valid, kind = is_valid & (given == np.floor(given)), "whole number"
        _check(f"score.{name}[{{}}]", given, is_valid, f"a {kind} from {low:g} to {high:g}", remedy)
        kept = given.astype(dtype)
        kept.setflags(write=False)
        object.__setattr__(self, name, kept)
        return kept


def check_count(field: str, count: int, most: int) -> None:
    """Raise InvalidInput if there are more than `most`; the wire asks before it copies."""
    if count > most:
        raise InvalidInput(field, f"expected at most {most}, got {count}. Send the music in shorter pieces.")


def _check(field: str, values: NDArray[Any], is_valid: NDArray[np.bool_], expected: str, remedy: str) -> None:
    """Raise InvalidInput for the first value that is not valid; its place goes to the braces of `field`."""
    wrong = np.flatnonzero(~is_valid)
    if wrong.size:
        place = int(wrong[0])
        raise InvalidInput(field.format(place), f"expected {expected}, got {values[place]}. {remedy}")


def _check_time(kind: str, time_s: float) -> None:
    if not 0 <= time_s <= MAX_TIME_S:
        raise InvalidInput(
            f"{kind}.time_s", f"expected 0 to {MAX_TIME_S:g} s from the start, got {time_s}. Send shorter pieces."
        )


def _rises(times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each is later than the one before; the first always is."""
    return np.diff(times_s, prepend=-1.0) > 0
