"""BPS-FH's note lists as written scores (Chen and Su 2018): `notes.csv` and the tables of beats and downbeats.

The lists unfold repeats; here each bar stands once, as its first pass has it. They count endings through; here the
bars that a repeat passes over, its first ending, get the numbers of the second with an `a`. A note is onset, MIDI
pitch, morphetic pitch (60 is C4, seven to the octave), duration in quarter notes, staff and bar.
"""

from __future__ import annotations

import collections
import zipfile
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

from stretto_harmony.readers.building import Note, ScoreBuilder, fraction_of, joined, ticks_of
from stretto_harmony.scores import pitch
from stretto_harmony.scores.score import TICKS_PER_WHOLE, Score

_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
MAX_ENDING_BARS = 8
_METRES = {1.0: (1, 4), 2.0: (1, 2), 0.5: (1, 8), 1.5: (3, 8), 0.75: (3, 16)}
"""What the signature gains by a beat of so many quarter notes."""


def read_score(folder: Path) -> Score:
    """The written score of one sonata's folder."""
    downbeats = [fraction_of(row).limit_denominator(96) for row in _column(folder / "dBeats.xlsx")]
    beats = [fraction_of(row).limit_denominator(96) for row in _column(folder / "beats.xlsx")]
    lines = (folder / "notes.csv").read_text().splitlines()
    rows = [[fraction_of(cell).limit_denominator(96) for cell in line.split(",")] for line in lines if line.strip()]
    rows.sort(key=lambda row: row[0])
    first = min(rows[0][0], downbeats[0])
    starts = ([first] if first < downbeats[0] else []) + downbeats
    ends = [*starts[1:], starts[-1] + starts[-1] - starts[-2]]
    builder, notes = ScoreBuilder(), []
    steps = collections.Counter(later - before for before, later in zip(beats, beats[1:], strict=False))
    length_of_beat = steps.most_common(1)[0][0]
    numerator, denominator = _METRES[float(length_of_beat)]
    number_of = _numbers([int(row[5]) for row in rows])
    last_bar = -1
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        inside = [row for row in rows if start <= row[0] < end]
        bar = int(max((row[5] for row in inside), default=Fraction(last_bar + 1)))
        if bar <= last_bar:
            continue
        last_bar = bar
        notes += [_note(row, builder.num_ticks - ticks_of(start)) for row in inside]
        num_beats = round((end - start) / length_of_beat) if place or start in downbeats else 0
        _add_bar(builder, end - start, num_beats * numerator, denominator, number_of.get(bar, str(bar)))
    return builder.build(joined((note, False) for note in notes))


def _numbers(bars: list[int]) -> dict[int, str]:
    """The printed number of each bar that notes are in, given in the order of playing."""
    played = [bar for place, bar in enumerate(bars) if place == 0 or bars[place - 1] != bar]
    first_ending: set[int] = set()
    for place, bar in enumerate(played[1:], 1):
        last, again = played[place - 1], set(played[place:])
        ending = range(max(bar, last - MAX_ENDING_BARS) + 1, last + 1)
        num_again = sum(passed in again for passed in range(bar, last + 1))
        if bar < last - 1 and bar in played[:place] and num_again >= max(4, (last - bar) // 2):
            first_ending |= {passed for passed in ending if passed not in again}
    numbers, passed_over = {}, 0
    for bar in range(max(played) + 1):
        numbers[bar] = f"{bar - passed_over}a" if bar in first_ending else str(bar - passed_over)
        if bar in first_ending and bar + 1 not in first_ending:
            passed_over += sum(other <= bar for other in first_ending) - passed_over
    return numbers


def _add_bar(builder: ScoreBuilder, length: Fraction, numerator: int, denominator: int, number: str) -> None:
    ticks = ticks_of(length)
    nominal = numerator * TICKS_PER_WHOLE // denominator
    builder.add_measure(
        length=ticks,
        offset=max(0, nominal - ticks),
        numerator=max(1, numerator),
        denominator=denominator,
        key_signature=0,
        number=number,
    )


def _note(row: list[Fraction], shift: int) -> Note:
    onset, midi, morphetic, duration, staff, _ = row
    octave, step = divmod(int(morphetic) - 60, 7)
    natural = pitch.from_step("CDEFGAB"[step], 0)
    alteration = int(midi) - pitch.midi_of(natural, 4 + octave)
    return Note(
        onset=ticks_of(onset) + shift,
        duration=max(1, ticks_of(duration)),
        midi=int(midi),
        fifths=natural + 7 * alteration,
        staff=int(staff),
        voice=0,
    )


def _column(path: Path) -> list[str]:
    """The first column of a workbook's only sheet, without its empty cells."""
    with zipfile.ZipFile(path) as book:
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    cells = (row.find(f"{_SHEET}c") for row in sheet.iter(f"{_SHEET}row"))
    values = (cell.findtext(f"{_SHEET}v") for cell in cells if cell is not None)
    return [value for value in values if value]
