"""How harmony is scored: which parts are right for how long, and what errors are called."""

from __future__ import annotations

import harmony_scoring
import numpy as np
import pytest
from stretto_harmony.scores.labels import Analysis, HarmonyLabel, Key
from stretto_harmony.scores.numerals import parse
from stretto_harmony.scores.score import TICKS_PER_QUARTER

C, G, A_MINOR, C_MINOR = Key(0), Key(1), Key(3, True), Key(0, True)


def label(figure: str, key: Key, start: int = 0, end: int = 4) -> HarmonyLabel:
    chord = parse(figure, key)
    span = (start * TICKS_PER_QUARTER, end * TICKS_PER_QUARTER)
    return HarmonyLabel(*span, key, figure, chord.tonicised, chord.root, chord.quality, chord.inversion)


def test_time_that_is_right_is_counted_in_thirty_seconds() -> None:
    reference = Analysis((label("I", C, 0, 2), label("V7", C, 2, 4)))
    found = Analysis((label("I", C, 0, 3), label("V7", C, 3, 4)))
    right = harmony_scoring.hits(reference, found)
    assert right.shape == (32, len(harmony_scoring.PARTS))
    shares = dict(zip(harmony_scoring.PARTS, right.mean(axis=0)))
    assert shares["numeral"] == shares["root"] == 0.75 and shares["key"] == 1.0 and shares["inversion"] == 1.0


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        (("I", C), set()),
        (("I6", C), {"inversion"}),
        (("i", C_MINOR), {"key", "quality"}),
        (("IV", G), {"key", "degree"}),
        (("V/IV", C), {"degree"}),
        (("V", C), {"degree", "root"}),
        (("V", Key(-1)), {"key", "degree"}),
    ],
)
def test_each_part_is_told_apart(told: tuple[str, Key], wrong: set[str]) -> None:
    right = harmony_scoring.hits(Analysis((label("I", C),)), Analysis((label(*told),)))[0]
    found = {part for part, hit in zip(harmony_scoring.PARTS, right) if not hit}
    assert found == (wrong | {"numeral"} if wrong else set())


def test_gaps_of_the_reference_do_not_count_and_those_of_the_other_are_wrong() -> None:
    reference = Analysis((label("I", C, 1, 2), label("I", C, 3, 4)))
    found = Analysis((label("I", C, 0, 2),))
    right = harmony_scoring.hits(reference, found)
    assert len(right) == 16 and np.mean(right[:, -1]) == 0.5


@pytest.mark.parametrize(
    ("wanted", "told", "words"),
    [
        (("I", C), ("IV", G), "right chord, but the key of the dominant"),
        (("vi", C), ("i", A_MINOR), "right chord, but the relative key"),
        (("I", C), ("V", C_MINOR), "another chord, and the parallel key"),
        (("V7", G), ("V7/V", C), "right chord, but the key of the subdominant"),
        (("V65", C), ("V7", C), "right chord, root position for first inversion"),
        (("V7", C), ("V", C), "right root, major for dominant-seventh"),
        (("I64", C), ("V", C), "right key, V for I64"),
        (("V/V", C), ("II", C), "right chord, tonicised or not"),
    ],
)
def test_errors_have_their_musical_names(wanted: tuple[str, Key], told: tuple[str, Key], words: str) -> None:
    assert harmony_scoring.difference(label(*wanted), label(*told)) == words


def test_differences_and_confusions_count_frames() -> None:
    reference = Analysis((label("I", C, 0, 3), label("V7", C, 3, 4)))
    found = Analysis((label("I", C, 0, 2), label("IV", C, 2, 4)))
    pairs = [(reference, found)]
    assert harmony_scoring.differences(pairs) == {"right key, IV for I": 8, "right key, IV for V7": 8}
    head, first, second = harmony_scoring.confusion_rows(pairs)
    assert head == ["analyst", "I", "V7", "other"]
    assert first == ["I", "0.67", "0.00", "0.33"] and second == ["V7", "0.00", "0.00", "1.00"]
