"""`EngravedScore`: a piece as it is written, with every place exact.

Places and lengths are `Fraction`s of quarter notes from the begin of the first bar. Knows neither performances nor
files; `notation.py` cuts its notes into symbols, `musicxml.py` writes them down.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from stretto_shared.errors import InvalidInput

UPPER_STAFF, LOWER_STAFF = 1, 2
MAX_VOICES = 2
_LETTERS = "FCGDAEB"


@dataclass(frozen=True)
class EngravedNote:
    """One note, however many symbols it takes to write it.

    Args:
        onset: Quarter notes from the begin of the first bar.
        duration: Quarter notes, above 0.
        pitch_midi: 0 to 127.
        spelling_fifths: The pitch on the line of fifths, -15 to 19.
        velocity: 1 to 127.
        staff: `UPPER_STAFF` or `LOWER_STAFF`.
        voice: 1, or 2 for the lower of two on a staff.
        source: The index of the performed note that it was.
    """

    onset: Fraction
    duration: Fraction
    pitch_midi: int
    spelling_fifths: int
    velocity: int
    staff: int
    voice: int
    source: int

    @property
    def end(self) -> Fraction:
        return self.onset + self.duration

    @property
    def step(self) -> str:
        """The letter, A to G."""
        return _LETTERS[(self.spelling_fifths + 1) % 7]

    @property
    def alter(self) -> int:
        """Sharps, or flats below 0."""
        return (self.spelling_fifths + 1) // 7

    @property
    def octave(self) -> int:
        """Of the letter, where middle C begins octave 4; B sharp belongs to the octave below."""
        return (self.pitch_midi - self.alter) // 12 - 1


@dataclass(frozen=True)
class Bar:
    """One bar.

    Args:
        onset: Quarter notes from the begin of the first bar.
        num_beats: Its length; fewer than the signature's in a pickup.
        beat: The length of one beat in quarter notes: 3/2 in 6/8.
        first_beat: The index of its first beat in the performance; below 0 before all beats.
        numerator: Of its time signature.
        denominator: Of its time signature.
        signature_fifths: Sharps of its key signature, or flats below 0.
        is_minor: The mode of its key.
    """

    onset: Fraction
    num_beats: int
    beat: Fraction
    first_beat: int
    numerator: int
    denominator: int
    signature_fifths: int = 0
    is_minor: bool = False

    @property
    def duration(self) -> Fraction:
        return self.num_beats * self.beat

    @property
    def end(self) -> Fraction:
        return self.onset + self.duration

    @property
    def is_whole(self) -> bool:
        """Whether it is as long as its time signature says."""
        return self.duration == Fraction(4 * self.numerator, self.denominator)

    @property
    def tonic_fifths(self) -> int:
        return self.signature_fifths + (3 if self.is_minor else 0)


@dataclass(frozen=True)
class EngravedScore:
    """A piece for a grand staff.

    Invariant: bars follow each other without gaps from 0; notes are in order of onset, staff, voice and pitch, and lie
    within the bars; in one voice of a staff, notes begin together and end together, or follow each other.
    `tests/services/transcriber/test_engraving_score.py` holds it to that.

    Args:
        bars: At least one.
        notes: There may be none.
        tempo_bpm: Quarter notes a minute, as it was played in the middle.

    Raises:
        InvalidInput: If the bars or the notes break the invariant, or the tempo is not above 0.
    """

    bars: tuple[Bar, ...]
    notes: tuple[EngravedNote, ...]
    tempo_bpm: float

    def __post_init__(self) -> None:
        if not self.bars:
            raise InvalidInput("engraved.bars", "expected at least one bar, got 0. Give an empty piece an empty bar.")
        if not self.tempo_bpm > 0:
            raise InvalidInput(
                "engraved.tempo_bpm", f"expected above 0 quarter notes a minute, got {self.tempo_bpm}. Take 120."
            )
        at = Fraction(0)
        for index, bar in enumerate(self.bars):
            if bar.onset != at or bar.num_beats < 1:
                raise InvalidInput(f"engraved.bars[{index}]", f"expected a bar at {at}, got {bar}. Leave no gap.")
            at = bar.end
        self._check_notes(at)

    def _check_notes(self, end: Fraction) -> None:
        last: dict[tuple[int, int], EngravedNote] = {}
        order = (Fraction(-1), 0, 0, 0)
        for index, note in enumerate(self.notes):
            field = f"engraved.notes[{index}]"
            place = (note.onset, note.staff, note.voice, note.pitch_midi)
            if place <= order:
                raise InvalidInput(field, f"expected a place above {order}, got {place}. Sort the notes, each once.")
            if note.onset < 0 or note.duration <= 0 or note.end > end:
                raise InvalidInput(field, f"expected a note within 0 to {end}, got {note}. Add bars.")
            before = last.get((note.staff, note.voice))
            if before and before.end > note.onset and (before.onset, before.end) != (note.onset, note.end):
                raise InvalidInput(field, f"expected an onset from {before.end} on, got {note}. Use two voices.")
            last[note.staff, note.voice] = note
            order = place
