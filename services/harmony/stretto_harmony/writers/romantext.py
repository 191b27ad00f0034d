"""RomanText (Tymoczko, Gotham, Cuthbert and Ariza 2019): a line for each measure in which a chord begins.

Measures keep their printed numbers where these are whole numbers that go up one by one, as RomanText wants them; other
scores are counted anew, a pickup as measure 0. Silence is not written: a chord lasts until the next one.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import groupby, pairwise

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
            words.append(numeral_of(label).replace("ø", "/o"))
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
