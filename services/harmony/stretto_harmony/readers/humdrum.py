"""Humdrum `**kern` as a written score.

Own reader: spines with their splits and joins, reciprocal durations with dots and rational values, chords, ties, time
and key signatures, bar numbers. Grace notes are left out, expansion lists (`*>[A,A,B]`) are not followed, and spines
of other kinds are passed over. The rightmost spine is the top staff. An unnumbered bar line in the middle of a bar,
as a repeat sets it, makes two measures of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache

from stretto_shared.errors import InvalidInput

from stretto_harmony.readers.building import Note, ScoreBuilder, joined, ticks_of
from stretto_harmony.scores import pitch
from stretto_harmony.scores.score import MAX_MEASURES, MAX_NOTES, TICKS_PER_WHOLE, Score

MAX_BYTES = 50_000_000
MAX_SPINES = 256
MAX_WRITTEN_NOTES = 2 * MAX_NOTES
"""Before ties are joined."""
_FIELD = "score"
_RECIPROCAL = re.compile(r"(\d{1,5})(?:%(\d{1,5}))?(\.{0,8})")
_PITCH = re.compile(r"(([a-gA-G])\2*)(#{1,3}|-{1,3}|n)?")
_METRE = re.compile(r"\*M(\d{1,3})/(\d{1,3})\Z")
_BAR = re.compile(r"=+(\d{1,6}[a-z]?)?")


@dataclass(frozen=True)
class _Spine:
    """One column: the number of the spine that it came from, its voice there, whether it is kern, and its last end."""

    number: int
    voice: int
    is_kern: bool
    end: Fraction = Fraction(0)


@dataclass
class _Bar:
    number: str
    start: Fraction
    numerator: int
    denominator: int
    key: int


@dataclass
class _Reading:
    """What is known up to the current line."""

    spines: list[_Spine] = field(default_factory=list)
    time: Fraction = Fraction(0)
    numerator: int = 4
    denominator: int = 4
    key: int = 0
    bars: list[_Bar] = field(default_factory=list)
    notes: list[tuple[Note, bool]] = field(default_factory=list)
    num_kern: int = 0

    def open_bar(self, number: str) -> None:
        """Begin a bar here; one that nothing was in takes the new number."""
        if self.bars and self.bars[-1].start == self.time:
            self.bars.pop()
        if len(self.bars) >= MAX_MEASURES:
            raise InvalidInput(_FIELD, f"expected up to {MAX_MEASURES} measures, got more. Split the piece.")
        self.bars.append(_Bar(number, self.time, self.numerator, self.denominator, self.key))


def read_score(data: bytes) -> Score:
    """The score in `data`.

    Raises:
        InvalidInput: When it is no Humdrum with a `**kern` spine, or breaks off in a way that cannot be read.
    """
    if len(data) > MAX_BYTES:
        raise InvalidInput(_FIELD, f"expected up to {MAX_BYTES} bytes of Humdrum, got {len(data)}. Split the piece.")
    reading = _Reading()
    for line_number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), 1):
        if line and not line.startswith("!"):
            _read_line(line, line_number, reading)
    if not reading.num_kern or not reading.time:
        raise InvalidInput(_FIELD, "expected Humdrum with a **kern spine and notes, got none. Export it as **kern.")
    return _build(reading)


def _read_line(line: str, number: int, reading: _Reading) -> None:
    tokens = line.split("\t")
    if any(token.startswith("**") for token in tokens) and not any(spine.is_kern for spine in reading.spines):
        reading.spines = [_Spine(place, 0, token == "**kern") for place, token in enumerate(tokens[:MAX_SPINES])]
        reading.num_kern = max(reading.num_kern, sum(spine.is_kern for spine in reading.spines))
        return
    if len(tokens) != len(reading.spines):
        raise InvalidInput(
            f"{_FIELD} line {number}",
            f"expected {len(reading.spines)} spines, got {len(tokens)}. Correct the file's spine paths.",
        )
    if tokens[0].startswith("*"):
        _interpret(tokens, number, reading)
    elif tokens[0].startswith("="):
        _read_bar_line(tokens, reading)
    else:
        _read_notes(tokens, number, reading)


def _interpret(tokens: list[str], number: int, reading: _Reading) -> None:
    for token, spine in zip(tokens, reading.spines, strict=True):
        metre = _METRE.match(token)
        if spine.is_kern and metre is not None and int(metre[1]) and int(metre[2]):
            reading.numerator, reading.denominator = int(metre[1]), int(metre[2])
        elif spine.is_kern and token.startswith("*k["):
            reading.key = token.count("#") - token.count("-")
    if reading.bars and reading.bars[-1].start == reading.time:
        bar = reading.bars[-1]
        bar.numerator, bar.denominator, bar.key = reading.numerator, reading.denominator, reading.key
    reading.spines = list(_follow(tokens, number, reading.spines))


def _follow(tokens: list[str], number: int, spines: list[_Spine]) -> Iterator[_Spine]:
    """The spines after a line of interpretations: split by `*^`, joined by `*v`, ended by `*-`, exchanged by `*x`."""
    order = list(spines)
    crossed = [place for place, token in enumerate(tokens) if token == "*x"]
    for left, right in zip(crossed[::2], crossed[1::2], strict=False):
        order[left], order[right] = order[right], order[left]
    if len(spines) + tokens.count("*^") > MAX_SPINES:
        raise InvalidInput(f"{_FIELD} line {number}", f"expected up to {MAX_SPINES} spines, got more. Split the piece.")
    joining: _Spine | None = None
    for token, spine in zip(tokens, order, strict=True):
        if token == "*v":
            if joining is not None and joining.number == spine.number:
                joining = replace(joining, end=max(joining.end, spine.end))
                continue
            if joining is not None:
                yield joining
            joining = spine
            continue
        if joining is not None:
            yield joining
            joining = None
        if token == "*^":
            yield spine
            yield replace(spine, voice=min(spine.voice + 1, 255))
        elif token == "*+":
            yield spine
            yield _Spine(spine.number, 0, is_kern=False)
        elif token != "*-":
            yield spine
    if joining is not None:
        yield joining


def _read_bar_line(tokens: list[str], reading: _Reading) -> None:
    match = _BAR.match(tokens[0])
    number = (match[1] if match else None) or ""
    reading.open_bar(number)


def _read_notes(tokens: list[str], number: int, reading: _Reading) -> None:
    if not reading.bars:
        reading.open_bar("0")
    for place, (token, spine) in enumerate(zip(tokens, reading.spines, strict=True)):
        if not spine.is_kern or token == "." or not token:
            continue
        duration = Fraction(0)
        for written in token.split(" "):
            if "q" in written or "Q" in written:
                continue
            length = _length(written, number)
            duration = duration or length
            _add_note(written, length or duration, spine, number, reading)
        if duration:
            reading.spines[place] = replace(spine, end=reading.time + duration)
    ends = [spine.end for spine in reading.spines if spine.is_kern and spine.end > reading.time]
    reading.time = min(ends, default=reading.time)


def _length(token: str, number: int) -> Fraction:
    """Quarter notes of a token's reciprocal; 0 where it has none."""
    match = _RECIPROCAL.search(token)
    if match is None:
        return Fraction(0)
    if match[2] is not None and int(match[1]) == 0:
        raise InvalidInput(f"{_FIELD} line {number}", f"expected a duration, got {token[:20]!r}. Correct the token.")
    return _quarters(match[1], match[2], len(match[3]))


@lru_cache(maxsize=1024)
def _quarters(reciprocal: str, numerator: str | None, num_dots: int) -> Fraction:
    """`4` is a quarter note, `0` a breve, `00` two of them, and `3%2` two thirds of a whole note."""
    parts = int(reciprocal)
    if numerator is not None:
        whole = Fraction(int(numerator), parts)
    else:
        whole = Fraction(1, parts) if parts else Fraction(2 ** len(reciprocal))
    return 4 * whole * (2 - Fraction(1, 2**num_dots))


def _add_note(token: str, length: Fraction, spine: _Spine, number: int, reading: _Reading) -> None:
    match = _PITCH.search(token)
    if "r" in token or match is None or not length:
        return
    letters, accidental = match[1], match[3] or ""
    octave = 3 + len(letters) if letters[0].islower() else 4 - len(letters)
    fifths = pitch.from_step(letters[0].upper(), accidental.count("#") - accidental.count("-"))
    midi = pitch.midi_of(fifths, octave)
    if not 0 <= midi <= 127:
        raise InvalidInput(f"{_FIELD} line {number}", f"expected MIDI pitch 0 to 127, got {token[:20]!r}. Correct it.")
    onset, end = ticks_of(reading.time), ticks_of(reading.time + length)
    note = Note(onset, end - onset, midi, fifths, spine.number, spine.voice)
    if len(reading.notes) >= MAX_WRITTEN_NOTES:
        raise InvalidInput(_FIELD, f"expected up to {MAX_WRITTEN_NOTES} written notes, got more. Split the piece.")
    reading.notes.append((note, "_" in token or "]" in token))


def _build(reading: _Reading) -> Score:
    builder = ScoreBuilder()
    bars = [bar for bar in reading.bars if bar.start < reading.time]
    starts = [ticks_of(bar.start) for bar in bars] + [ticks_of(reading.time)]
    offset = 0
    for bar, start, end in zip(bars, starts, starts[1:], strict=False):
        nominal = bar.numerator * TICKS_PER_WHOLE // bar.denominator
        if bar.number or not 0 < offset < nominal:
            offset = 0
        builder.add_measure(
            length=end - start,
            offset=offset,
            numerator=bar.numerator,
            denominator=bar.denominator,
            key_signature=bar.key,
            number=bar.number,
        )
        offset += end - start
    staves = sorted({note.staff for note, _ in reading.notes}, reverse=True)
    top_down = {number: staff for staff, number in enumerate(staves)}
    notes = joined((replace(note, staff=top_down[note.staff]), is_tied) for note, is_tied in reading.notes)
    return builder.build(notes)
