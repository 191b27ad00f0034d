"""A `Score` as MusicXML, plainly: for scores that came as MIDI, Humdrum or columns, and so have no page of their own.

A part for each staff; in it as many voices as notes overlap, filled from the first on. Notes are cut at bar lines and
tied. Note values are named where one, with up to two dots, or a triplet's has the length. No beams, no slurs, no page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from stretto_harmony.scores.pitch import LETTERS
from stretto_harmony.scores.score import TICKS_PER_QUARTER, TICKS_PER_WHOLE, Score

DIVISIONS = TICKS_PER_QUARTER
MIDDLE_C = 60
_NAMES = ("whole", "half", "quarter", "eighth", "16th", "32nd", "64th")


@dataclass(frozen=True, order=True)
class _Piece:
    """The part of a note that lies in one measure, in ticks from the start of the score."""

    start: int
    end: int
    note: int
    from_before: bool
    goes_on: bool


def plain_score(score: Score, title: str = "") -> ElementTree.Element:
    """The root of a score-partwise."""
    root = ElementTree.Element("score-partwise", version="4.0")
    if title:
        ElementTree.SubElement(ElementTree.SubElement(root, "work"), "work-title").text = title
    listed = ElementTree.SubElement(root, "part-list")
    for staff in range(int(score.staff.max(initial=0)) + 1):
        name = f"P{staff + 1}"
        ElementTree.SubElement(ElementTree.SubElement(listed, "score-part", id=name), "part-name").text = ""
        _add_part(ElementTree.SubElement(root, "part", id=name), score, staff)
    return root


def _add_part(part: ElementTree.Element, score: Score, staff: int) -> None:
    notes = (score.staff == staff).nonzero()[0].tolist()
    pieces, told = _pieces(score, notes), None
    clef = ("F", 4) if notes and score.midi[notes].mean() < MIDDLE_C else ("G", 2)
    for index in range(score.num_measures):
        measure = ElementTree.SubElement(part, "measure", number=score.measure_number[index])
        if score.measure_offset[index]:
            measure.set("implicit", "yes")
        signature = tuple(int(each[index]) for each in (score.key_signature, score.numerator, score.denominator))
        if signature != told:
            _add_attributes(measure, signature, clef if told is None else None)
            told = signature
        start = int(score.measure_start[index])
        _add_voices(measure, score, pieces[index], start, start + int(score.measure_length[index]))


def _pieces(score: Score, notes: Sequence[int]) -> dict[int, list[_Piece]]:
    """The parts of notes by measure; what outlasts the last measure is left out."""
    found: dict[int, list[_Piece]] = defaultdict(list)
    for note in notes:
        onset, measure = int(score.onset[note]), int(score.measure[note])
        end = min(onset + int(score.duration[note]), score.num_ticks)
        at = onset
        while at < end:
            bar = int(score.measure_start[measure] + score.measure_length[measure])
            found[measure].append(_Piece(at, min(end, bar), note, at > onset, end > bar))
            at, measure = bar, measure + 1
    return found


def _add_attributes(measure: ElementTree.Element, signature: tuple[int, ...], clef: tuple[str, int] | None) -> None:
    fifths, numerator, denominator = signature
    attributes = ElementTree.SubElement(measure, "attributes")
    if clef is not None:
        ElementTree.SubElement(attributes, "divisions").text = str(DIVISIONS)
    ElementTree.SubElement(ElementTree.SubElement(attributes, "key"), "fifths").text = str(fifths)
    time = ElementTree.SubElement(attributes, "time")
    ElementTree.SubElement(time, "beats").text = str(numerator)
    ElementTree.SubElement(time, "beat-type").text = str(denominator)
    if clef is not None:
        element = ElementTree.SubElement(attributes, "clef")
        ElementTree.SubElement(element, "sign").text = clef[0]
        ElementTree.SubElement(element, "line").text = str(clef[1])


def _add_voices(measure: ElementTree.Element, score: Score, pieces: list[_Piece], start: int, end: int) -> None:
    for number, chords in enumerate(_voices(pieces) or [[]], 1):
        if number > 1:
            ElementTree.SubElement(ElementTree.SubElement(measure, "backup"), "duration").text = str(end - start)
        at = start
        for chord in chords:
            _add_silence(measure, chord[0].start - at, number)
            for place, piece in enumerate(chord):
                _add_note(measure, score, piece, number, is_chord=place > 0)
            at = chord[0].end
        _add_silence(measure, end - at, number)


def _voices(pieces: list[_Piece]) -> list[list[list[_Piece]]]:
    """Chords, which begin and end together, in voices without overlaps."""
    chords: dict[tuple[int, int], list[_Piece]] = defaultdict(list)
    for piece in sorted(pieces):
        chords[piece.start, piece.end].append(piece)
    voices: list[list[list[_Piece]]] = []
    for (start, _), chord in sorted(chords.items(), key=lambda each: (each[0][0], -each[0][1])):
        free = next((voice for voice in voices if voice[-1][0].end <= start), None)
        if free is None:
            voices.append([chord])
        else:
            free.append(chord)
    return voices


def _add_silence(measure: ElementTree.Element, ticks: int, voice: int) -> None:
    """A rest in the first voice, a gap in the others."""
    if not ticks:
        return
    if voice > 1:
        ElementTree.SubElement(ElementTree.SubElement(measure, "forward"), "duration").text = str(ticks)
        return
    rest = ElementTree.SubElement(measure, "note")
    ElementTree.SubElement(rest, "rest")
    ElementTree.SubElement(rest, "duration").text = str(ticks)
    ElementTree.SubElement(rest, "voice").text = str(voice)
    _add_value(rest, ticks)


def _add_note(measure: ElementTree.Element, score: Score, piece: _Piece, voice: int, *, is_chord: bool) -> None:
    note = ElementTree.SubElement(measure, "note")
    if is_chord:
        ElementTree.SubElement(note, "chord")
    accidentals, letter = divmod(int(score.fifths[piece.note]) + 1, 7)
    pitch = ElementTree.SubElement(note, "pitch")
    ElementTree.SubElement(pitch, "step").text = LETTERS[letter]
    if accidentals:
        ElementTree.SubElement(pitch, "alter").text = str(accidentals)
    ElementTree.SubElement(pitch, "octave").text = str((int(score.midi[piece.note]) - accidentals) // 12 - 1)
    ElementTree.SubElement(note, "duration").text = str(piece.end - piece.start)
    ties = [kind for kind, is_so in (("stop", piece.from_before), ("start", piece.goes_on)) if is_so]
    for kind in ties:
        ElementTree.SubElement(note, "tie", type=kind)
    ElementTree.SubElement(note, "voice").text = str(voice)
    _add_value(note, piece.end - piece.start)
    if ties:
        notations = ElementTree.SubElement(note, "notations")
        for kind in ties:
            ElementTree.SubElement(notations, "tied", type=kind)


def _add_value(note: ElementTree.Element, ticks: int) -> None:
    for name, dots, is_triplet, length in _VALUES:
        if length == ticks:
            ElementTree.SubElement(note, "type").text = name
            for _ in range(dots):
                ElementTree.SubElement(note, "dot")
            if is_triplet:
                change = ElementTree.SubElement(note, "time-modification")
                ElementTree.SubElement(change, "actual-notes").text = "3"
                ElementTree.SubElement(change, "normal-notes").text = "2"
            return


def _note_values() -> Iterator[tuple[str, int, bool, int]]:
    """Names of note values, their dots, whether they are of a triplet, and their ticks."""
    for power, name in enumerate(_NAMES):
        length = TICKS_PER_WHOLE >> power
        for dots in range(3):
            yield name, dots, False, length + sum(length >> dot for dot in range(1, dots + 1))
        yield name, 0, True, length * 2 // 3


_VALUES = tuple(_note_values())
