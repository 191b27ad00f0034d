"""RomanText (Tymoczko, Gotham, Cuthbert and Ariza 2019): a line for each measure in which a chord begins.

Measures keep their printed numbers where these are whole numbers that go up one by one, as RomanText wants them; other
scores are counted anew, a pickup as measure 0. Silence is not written: a chord lasts until the next one.

music21 passes over the `M` of `VM7`, so a figure with a mark on its seventh or with an accidental is spelled as both
music21 and our own reader hear the chord, where there is such a spelling. On the raised seventh degree in minor there
is none for some seventh chords.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import groupby, pairwise

from stretto_harmony.scores.labels import HarmonyLabel, Key
from stretto_harmony.scores.numerals import parse
from stretto_harmony.scores.score import Score
from stretto_harmony.writers.written import WrittenAnalysis, numeral_of


def write_romantext(analysis: WrittenAnalysis) -> bytes:
    """The labels as RomanText, in UTF-8."""
    score = analysis.score
    header = {"Title": analysis.title, "Analyst": analysis.analyst}
    lines = [f"{name}: {' '.join(text.split())}" for name, text in header.items() if text.split()]
    lines += [""] if lines else []
    numbers, signature, key = measure_numbers(score), "", ""
    by_number = groupby(analysis.placed(), key=lambda placed: numbers[placed[0]])
    for number, group in by_number:
        placed = list(group)
        measure = placed[0][0]
        wanted = f"{score.numerator[measure]}/{score.denominator[measure]}"
        if wanted != signature:
            lines += ["", f"Time Signature: {wanted}", ""] if signature else [f"Time Signature: {wanted}", ""]
            signature = wanted
        words = [f"m{number}"]
        for _, beat, label in placed:
            words += [] if beat == 1 else [f"b{beat_text(beat)}"]
            if label.key.name != key:
                key = label.key.name
                words.append(f"{key}:")
            words.append(figure_for_all(label).replace("ø", "/o"))
        lines.append(" ".join(words))
    return ("\n".join(lines) + "\n").encode()


def measure_numbers(score: Score) -> list[int]:
    """A number for each measure; the two parts of a split one share theirs."""
    printed = score.measure_number
    if all(number.isascii() and number.isdigit() for number in printed):
        numbers = [int(number) for number in printed]
        follows_up = (
            after == before + 1 or (after == before and offset > 0)
            for (before, after), offset in zip(pairwise(numbers), score.measure_offset[1:])
        )
        if all(follows_up):
            return numbers
    first = 0 if score.measure_offset[0] > 0 else 1
    begins = [0, *(int(offset == 0) for offset in score.measure_offset[1:])]
    return [first + sum(begins[: index + 1]) for index in range(score.num_measures)]


def beat_text(beat: Fraction) -> str:
    """A beat as RomanText writes it: `2`, `1.5`, and `1.33` and `1.66` for thirds."""
    whole, part = divmod(beat, 1)
    if not part:
        return str(whole)
    if part.denominator == 3:
        return f"{whole}.{'33' if part.numerator == 1 else '66'}"
    return f"{float(beat):.4f}".rstrip("0")


def figure_for_all(label: HarmonyLabel) -> str:
    """The label's numeral as music21 and our own reader hear its chord, or the plain one where the two differ."""
    figure = numeral_of(label)
    if not _RISKY.search(figure.partition("/")[0]):
        return figure
    classes = frozenset(7 * tone % 12 for tone in label.tones)
    for candidate in _spellings(figure):
        if _own_classes(candidate, label.key) == classes == _music21_classes(candidate, label.key.name):
            return candidate
    return figure


_RISKY = re.compile(r"^[#b]|M|d|\[")
_MARKED = re.compile(r"(maj|M|d)(?=\d)")


def _spellings(figure: str) -> Iterator[str]:
    """The figure, and with its seventh marked in other ways."""
    yield figure
    head, slash, applied = figure.partition("/")
    bare = _MARKED.sub("", head).partition("[")[0]
    yield from (f"{bare}{mark}{slash}{applied}" for mark in ("", "[#7]", "[b7]"))


def _own_classes(figure: str, key: Key) -> frozenset[int]:
    try:
        chord = parse(figure, key)
    except ValueError:
        return frozenset()
    return frozenset(7 * (chord.root + interval) % 12 for interval in chord.quality.intervals)


@lru_cache(maxsize=4096)
def _music21_classes(figure: str, key_name: str) -> frozenset[int]:
    """What music21 hears; nothing where it refuses the figure, for whatever reason of its own."""
    from music21 import roman

    try:
        pitches = roman.RomanNumeral(figure, key_name[0] + key_name[1:].replace("b", "-")).pitches
    except Exception:
        return frozenset()
    return frozenset(pitch.pitchClass for pitch in pitches)
