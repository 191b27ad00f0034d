"""The tables of the DCML corpora: `notes` and `measures` as a score, `harmonies` as its analysis.

The format is ms3's (Hentschel et al. 2021): tab-separated, places in fractions of a whole note within `mc`, the
running number of a bar in the file. Measures stand as they are written: repeats are not unfolded, every ending is
there, and the parts of a bar that a repeat splits are measures of their own with the lacking front as their offset.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stretto_shared.errors import InvalidInput

from stretto_harmony.readers.building import Note, ScoreBuilder, fraction_of, joined, ticks_of
from stretto_harmony.scores.labels import Analysis, HarmonyLabel, Key, key_of_name
from stretto_harmony.scores.numerals import Notation, applied_key, figure_of, parse
from stretto_harmony.scores.score import Ints, Score

_Row = dict[str, str]


@dataclass(frozen=True)
class ReadAnalysis:
    """An analysis, and what of it could not be read: the labels left out, each as `bar: label`."""

    analysis: Analysis
    left_out: tuple[str, ...]


def read_score(notes: str, measures: str) -> Score:
    """The score of a `notes` and a `measures` table.

    Raises:
        InvalidInput: When a table lacks a column or holds a value that none can be; the field names table and line.
    """
    builder = ScoreBuilder()
    starts: dict[str, int] = {}
    for line, row in _rows("measures", measures, ("mc", "mn", "timesig", "act_dur", "keysig")):
        starts[row["mc"]] = builder.num_ticks
        numerator, denominator = _signature(f"measures line {line}: timesig", row["timesig"])
        builder.add_measure(
            length=_ticks(f"measures line {line}: act_dur", row["act_dur"]),
            offset=_ticks(f"measures line {line}: mc_offset", row.get("mc_offset") or "0"),
            numerator=numerator,
            denominator=denominator,
            key_signature=_integer(f"measures line {line}: keysig", row["keysig"] or "0"),
            number=row["mn"],
        )
    wanted = ("mc", "mc_onset", "duration", "staff", "voice", "tied", "midi", "tpc")
    read = []
    for line, row in _rows("notes", notes, wanted):
        if row.get("gracenote"):
            continue
        read.append((_note(row, line, starts), row["tied"] in ("0", "-1", "0.0", "-1.0")))
    return builder.build(joined(read))


def read_analysis(harmonies: str, score: Score) -> ReadAnalysis:
    """The analysis of a `harmonies` table over its score; each label lasts to the next one.

    Raises:
        InvalidInput: When the table lacks a column or names a bar that the score has not.
    """
    marks: list[tuple[int, str, Key | None, str]] = []
    wanted = ("mc", "mn", "mc_onset", "chord", "globalkey", "localkey")
    for line, row in _rows("harmonies", harmonies, wanted):
        if not row["chord"] and row.get("label") != "@none" and row.get("numeral") != "@none":
            continue
        start = _place(f"harmonies line {line}: mc", row, score.measure_start)
        chord = "@none" if row.get("numeral") == "@none" else row["chord"]
        marks.append((start, chord, _local_key(row), row["mn"]))
    return _labels(marks, score.num_ticks)


def _labels(marks: list[tuple[int, str, Key | None, str]], num_ticks: int) -> ReadAnalysis:
    labels: list[HarmonyLabel] = []
    left_out: list[str] = []
    marks.sort(key=lambda mark: mark[0])
    ends = [mark[0] for mark in marks[1:]] + [num_ticks]
    for (start, figure, key, bar), end in zip(marks, ends, strict=True):
        if figure == "@none" or end <= start:
            continue
        try:
            if key is None:
                raise ValueError("no key")
            labels.append(_label(start, end, figure, key))
        except (ValueError, InvalidInput):
            left_out.append(f"{bar}: {figure}")
    return ReadAnalysis(Analysis(tuple(labels)), tuple(left_out))


def _label(start: int, end: int, figure: str, key: Key) -> HarmonyLabel:
    chord = parse(figure, key, Notation.DCML)
    numeral = figure_of(key, chord.tonicised, chord.root, chord.quality, chord.inversion)
    return HarmonyLabel(start, end, key, numeral, chord.tonicised, chord.root, chord.quality, chord.inversion)


def _local_key(row: _Row) -> Key | None:
    try:
        return applied_key(row["localkey"], key_of_name(row["globalkey"]), Notation.DCML)
    except ValueError:
        return None


def _note(row: _Row, line: int, starts: dict[str, int]) -> Note:
    where = f"notes line {line}"
    if row["mc"] not in starts:
        raise InvalidInput(
            f"{where}: mc", f"expected a bar of the measures table, got {row['mc']!r}. Send both tables."
        )
    return Note(
        onset=starts[row["mc"]] + _ticks(f"{where}: mc_onset", row["mc_onset"]),
        duration=_ticks(f"{where}: duration", row["duration"]),
        midi=_integer(f"{where}: midi", row["midi"]),
        fifths=_integer(f"{where}: tpc", row["tpc"]),
        staff=_integer(f"{where}: staff", row["staff"]) - 1,
        voice=max(0, _integer(f"{where}: voice", row["voice"]) - 1),
    )


def _place(field: str, row: _Row, starts: Ints) -> int:
    index = _integer(field, row["mc"]) - 1
    if not 0 <= index < len(starts):
        raise InvalidInput(
            field, f"expected a bar from 1 to {len(starts)}, got {row['mc']}. Send the score's own table."
        )
    return int(starts[index]) + _ticks(f"{field}_onset", row["mc_onset"])


def _rows(table: str, text: str, wanted: Sequence[str]) -> Iterator[tuple[int, _Row]]:
    """The rows with their line numbers; cells that a short line lacks are empty."""
    try:
        reader = csv.DictReader(text.splitlines(), delimiter="\t", restval="", restkey="")
        lacking = [column for column in wanted if column not in (reader.fieldnames or ())]
        if lacking:
            raise InvalidInput(table, f"expected the column {lacking[0]!r}, which is not there. Send ms3's table.")
        for row in reader:
            row.pop("", None)
            yield reader.line_num, row
    except csv.Error as error:
        raise InvalidInput(table, f"expected a tab-separated table, got one that cannot be read: {error}.") from error


def _ticks(field: str, text: str) -> int:
    """Ticks of a fraction of a whole note."""
    try:
        return ticks_of(4 * fraction_of(text))
    except ValueError as error:
        raise InvalidInput(field, f"expected a fraction of a whole note, got {text!r}. Correct the table.") from error


def _integer(field: str, text: str) -> int:
    try:
        return int(fraction_of(text))
    except ValueError as error:
        raise InvalidInput(field, f"expected a whole number, got {text!r}. Correct the table.") from error


def _signature(field: str, text: str) -> tuple[int, int]:
    numerator, _, denominator = text.partition("/")
    return _integer(field, numerator), _integer(field, denominator)
