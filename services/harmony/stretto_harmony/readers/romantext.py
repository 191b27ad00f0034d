"""RomanText analyses (Tymoczko, Gotham, Cuthbert and Ariza 2019) laid over their score.

Measures are found by their printed numbers, a pickup as 0; `m12a` and `m12b` are the first and second measure with that
number, as endings have it, and beside an `m12a` so is `m12` the second. Beats are those of the score's time signature,
three parts in 3/8, 6/8 and their like, as music21 counts them. `m5-8 = m1-4` copies; variants (`m7var1`) and notes are
passed over. Each label lasts to the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from stretto_shared.errors import InvalidInput

from stretto_harmony.readers.building import fraction_of
from stretto_harmony.readers.dcml import ReadAnalysis
from stretto_harmony.scores.labels import Analysis, HarmonyLabel, Key, key_of_name
from stretto_harmony.scores.numerals import Chord, figure_of, parse
from stretto_harmony.scores.score import TICKS_PER_WHOLE, Score

MAX_BYTES = 4_000_000
MAX_EVENTS = 100_000
_MEASURE = re.compile(r"m(\d{1,5})([a-z]?)(var\w*)?:?(?=\s|\Z)\s*(.*)\Z", re.DOTALL)
_COPY = re.compile(r"m(\d{1,5})[a-z]?(?:-m?(\d{1,5})[a-z]?)?\s*=\s*m?(\d{1,5})[a-z]?(?:-m?(\d{1,5})[a-z]?)?")
_KEY = re.compile(r"([A-Ga-g](?:#{1,2}|b{1,2}|-{1,2})?)[:;](.*)\Z")
_BEAT = re.compile(r"b(\d{1,3}(?:\.\d{1,6})?)(?:\.(\d{1,6}))?[,;:.)?]?\Z")
_NO_CHORD = frozenset({"NC", "nc", "N.C.", "@none"})
_PUNCTUATION = frozenset({"||", "|", ":||", "||:", "|:", ":|", ":||:", "?", "...", "-"})


@dataclass(frozen=True)
class Event:
    """A figure, or a rest of the harmony, at a beat (from 1) of a measure, in the key that holds there."""

    measure: int
    part: str
    beat: Fraction
    figure: str
    key: Key | None


@dataclass
class _Reading:
    """Where the reader is: the key that holds, the events so far, and the events of each measure for copies."""

    key: Key | None = None
    events: list[Event] = field(default_factory=list)
    of_measure: dict[int, list[Event]] = field(default_factory=dict)
    num_copied: int = 0

    def add(self, event: Event) -> None:
        if len(self.events) >= MAX_EVENTS:
            raise InvalidInput("analysis", f"expected up to {MAX_EVENTS} labels, got more. Split the piece.")
        self.events.append(event)
        self.of_measure.setdefault(event.measure, []).append(event)


def read_events(text: str) -> list[Event]:
    """The events of an analysis, in the order of its lines.

    Raises:
        InvalidInput: When it holds no measure.
    """
    if len(text) > MAX_BYTES:
        raise InvalidInput("analysis", f"expected up to {MAX_BYTES} characters, got {len(text)}. Split the piece.")
    reading, num_measures = _Reading(), 0
    for line in text.splitlines():
        stripped = line.strip().lstrip("\ufeff")
        copy = _COPY.match(stripped)
        measure = _MEASURE.match(stripped)
        if copy is not None:
            num_measures += 1
            _copy(copy, reading)
        elif measure is not None and not measure[3]:
            num_measures += 1
            for event in _events(int(measure[1]), measure[2], measure[4], reading):
                reading.add(event)
    if not num_measures:
        raise InvalidInput(
            "analysis", "expected RomanText with lines such as 'm1 C: I', got no measure. Send RomanText."
        )
    return reading.events


def read_analysis(text: str, score: Score) -> ReadAnalysis:
    """The analysis of `score` that `text` writes.

    Raises:
        InvalidInput: When it holds no measure.
    """
    return lay_over(read_events(text), score, _printed_numbers(score))


def read_analysis_by_count(text: str, score: Score) -> ReadAnalysis:
    """As `read_analysis` for a score whose numbers are not to be trusted: its full bars are counted from 1.

    Raises:
        InvalidInput: When it holds no measure.
    """
    return lay_over(read_events(text), score, _counted_numbers(score))


def lay_over(events: list[Event], score: Score, places: dict[int, list[int]]) -> ReadAnalysis:
    """The labels of `events`, where `places` has the measures of the score under each number."""
    marks: list[tuple[int, Event]] = []
    left_out: list[str] = []
    with_first = {event.measure for event in events if event.part == "a"}
    for event in events:
        ordinal = ord(event.part) - ord("a") if event.part else int(event.measure in with_first)
        start = _tick(event, ordinal, score, places)
        if start is None:
            left_out.append(f"{event.measure}{event.part}: {event.figure}")
        else:
            marks.append((start, event))
    marks.sort(key=lambda mark: mark[0])
    labels = []
    for place, (start, event) in enumerate(marks):
        end = marks[place + 1][0] if place + 1 < len(marks) else score.num_ticks
        if event.figure in _NO_CHORD or end <= start:
            continue
        label = _label(start, end, event)
        if label is None:
            left_out.append(f"{event.measure}{event.part}: {event.figure}")
        else:
            labels.append(label)
    return ReadAnalysis(Analysis(tuple(labels)), tuple(left_out))


def _label(start: int, end: int, event: Event) -> HarmonyLabel | None:
    try:
        if event.key is None:
            return None
        chord: Chord = parse(event.figure, event.key)
        numeral = figure_of(event.key, chord.tonicised, chord.root, chord.quality, chord.inversion)
        return HarmonyLabel(start, end, event.key, numeral, chord.tonicised, chord.root, chord.quality, chord.inversion)
    except (ValueError, InvalidInput):
        return None


def _events(measure: int, part: str, text: str, reading: _Reading) -> Iterator[Event]:
    beat = Fraction(1)
    for token in text.split():
        at = _BEAT.match(token)
        key = _KEY.match(token)
        if at is not None:
            beat = _beat(at)
            continue
        if key is not None:
            reading.key = key_of_name(key[1])
            token = key[2]
        if token and token not in _PUNCTUATION:
            yield Event(measure, part, beat, token, reading.key)


def _beat(match: re.Match[str]) -> Fraction:
    """The beat; two decimals stand for thirds, sixths, eighths and ninths, and a third part for a share of those."""
    beat = fraction_of(match[1]).limit_denominator(12)
    if match[2]:
        beat += fraction_of(f"0.{match[2]}") / beat.denominator
    return beat


def _copy(match: re.Match[str], reading: _Reading) -> None:
    """Repeat the events of other measures, with the keys that they had there."""
    to_first, from_first = int(match[1]), int(match[3])
    to_last, from_last = int(match[2] or match[1]), int(match[4] or match[3])
    count = min(to_last - to_first, from_last - from_first) + 1
    reading.num_copied += max(count, 0)
    if reading.num_copied > MAX_EVENTS:
        raise InvalidInput("analysis", f"expected up to {MAX_EVENTS} copied measures, got more. Split the piece.")
    for number in range(count):
        for event in list(reading.of_measure.get(from_first + number, ())):
            reading.add(Event(to_first + number, "", event.beat, event.figure, event.key))
            reading.key = event.key


def _printed_numbers(score: Score) -> dict[int, list[int]]:
    places: dict[int, list[int]] = {}
    for index, number in enumerate(score.measure_number):
        digits = re.match(r"\d{1,6}", number)
        is_rest_of_bar = index > 0 and score.measure_offset[index] > 0
        if digits is not None and not is_rest_of_bar:
            places.setdefault(int(digits[0]), []).append(index)
    return places


def _counted_numbers(score: Score) -> dict[int, list[int]]:
    begins = [index for index in range(score.num_measures) if index == 0 or score.measure_offset[index] == 0]
    first = 0 if score.measure_offset[0] > 0 else 1
    return {first + place: [index] for place, index in enumerate(begins)}


def _tick(event: Event, ordinal: int, score: Score, places: dict[int, list[int]]) -> int | None:
    """Where the event is, in the measure of its number that `ordinal` counts; None when the score has no such place."""
    measures = places.get(event.measure)
    if not measures:
        return None
    index = measures[min(ordinal, len(measures) - 1)]
    beat_length = int(score.beat_length(np.array([index]))[0])
    unit = TICKS_PER_WHOLE // int(score.denominator[index])
    numerator = int(score.numerator[index])
    if numerator == 3 and score.denominator[index] >= 8:
        beat_length = 3 * unit
    if event.beat >= numerator * unit // beat_length + 1:
        beat_length = unit
    tick = round((event.beat - 1) * beat_length) - int(score.measure_offset[index])
    start = int(score.measure_start[index]) + max(0, tick)
    return start if start < score.num_ticks else None
