"""Notes of a bar as symbols: cut at beats, tied, in tuplets, with rests between.

Every beat of a voice is plain, where halves and their halves write it, or else it is a tuplet, of a part of the beat if
a part will do. Symbols do not cross into or out of tuplets, and plain ones are cut where a reader looks for the beat.

Legend: all times are quarter notes from the begin of the bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from stretto_transcriber.models.engraving.engraved import Bar, EngravedNote

SHORTEST = Fraction(1, 64)
TYPES = {
    Fraction(4): "whole", Fraction(2): "half", Fraction(1): "quarter", Fraction(1, 2): "eighth", Fraction(1, 4): "16th",
    Fraction(1, 8): "32nd", Fraction(1, 16): "64th", Fraction(1, 32): "128th", Fraction(1, 64): "256th",
    Fraction(8): "breve",
}  # fmt: skip
NAMES: dict[Fraction, tuple[str, int]] = {
    length * factor: (name, dots)
    for length, name in TYPES.items()
    for dots, factor in enumerate((Fraction(1), Fraction(3, 2)))
}
"""Type and dots of every length that one plain symbol has."""


@dataclass(frozen=True)
class Tuplet:
    """`actual` notes in the time of `normal`; where it begins and ends."""

    actual: int
    normal: int
    is_start: bool = False
    is_stop: bool = False


@dataclass(frozen=True)
class Symbol:
    """A chord, or a rest where it has no notes.

    Args:
        onset: From the begin of the bar.
        duration: As it sounds.
        type: Its name, such as `quarter`.
        dots: Augmentation dots.
        notes: What sounds.
        tied_back: Whether it goes on from the symbol before.
        tied_on: Whether it goes on in the next.
        tuplet: The tuplet that it belongs to.
    """

    onset: Fraction
    duration: Fraction
    type: str
    dots: int
    notes: tuple[EngravedNote, ...] = ()
    tied_back: bool = False
    tied_on: bool = False
    tuplet: Tuplet | None = None


@dataclass(frozen=True)
class _Span:
    start: Fraction
    end: Fraction
    notes: tuple[EngravedNote, ...] = ()


def symbols_of(bar: Bar, notes: Sequence[EngravedNote]) -> list[Symbol]:
    """The symbols of one voice in a bar, without gaps; `notes` are those of the voice that sound in it."""
    spans = list(_spans(bar, notes))
    edges = {edge for span in spans for edge in (span.start, span.end)}
    regions = []
    for index in range(bar.num_beats):
        regions += list(_regions(bar.beat * index, bar.beat, edges))
    symbols: list[Symbol] = []
    for start, end, odd in _joined(regions):
        pieces = [piece for span in spans if (piece := _part(span, start, end))]
        written = [symbol for piece in pieces for symbol in _written(bar, piece, odd)]
        symbols += _with_marks(written, odd)
    return [_tied(symbol, bar) for symbol in symbols]


def _spans(bar: Bar, notes: Sequence[EngravedNote]) -> Iterator[_Span]:
    """Chords and the silences between them, from the bar's begin to its end."""
    at = Fraction(0)
    chords: dict[tuple[Fraction, Fraction], list[EngravedNote]] = {}
    for note in notes:
        start, end = max(note.onset - bar.onset, Fraction(0)), min(note.end - bar.onset, bar.duration)
        chords.setdefault((start, end), []).append(note)
    for (start, end), chord in sorted(chords.items()):
        if start > at:
            yield _Span(at, start)
        yield _Span(start, end, tuple(chord))
        at = end
    if at < bar.duration:
        yield _Span(at, bar.duration)


def _regions(start: Fraction, length: Fraction, edges: set[Fraction]) -> Iterator[tuple[Fraction, Fraction, int]]:
    """The smallest parts of a beat that need a tuplet each, and the plain ones: begin, end, odd division or 1."""
    end = start + length
    inside = [edge for edge in edges if start < edge < end]
    odd = _odd_part([edge.denominator for edge in inside])
    parts = 3 if length.numerator == 3 else 2
    cuts = [start + length * index / parts for index in range(1, parts)]
    if odd > 1 and all(cut in edges for cut in cuts):
        for index in range(parts):
            yield from _regions(start + length * index / parts, length / parts, edges)
    else:
        yield start, end, odd


def _odd_part(denominators: Sequence[int]) -> int:
    number = lcm(*denominators) if denominators else 1
    while number % 2 == 0:
        number //= 2
    return number


def _joined(regions: Sequence[tuple[Fraction, Fraction, int]]) -> Iterator[tuple[Fraction, Fraction, int]]:
    """Neighbouring plain regions as one."""
    start, end, odd = regions[0]
    for next_start, next_end, next_odd in regions[1:]:
        if odd == next_odd == 1:
            end = next_end
        else:
            yield start, end, odd
            start, end, odd = next_start, next_end, next_odd
    yield start, end, odd


def _part(span: _Span, start: Fraction, end: Fraction) -> _Span | None:
    start, end = max(span.start, start), min(span.end, end)
    return _Span(start, end, span.notes) if start < end else None


def _written(bar: Bar, span: _Span, odd: int) -> Iterator[Symbol]:
    """The symbols of a span within one region."""
    normal = _normal(odd)
    length = span.end - span.start
    name = NAMES.get(length * odd / normal)
    if name and (odd > 1 or not _hides_beat(bar, span)):
        tuplet = Tuplet(odd, normal) if odd > 1 else None
        yield Symbol(span.start, length, *name, span.notes, tuplet=tuplet)
        return
    cut = _plain_cut(bar, span) if odd == 1 else _tuplet_cut(span, odd, normal)
    yield from _written(bar, _Span(span.start, cut, span.notes), odd)
    yield from _written(bar, _Span(cut, span.end, span.notes), odd)


def _normal(odd: int) -> int:
    """How many notes' time a tuplet of `odd` takes: the power of two below."""
    return 1 << (odd.bit_length() - 1)


def _hides_beat(bar: Bar, span: _Span) -> bool:
    """Whether a reader would miss a beat inside a plain symbol: one that begins off the beat and goes over it.

    A syncopation that lies evenly about the beat is read well, as in quarter notes after an eighth.
    """
    over = [line for line in _lines(bar) if span.start < line < span.end]
    if not over or (span.start % bar.beat == 0 and span.end % bar.beat == 0):
        return False
    if span.start % bar.beat == 0:
        return bar.beat.numerator == 3 or len(over) > 1 or (span.end - span.start) < bar.beat
    if bar.beat.numerator == 3 or len(over) > 1:
        return True
    return over[0] - span.start != span.end - over[0]


def _lines(bar: Bar) -> list[Fraction]:
    return [bar.beat * index for index in range(1, bar.num_beats)]


def _plain_cut(bar: Bar, span: _Span) -> Fraction:
    """Where to cut a plain span: at the last beat inside, or else at the strongest place inside the beat."""
    over = [line for line in _lines(bar) if span.start < line < span.end]
    if over:
        return over[0] if span.start % bar.beat else over[-1]
    step = bar.beat
    while True:
        step /= 3 if step.numerator == 3 else 2
        inside = (span.start // step + 1) * step
        if inside < span.end:
            return inside


def _tuplet_cut(span: _Span, odd: int, normal: int) -> Fraction:
    """The longest single symbol from the span's begin."""
    length = max(each for each in NAMES if each * normal / odd < span.end - span.start)
    return span.start + length * normal / odd


def _with_marks(symbols: list[Symbol], odd: int) -> list[Symbol]:
    if odd == 1 or not symbols:
        return symbols
    normal, last = _normal(odd), len(symbols) - 1
    return [
        Symbol(s.onset, s.duration, s.type, s.dots, s.notes, tuplet=Tuplet(odd, normal, index == 0, index == last))
        for index, s in enumerate(symbols)
    ]


def _tied(symbol: Symbol, bar: Bar) -> Symbol:
    if not symbol.notes:
        return symbol
    note, onset = symbol.notes[0], bar.onset + symbol.onset
    back, on = note.onset < onset, onset + symbol.duration < note.end
    return Symbol(
        symbol.onset, symbol.duration, symbol.type, symbol.dots, symbol.notes, back, on, symbol.tuplet
    )  # fmt: skip
