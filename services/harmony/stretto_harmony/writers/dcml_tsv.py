"""A table in the columns of the DCML's expanded harmonies (Hentschel, Neuwirth, Rohrmeier 2021), tab-separated.

The global key is that of the first label, and local keys are numerals in it. Departures: there are no phrase ends,
cadences, pedals or changes, and `label` repeats the local key where it changes, as annotators do.
"""

from __future__ import annotations

import re
from fractions import Fraction

from stretto_harmony.scores.labels import ChordType, HarmonyLabel, Key
from stretto_harmony.scores.numerals import Notation, figure_of
from stretto_harmony.scores.score import TICKS_PER_QUARTER, TICKS_PER_WHOLE, Score
from stretto_harmony.writers.romantext import measure_numbers
from stretto_harmony.writers.written import WrittenAnalysis

COLUMNS = (
    "mc", "mn", "quarterbeats", "duration_qb", "mc_onset", "mn_onset", "timesig", "staff", "voice", "label",
    "globalkey", "localkey", "chord", "numeral", "form", "figbass", "changes", "relativeroot", "chord_type",
    "globalkey_is_minor", "localkey_is_minor", "chord_tones", "added_tones", "root", "bass_note",
)  # fmt: skip
CHORD_TYPES = {
    ChordType.MAJOR: "M",
    ChordType.MINOR: "m",
    ChordType.DIMINISHED: "o",
    ChordType.AUGMENTED: "+",
    ChordType.MAJOR_SEVENTH: "MM7",
    ChordType.DOMINANT_SEVENTH: "Mm7",
    ChordType.MINOR_MAJOR_SEVENTH: "mM7",
    ChordType.MINOR_SEVENTH: "mm7",
    ChordType.DIMINISHED_SEVENTH: "o7",
    ChordType.HALF_DIMINISHED_SEVENTH: "%7",
    ChordType.AUGMENTED_SEVENTH: "+7",
    ChordType.AUGMENTED_MAJOR_SEVENTH: "+M7",
    ChordType.ITALIAN_SIXTH: "It",
    ChordType.GERMAN_SIXTH: "Ger",
    ChordType.FRENCH_SIXTH: "Fr",
}
_PARTS = re.compile(r"(?P<numeral>[#b]*[iIvV]+|It|Ger|Fr)(?P<form>[%o+]?M?)(?P<figbass>\d*)")


def write_dcml_tsv(analysis: WrittenAnalysis) -> bytes:
    """The labels as a table, in UTF-8."""
    rows, local, numbers = ["\t".join(COLUMNS)], None, measure_numbers(analysis.score)
    home: Key | None = None
    for measure, _, label in analysis.placed():
        home = home or label.key
        place = _place(analysis.score, measure, numbers[measure], label)
        named = _named(label, home, local)
        rows.append("\t".join((place | named)[column] for column in COLUMNS))
        local = label.key
    return ("\n".join(rows) + "\n").encode()


def _place(score: Score, measure: int, number: int, label: HarmonyLabel) -> dict[str, str]:
    within = label.start - int(score.measure_start[measure])
    return {
        "mc": str(measure + 1),
        "mn": str(number),
        "quarterbeats": str(Fraction(label.start, TICKS_PER_QUARTER)),
        "duration_qb": f"{(label.end - label.start) / TICKS_PER_QUARTER:g}",
        "mc_onset": str(Fraction(within, TICKS_PER_WHOLE)),
        "mn_onset": str(Fraction(within + int(score.measure_offset[measure]), TICKS_PER_WHOLE)),
        "timesig": f"{score.numerator[measure]}/{score.denominator[measure]}",
        "staff": str(int(score.staff.max(initial=0)) + 1),
        "voice": "1",
    }


def _named(label: HarmonyLabel, home: Key, local: Key | None) -> dict[str, str]:
    key, quality = label.key, label.quality
    figure = figure_of(key, label.tonicised, label.root, quality, label.inversion, Notation.DCML)
    chord, _, relative = figure.partition("/")
    parts = _PARTS.fullmatch(chord)
    triad = ChordType.MINOR if key.is_minor else ChordType.MAJOR
    in_home = figure_of(home, home, key.tonic, triad, 0, Notation.DCML)
    prefix = f"{home.name}." if local is None else ""
    prefix += f"{in_home}." if local is None or local != key else ""
    tones = label.tones[label.inversion :] + label.tones[: label.inversion]
    return {
        "label": prefix + figure,
        "globalkey": home.name,
        "localkey": in_home,
        "chord": figure,
        "numeral": parts["numeral"] if parts else "",
        "form": parts["form"] if parts else "",
        "figbass": parts["figbass"] if parts else "",
        "changes": "",
        "relativeroot": relative,
        "chord_type": CHORD_TYPES[quality],
        "globalkey_is_minor": str(int(home.is_minor)),
        "localkey_is_minor": str(int(key.is_minor)),
        "chord_tones": ", ".join(str(tone - key.tonic) for tone in tones),
        "added_tones": "",
        "root": str(label.root - key.tonic),
        "bass_note": str(label.bass - key.tonic),
    }
