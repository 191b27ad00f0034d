"""`Score`: the written notes of a piece in ticks, with its measures; what every analyzer reads.

Unlike `stretto_shared.score.Score` it has no seconds: time is written time, 10,080 ticks a quarter note, which 32nds
and their groups of 3, 5, 7 and 9 divide. Ties are joined and grace notes left out; repeats stand as they are written.
Numpy only: no torch, no files, no wire.

Legend: N notes, M measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from stretto_shared.errors import InvalidInput

from stretto_harmony.scores import pitch

TICKS_PER_QUARTER = 10_080
TICKS_PER_WHOLE = 4 * TICKS_PER_QUARTER
MAX_NOTES = 100_000
MAX_MEASURES = 10_000
MAX_TICKS = 100_000 * TICKS_PER_WHOLE
MAX_NUMERATOR = 128
MAX_DENOMINATOR = 128
DOWNBEAT, BEAT, SUB_BEAT, BELOW = 3, 2, 1, 0

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Score:
    """The notes of one piece, in order of onset and then of pitch; there may be none, but there is a measure.

    Invariant: arrays are read-only and in the ranges below; measures follow each other without a gap from tick 0, and
    every note begins within one. `tests/services/harmony/scores/test_score.py` holds it to that.

    Args:
        onset: int64 [N], ticks.
        duration: int64 [N], ticks, above 0; a note may outlast the last measure.
        midi: int64 [N], 0 to 127.
        fifths: int64 [N], the spelling on the line of fifths, of the same pitch class as `midi`.
        staff: int64 [N], from 0 at the top.
        voice: int64 [N], from 0.
        measure_start: int64 [M], ticks.
        measure_length: int64 [M], ticks, above 0, as played: a pickup's is short.
        measure_offset: int64 [M], the ticks that a pickup lacks at its front.
        numerator: int64 [M], of the time signature.
        denominator: int64 [M], 1 to 128, a power of 2.
        key_signature: int64 [M], sharps, or flats below 0; -14 to 14, of which seven are in use.
        measure_number: [M], as printed; the two parts of a split measure share theirs.

    Raises:
        InvalidInput: On any other shape, order or value; the field has the place of the first that is off.
    """

    onset: Ints
    duration: Ints
    midi: Ints
    fifths: Ints
    staff: Ints
    voice: Ints
    measure_start: Ints
    measure_length: Ints
    measure_offset: Ints
    numerator: Ints
    denominator: Ints
    key_signature: Ints
    measure_number: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in array_names():
            array = np.array(getattr(self, name), np.int64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "measure_number", tuple(str(number) for number in self.measure_number))
        self._check_measures()
        self._check_notes()

    @property
    def num_notes(self) -> int:
        return int(self.onset.size)

    @property
    def num_measures(self) -> int:
        return int(self.measure_start.size)

    @property
    def num_ticks(self) -> int:
        """Where the last measure ends."""
        return int(self.measure_start[-1] + self.measure_length[-1])

    @property
    def octave(self) -> Ints:
        """The written octaves [N]: B sharp 3 sounds as C 4."""
        return pitch.octave_of(self.midi, self.fifths)

    @property
    def measure(self) -> Ints:
        """The index [N] of the measure in which each note begins."""
        return self.measure_of(self.onset)

    @property
    def offset(self) -> Ints:
        """Where each note ends: ticks [N]."""
        return self.onset + self.duration

    def measure_of(self, ticks: Ints) -> Ints:
        """The index of the measure at each tick; the last measure's from its start on."""
        return np.maximum(np.searchsorted(self.measure_start, ticks, side="right") - 1, 0)

    def beat_position(self, ticks: Ints) -> Ints:
        """Ticks since the downbeat of the measure, or since where a pickup's downbeat would be."""
        measure = self.measure_of(ticks)
        return np.asarray(ticks - self.measure_start[measure] + self.measure_offset[measure])

    def beat_length(self, measures: Ints) -> Ints:
        """Ticks of a beat [..] in these measures: three parts of the signature in 6/8, 9/8 and their like, one else."""
        compound = (self.numerator[measures] % 3 == 0) & (self.numerator[measures] > 3)
        return np.asarray(TICKS_PER_WHOLE // self.denominator[measures] * np.where(compound, 3, 1))

    def metrical_level(self, ticks: Ints) -> Ints:
        """`DOWNBEAT`, `BEAT`, `SUB_BEAT` (its half, or its third in compound metre) or `BELOW` at each tick."""
        measure = self.measure_of(ticks)
        position, beat = self.beat_position(ticks), self.beat_length(measure)
        compound = beat > TICKS_PER_WHOLE // self.denominator[measure]
        sub_beat = beat // np.where(compound, 3, 2)
        levels = np.where(position % beat == 0, BEAT, np.where(position % sub_beat == 0, SUB_BEAT, BELOW))
        return np.where(position == 0, DOWNBEAT, levels)

    def transposed(self, fifths: int) -> Score:
        """The piece moved by the least interval of so many fifths.

        Raises:
            InvalidInput: When a pitch or a key signature would leave its range.
        """
        return replace(
            self,
            midi=self.midi + pitch.transposition_semitones(fifths),
            fifths=self.fifths + fifths,
            key_signature=self.key_signature + fifths,
        )

    def measures(self, first: int, last: int) -> Score:
        """Measures `first` to before `last` with the notes that begin in them, in ticks from the start of `first`."""
        begin = int(self.measure_start[first])
        end = int(self.measure_start[last]) if last < self.num_measures else np.iinfo(np.int64).max
        notes = slice(*np.searchsorted(self.onset, [begin, end]))
        kept = {name: getattr(self, name)[notes] for name in NOTE_ARRAYS}
        kept |= {name: getattr(self, name)[first:last] for name in MEASURE_ARRAYS}
        kept["onset"] = kept["onset"] - begin
        kept["measure_start"] = kept["measure_start"] - begin
        return Score(**kept, measure_number=self.measure_number[first:last])

    def _check_measures(self) -> None:
        count = self.num_measures
        if not 1 <= count <= MAX_MEASURES:
            raise InvalidInput(
                "score.measure_start",
                f"expected 1 to {MAX_MEASURES} measures, got {count}. "
                + ("Send at least one measure." if count < 1 else "Split the piece."),
            )
        _check_sizes({name: getattr(self, name) for name in MEASURE_ARRAYS} | {"measure_number": self.measure_number})
        ends = self.measure_start + self.measure_length
        expected = np.concatenate([[0], ends[:-1]])
        power_of_2 = (self.denominator > 0) & (self.denominator & (self.denominator - 1) == 0)
        _check("measure_length", self.measure_length, self.measure_length > 0, "above 0 ticks")
        _check("measure_start", self.measure_start, self.measure_start == expected, "the end of the measure before")
        _check("measure_start", self.measure_start, ends <= MAX_TICKS, f"an end by tick {MAX_TICKS}")
        _check("measure_offset", self.measure_offset, self.measure_offset >= 0, "0 or more ticks")
        _check("numerator", self.numerator, _within(self.numerator, 1, MAX_NUMERATOR), f"1 to {MAX_NUMERATOR}")
        _check("denominator", self.denominator, power_of_2 & (self.denominator <= MAX_DENOMINATOR), "1, 2, 4, ... 128")
        _check("key_signature", self.key_signature, _within(self.key_signature, -14, 14), "-14 to 14")

    def _check_notes(self) -> None:
        if self.num_notes > MAX_NOTES:
            raise InvalidInput(
                "score.onset", f"expected up to {MAX_NOTES} notes, got {self.num_notes}. Split the piece."
            )
        _check_sizes({name: getattr(self, name) for name in NOTE_ARRAYS})
        in_order = np.ones(self.num_notes, bool)
        later = np.diff(self.onset)
        in_order[1:] = (later > 0) | ((later == 0) & (np.diff(self.midi) >= 0))
        same_class = pitch.pitch_class(self.fifths) == self.midi % 12
        _check("onset", self.onset, _within(self.onset, 0, self.num_ticks - 1), "a tick within a measure")
        _check("onset", self.onset, in_order, "notes in order of onset, then of pitch")
        _check("duration", self.duration, _within(self.duration, 1, MAX_TICKS), f"1 to {MAX_TICKS} ticks")
        _check("midi", self.midi, _within(self.midi, 0, 127), "0 to 127")
        _check("fifths", self.fifths, _within(self.fifths, pitch.MIN_FIFTHS, pitch.MAX_FIFTHS), "-15 to 19")
        _check("fifths", self.fifths, same_class, "a spelling of the note's pitch class")
        _check("staff", self.staff, _within(self.staff, 0, 255), "0 to 255")
        _check("voice", self.voice, _within(self.voice, 0, 255), "0 to 255")


NOTE_ARRAYS = ("onset", "duration", "midi", "fifths", "staff", "voice")
MEASURE_ARRAYS = (
    "measure_start", "measure_length", "measure_offset", "numerator", "denominator", "key_signature",
)  # fmt: skip


def array_names() -> Iterator[str]:
    """The fields of `Score` that are arrays."""
    return (field.name for field in fields(Score) if field.name != "measure_number")


def in_order(onset: Ints, midi: Ints) -> Ints:
    """The order [N] of notes that a `Score` asks for."""
    return np.lexsort((midi, onset))


def _within(values: Ints, low: int, high: int) -> NDArray[np.bool_]:
    return (values >= low) & (values <= high)


def _check(name: str, values: Ints, holds: NDArray[np.bool_], expected: str) -> None:
    if not holds.all():
        place = int(np.argmin(holds))
        raise InvalidInput(
            f"score.{name}[{place}]", f"expected {expected}, got {values[place]}. Correct the score and send it again."
        )


def _check_sizes(arrays: dict[str, Ints | tuple[str, ...]]) -> None:
    sizes = {name: np.shape(array) for name, array in arrays.items()}
    first = next(iter(sizes))
    for name, shape in sizes.items():
        if shape != sizes[first] or len(shape) != 1:
            raise InvalidInput(
                f"score.{name}", f"expected the shape of {first}, {sizes[first]}, got {shape}. Give one value for each."
            )
