"""An engraved score as MusicXML, a grand staff, written by music21.

music21 is imported by the first call: it takes a moment, and who only wants notes does not wait for it. Its own
notation (rests, ties, tuplets, accidentals) is switched off, as `notation.py` has done it.
"""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from stretto_transcriber.models.engraving.engraved import LOWER_STAFF, UPPER_STAFF, Bar, EngravedNote, EngravedScore
from stretto_transcriber.models.engraving.notation import Symbol, symbols_of

BEAMS = {"eighth": 1, "16th": 2, "32nd": 3, "64th": 4, "128th": 5, "256th": 6}
_ENCODING_DATE = re.compile(rb"\s*<encoding-date>[^<]*</encoding-date>")
_SHARPS, _FLATS = "FCGDAEB", "BEADGCF"

_Voices = dict[tuple[int, int, int], list[EngravedNote]]


def to_musicxml(engraved: EngravedScore, title: str = "") -> bytes:
    """The score as a MusicXML file, UTF-8; the same score on another day is the same file."""
    layout, metadata, stream = (_music21(name) for name in ("layout", "metadata", "stream"))
    exporting = _music21("musicxml.m21ToXml")
    voices = _by_bar(engraved)
    parts = [_part(engraved, voices, staff) for staff in (UPPER_STAFF, LOWER_STAFF)]
    score = stream.Score()
    score.metadata = metadata.Metadata(title=title or None)
    for part in parts:
        score.insert(0, part)
    score.insert(0, layout.StaffGroup(parts, name="Piano", symbol="brace"))
    exporter = exporting.ScoreExporter(score, makeNotation=False)
    exporter.parse()
    content: bytes = exporter.asBytes()
    return _ENCODING_DATE.sub(b"", content)


def _music21(name: str) -> Any:
    """A module of music21, whose functions are typed in parts only."""
    return importlib.import_module(f"music21.{name}")


def _by_bar(engraved: EngravedScore) -> _Voices:
    """The notes that sound in each bar, by bar, staff and voice."""
    found: _Voices = defaultdict(list)
    bar = 0
    for note in engraved.notes:
        while engraved.bars[bar].end <= note.onset:
            bar += 1
        index = bar
        while index < len(engraved.bars) and engraved.bars[index].onset < note.end:
            found[index, note.staff, note.voice].append(note)
            index += 1
    return found


def _part(engraved: EngravedScore, voices: _Voices, staff: int) -> Any:
    clef, instrument, key, meter, stream, tempo = (
        _music21(name) for name in ("clef", "instrument", "key", "meter", "stream", "tempo")
    )

    part = stream.PartStaff(id=f"staff{staff}")
    piano = instrument.Piano()
    piano.partId, piano.instrumentId = f"P{staff}", f"P{staff}-I1"  # or they would be drawn anew each time
    part.insert(0, piano)
    last: Bar | None = None
    first_number = 0 if not engraved.bars[0].is_whole else 1
    for index, bar in enumerate(engraved.bars):
        measure = stream.Measure(number=index + first_number)
        if last is None:
            measure.insert(0, clef.TrebleClef() if staff == UPPER_STAFF else clef.BassClef())
            if staff == UPPER_STAFF:
                measure.insert(0, tempo.MetronomeMark(number=round(engraved.tempo_bpm)))
        if last is None or last.signature_fifths != bar.signature_fifths:
            measure.insert(0, key.KeySignature(bar.signature_fifths))
        if last is None or (last.numerator, last.denominator) != (bar.numerator, bar.denominator):
            measure.insert(0, meter.TimeSignature(f"{bar.numerator}/{bar.denominator}"))
        if not bar.is_whole:
            missing = Fraction(4 * bar.numerator, bar.denominator) - bar.duration
            measure.paddingLeft = max(missing, Fraction(0)) if index == 0 else 0.0
            measure.showNumber = stream.enums.ShowNumber.NEVER if index == 0 else stream.enums.ShowNumber.DEFAULT
        _fill(measure, bar, {number: voices.get((index, staff, number), []) for number in (1, 2)})
        part.append(measure)
        last = bar
    return part


def _fill(measure: Any, bar: Bar, voices: dict[int, list[EngravedNote]]) -> None:
    stream = _music21("stream")

    symbols = {number: symbols_of(bar, notes) for number, notes in voices.items() if notes or number == 1}
    streams = dict.fromkeys(symbols, measure)
    if len(symbols) > 1:
        streams = {number: stream.Voice(id=str(number)) for number in symbols}
        for each in streams.values():
            measure.insert(0, each)
    accidentals = _Accidentals(bar.signature_fifths)
    beams = {number: _beams(bar, each) for number, each in symbols.items()}
    in_order = sorted(
        (symbol.onset, number, index) for number, each in symbols.items() for index, symbol in enumerate(each)
    )
    for onset, number, index in in_order:
        symbol = symbols[number][index]
        whole_bar = len(symbols[number]) == 1
        streams[number].insert(onset, _element(symbol, accidentals, beams[number][index], whole_bar))


def _element(symbol: Symbol, accidentals: _Accidentals, beams: Sequence[str], whole_bar: bool) -> Any:
    chord, note, tie = (_music21(name) for name in ("chord", "note", "tie"))

    if not symbol.notes:
        rest = note.Rest()
        rest.duration = _duration(symbol)
        if whole_bar:
            rest.fullMeasure = True
        return rest
    heads = [note.Note(accidentals.pitch(each, symbol.tied_back)) for each in symbol.notes]
    kind = {(False, True): "start", (True, True): "continue", (True, False): "stop"}.get(
        (symbol.tied_back, symbol.tied_on)
    )
    for head, each in zip(heads, symbol.notes):
        head.volume.velocity = each.velocity
        if kind:
            head.tie = tie.Tie(kind)
    element = heads[0] if len(heads) == 1 else chord.Chord(heads)
    element.duration = _duration(symbol)
    for beam in beams:
        element.beams.append(*beam.split()) if beam else None
    return element


def _duration(symbol: Symbol) -> Any:
    duration = _music21("duration")

    made = duration.Duration(type=symbol.type, dots=symbol.dots)
    if symbol.tuplet:
        tuplet = duration.Tuplet(symbol.tuplet.actual, symbol.tuplet.normal)
        if symbol.tuplet.is_start or symbol.tuplet.is_stop:
            both = symbol.tuplet.is_start and symbol.tuplet.is_stop
            tuplet.type = "startStop" if both else "start" if symbol.tuplet.is_start else "stop"
        tuplet.setDurationType(symbol.type)
        made.appendTuplet(tuplet)
    return made


class _Accidentals:
    """Which accidentals of a bar must be shown: those that neither the key nor the bar has set yet."""

    def __init__(self, signature_fifths: int) -> None:
        altered = _SHARPS[:signature_fifths] if signature_fifths > 0 else _FLATS[: max(0, -signature_fifths)]
        self._of_key = dict.fromkeys(altered, 1 if signature_fifths > 0 else -1)
        self._set: dict[tuple[str, int], int] = {}

    def pitch(self, note: EngravedNote, tied_back: bool) -> Any:
        pitch = _music21("pitch")

        made = pitch.Pitch(step=note.step, octave=note.octave)
        place = (note.step, note.octave)
        is_new = self._set.get(place, self._of_key.get(note.step, 0)) != note.alter and not tied_back
        if note.alter or is_new:
            made.accidental = pitch.Accidental(note.alter)
            made.accidental.displayStatus = is_new
        if not tied_back:
            self._set[place] = note.alter
        return made


def _beams(bar: Bar, symbols: Sequence[Symbol]) -> list[list[str]]:
    """For each symbol, the kind of every beam that it has: start, continue, stop, partial left or partial right."""
    levels = [BEAMS.get(symbol.type, 0) if symbol.notes else 0 for symbol in symbols]
    beat = [int(symbol.onset / bar.beat) for symbol in symbols]

    def joined(left: int, right: int, level: int) -> bool:
        inside = 0 <= left and right < len(symbols)
        return inside and beat[left] == beat[right] and min(levels[left], levels[right]) >= level

    kinds = []
    for index, own in enumerate(levels):
        row = []
        for level in range(1, own + 1):
            back, on = joined(index - 1, index, level), joined(index, index + 1, level)
            if back or on:
                row.append("continue" if back and on else "stop" if back else "start")
            elif joined(index - 1, index, 1):
                row.append("partial left")
            elif joined(index, index + 1, 1):
                row.append("partial right")
        kinds.append(row)
    return kinds
