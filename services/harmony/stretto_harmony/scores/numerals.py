"""Roman numerals: a figure in a key as a spelled chord, and a chord as the figure that names it.

Two spellings are known. RomanText (Tymoczko et al. 2019) as music21 reads it: sevenths are diatonic unless the figure
says otherwise (`IV7` in major is a major seventh, `IVd7` a dominant one), and in minor the sixth and seventh degrees
are raised under minor and diminished chords (`viio7` stands on the leading note, `VII` below it; a written `#vii` or
`bVI` changes nothing). DCML (Neuwirth et al. 2018): degrees are those of the natural minor scale (`#viio7`), and a
major chord with a plain `7` is a dominant seventh (`IM7` for the other).

Departures: added, omitted and suspended tones in brackets are read past, unless an alteration in brackets makes another
chord type; ninths and above are their seventh chord; a cadential six-four (`Cad64`, DCML's `V(64)`) is the tonic's
second inversion, which is what sounds. Knows no notes and no time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from stretto_harmony.scores import pitch
from stretto_harmony.scores.labels import ChordType, Key

DEGREES = ("I", "II", "III", "IV", "V", "VI", "VII")
_NUMERAL = r"(?:[Vv][Ii]{1,2}|[Ii][Vv]|[Ii]{1,3}|[Vv])"
_FIGURE = re.compile(
    r"(?P<accidentals>[#b-]*)"
    rf"(?P<name>Cad|It|Ger|Gr|Fr|N|{_NUMERAL})"
    r"(?P<form>(?:°|o|ø|%|\+M|\+|maj|M|d(?=\d))?)"
    r"(?P<figures>(?:maj|M|d(?=\d)|[#b\d]|/(?=[#b]*\d))*)\Z"
)
_BRACKET = re.compile(r"\[([^\]]*)\]|\(([^)]*)\)")
_ALTERED = re.compile(r"(#{1,2}|b{1,2})([357])\Z")
_APPLIED = re.compile(r"/(?![#b]*\d)")
_ONE_FIGURE = re.compile(r"([#b]*)(1[13]|\d)")
_INVERSIONS = {
    "": 0, "5": 0, "53": 0, "3": 0, "8": 0, "4": 0, "54": 0, "6": 1, "63": 1, "64": 2,
    "7": 0, "75": 0, "73": 0, "753": 0, "74": 0, "754": 0, "65": 1, "653": 1, "43": 2, "643": 2,
    "42": 3, "2": 3, "642": 3, "9": 0, "97": 0, "975": 0, "9753": 0, "11": 0, "13": 0, "94": 0, "95": 0, "953": 0,
}  # fmt: skip
_TRIAD_FIGURES = frozenset({"", "5", "53", "3", "8", "4", "54", "6", "63", "64", "94", "95", "953"})
_SIXTHS = {"It": ChordType.ITALIAN_SIXTH, "Ger": ChordType.GERMAN_SIXTH, "Fr": ChordType.FRENCH_SIXTH}
_SIXTH_ROOTS = {ChordType.ITALIAN_SIXTH: 6, ChordType.GERMAN_SIXTH: 6, ChordType.FRENCH_SIXTH: 2}
"""Where they stand above the tonic; and below, in which inversion the flat sixth degree is their bass."""
_SIXTH_INVERSIONS = {ChordType.ITALIAN_SIXTH: 1, ChordType.GERMAN_SIXTH: 1, ChordType.FRENCH_SIXTH: 2}
_TRIAD_INTERVALS = {"major": (4, 1), "minor": (-3, 1), "diminished": (-3, -6), "augmented": (4, 8)}
_TYPE_OF = {type_.intervals: type_ for type_ in ChordType}


class Notation(Enum):
    """How a figure is spelled; the value is the word that requests and files use."""

    ROMANTEXT = "romantext"
    DCML = "dcml"


@dataclass(frozen=True)
class Chord:
    """What a figure says in its key: the spelled chord, and the key in which it is heard."""

    root: int
    quality: ChordType
    inversion: int
    tonicised: Key


def parse(figure: str, key: Key, notation: Notation = Notation.ROMANTEXT) -> Chord:
    """The chord that `figure` names in `key`.

    Raises:
        ValueError: When the figure is none in this notation, or its chord leaves the 35 spellings.
    """
    written = figure.strip().replace("/o", "ø").replace("0", "o").replace("−", "-")
    if len(written) > 64:
        raise ValueError(f"expected a Roman numeral, got {len(written)} characters")
    head, *applied = _APPLIED.split(written)
    tonicised = key
    for part in reversed(applied):
        tonicised = applied_key(part, tonicised, notation)
    brackets = [first or second for first, second in _BRACKET.findall(written)]
    match = _FIGURE.match(_BRACKET.sub("", head))
    if match is None:
        raise ValueError(f"expected a Roman numeral, got {figure!r}")
    chord = _chord(match, brackets, tonicised, notation)
    if not all(pitch.in_range(chord.root + interval) for interval in chord.quality.intervals):
        raise ValueError(f"expected tones with up to two accidentals, got {figure!r} in {key.name}")
    return chord


def applied_key(figure: str, key: Key, notation: Notation = Notation.ROMANTEXT) -> Key:
    """The key on the degree that `figure` names in `key`, minor under a small numeral: what `V/vi` is dominant of.

    Raises:
        ValueError: When it names no degree, or its tonic leaves the 35 spellings.
    """
    for part in reversed(figure.split("/")):
        match = _FIGURE.match(_BRACKET.sub("", part))
        if match is None or match["name"] in _SIXTHS or match["name"] == "Cad":
            raise ValueError(f"expected a degree to apply a chord to, got {figure!r}")
        name = "II" if match["name"] == "N" else match["name"]
        alteration = _alteration(match["accidentals"]) - (7 if match["name"] == "N" else 0)
        root = _root(name, alteration, not name.islower(), key, notation)
        if not pitch.in_range(root):
            raise ValueError(f"expected a tonic with up to two accidentals, got {figure!r} in {key.name}")
        key = Key(root, name.islower())
    return key


def figure_of(
    key: Key,
    tonicised: Key,
    root: int,
    quality: ChordType,
    inversion: int,
    notation: Notation = Notation.ROMANTEXT,
) -> str:
    """The figure that `parse` reads in `key` as this chord, as in `V65/V`.

    An augmented sixth that is not on its place in `tonicised` is applied to the key in which it is. A chord that is
    heard in the key of the other mode on the same tonic has no suffix.
    """
    if quality in _SIXTH_ROOTS and root - tonicised.tonic != _SIXTH_ROOTS[quality]:
        tonicised = Key(root - _SIXTH_ROOTS[quality], tonicised.is_minor)
    head = _head(tonicised, root, quality, inversion, notation)
    if tonicised == key:
        return head
    if tonicised.tonic == key.tonic and quality not in _SIXTH_ROOTS:
        return _head(key, root, quality, inversion, notation)
    triad = ChordType.MINOR if tonicised.is_minor else ChordType.MAJOR
    return f"{head}/{_head(key, tonicised.tonic, triad, 0, notation)}"


def _chord(match: re.Match[str], brackets: list[str], key: Key, notation: Notation) -> Chord:
    name, figures = match["name"].replace("Gr", "Ger"), _digits(match["figures"])
    if name in _SIXTHS:
        return _augmented_sixth(_SIXTHS[name], figures, key)
    if name == "Cad":
        return Chord(key.tonic, ChordType.MINOR if key.is_minor else ChordType.MAJOR, 2, key)
    if notation is Notation.DCML and name == "V" and (six_four := _six_four(brackets)) is not None:
        is_minor = (key.is_minor and six_four != "#") or six_four == "b"
        return Chord(key.tonic, ChordType.MINOR if is_minor else ChordType.MAJOR, 2, key)
    if name == "N":
        return Chord(key.tonic - 5, ChordType.MAJOR, _inversion(figures or "6"), key)
    inversion = _inversion(figures)
    form = match["form"] + ("M" if re.search("maj|M", match["figures"]) else "d" if "d" in match["figures"] else "")
    triad = _triad(name, form)
    raised = triad in ("major", "augmented")
    alteration = _alteration(match["accidentals"])
    if notation is Notation.DCML and alteration > 0 and name == "vii" and triad == "diminished" and not key.is_minor:
        alteration = 0  # written out of habit where the applied key is major: its leading note needs no sharp
    root = _root(name, alteration, raised, key, notation)
    intervals: tuple[int, ...] = (0, *_TRIAD_INTERVALS[triad])
    if figures not in _TRIAD_FIGURES or "ø" in form or "%" in form:
        seventh = _seventh(name, root, triad, form, key, notation) + 7 * _accidental_on_seventh(match["figures"])
        intervals = _known((*intervals, seventh), triad)
    return Chord(root, _altered(intervals, brackets), inversion, key)


def _augmented_sixth(quality: ChordType, figures: str, key: Key) -> Chord:
    inversion = _SIXTH_INVERSIONS[quality] if figures in ("", "6") else _inversion(figures)
    if inversion >= quality.num_inversions:
        raise ValueError(f"expected an Italian sixth of three tones, got the figures {figures!r}")
    return Chord(key.tonic + _SIXTH_ROOTS[quality], quality, inversion, key)


def _six_four(brackets: list[str]) -> str | None:
    """The accidental before the sixth where DCML's changes are a cadential six-four: `(64)`, not `(+64)` or `(6#4)`."""
    found = (re.search(r"(?<![+^v#b])([#b]?)64", change) for change in brackets)
    return next((match[1] for match in found if match), None)


def _alteration(accidentals: str) -> int:
    return 7 * (accidentals.count("#") - accidentals.count("b") - accidentals.count("-"))


def _root(name: str, alteration: int, is_major: bool, key: Key, notation: Notation) -> int:
    number = DEGREES.index(name.upper()) + 1
    if notation is Notation.DCML or not key.is_minor or number not in (6, 7):
        return key.degree(number) + alteration
    if is_major:
        return key.degree(number) + (alteration + 7 if alteration < 0 else alteration)
    return key.degree(number) + 7 + (alteration - 7 if alteration > 0 else alteration)


def _triad(name: str, form: str) -> str:
    if form[:1] in ("o", "°", "ø", "%"):
        return "diminished"
    if form[:1] == "+":
        return "augmented"
    return "minor" if name.islower() else "major"


def _digits(figures: str) -> str:
    return re.sub(r"\D", "", figures)


def _inversion(figures: str) -> int:
    if figures not in _INVERSIONS:
        raise ValueError(f"expected the figures of a triad or a seventh chord, got {figures!r}")
    return _INVERSIONS[figures]


def _seventh(name: str, root: int, triad: str, form: str, key: Key, notation: Notation) -> int:
    """The interval of the seventh above the root that the figure means."""
    if "ø" in form or "%" in form or "d" in form:
        return -2
    if triad == "diminished":
        return -9
    if "M" in form or "maj" in form:
        return 5
    if notation is Notation.DCML or triad == "minor":
        return -2
    diatonic = key.degree((DEGREES.index(name.upper()) + 6) % 7 + 1) - root
    return 5 if diatonic == 5 else -2


def _accidental_on_seventh(figures: str) -> int:
    """Semitones by which the figure moves the chord's seventh, as in `i#7`: only a root position's is told apart."""
    for accidentals, number in _ONE_FIGURE.findall(figures):
        if number == "7":
            return int(accidentals.count("#") - accidentals.count("b"))
    return 0


def _known(intervals: tuple[int, ...], triad: str) -> tuple[int, ...]:
    """The intervals, or those with the nearest seventh that makes a chord type."""
    if intervals in _TYPE_OF:
        return intervals
    sevenths = (-9, -2) if triad == "diminished" else (-2, 5)
    nearest = min(sevenths, key=lambda seventh: abs(seventh - intervals[3]))
    return (*intervals[:3], nearest)


def _altered(intervals: tuple[int, ...], brackets: list[str]) -> ChordType:
    """The chord type after the alterations in brackets, where they make one; `V7[#5]` is an augmented seventh."""
    changed = list(intervals)
    for change in brackets:
        match = _ALTERED.match(change)
        member = (int(match[2]) - 1) // 2 if match else len(changed)
        if match and member < len(changed):
            changed[member] += _alteration(match[1])
    quality = _TYPE_OF.get(tuple(changed), _TYPE_OF[intervals])
    return _TYPE_OF[intervals] if quality in _SIXTH_ROOTS else quality


def _head(key: Key, root: int, quality: ChordType, inversion: int, notation: Notation) -> str:
    """The figure without a suffix of a chord in `key`."""
    if quality in _SIXTH_ROOTS and root - key.tonic == _SIXTH_ROOTS[quality]:
        name = next(name for name, type_ in _SIXTHS.items() if type_ is quality)
        triad_figures = ("53", "6", "64")
        return name + (triad_figures if quality is ChordType.ITALIAN_SIXTH else ("7", "65", "43", "42"))[inversion]
    number = next(n for n in range(1, 8) if (root - key.degree(n)) % 7 == 0)
    triad = quality.triad
    is_major = triad in (ChordType.MAJOR, ChordType.AUGMENTED)
    name = DEGREES[number - 1] if is_major else DEGREES[number - 1].lower()
    alteration = (root - _root(name, 0, is_major, key, notation)) // 7
    if notation is Notation.ROMANTEXT and key.is_minor and number in (6, 7):
        # A first accidental in the direction of the scale's own says nothing: a real one takes a second.
        alteration += -1 if is_major and alteration < 0 else 1 if not is_major and alteration > 0 else 0
    accidentals = "#" * alteration if alteration > 0 else "b" * -alteration
    return accidentals + name + _form_and_figures(key, root, name, quality.reduced, inversion, notation)


def _form_and_figures(key: Key, root: int, name: str, quality: ChordType, inversion: int, notation: Notation) -> str:
    triad, half = quality.triad, "ø" if notation is Notation.ROMANTEXT else "%"
    form = {ChordType.DIMINISHED: "o", ChordType.AUGMENTED: "+"}.get(triad, "")
    if quality.num_inversions == 3:
        return form + ("", "6", "64")[inversion]
    figures = ("7", "65", "43", "42" if notation is Notation.ROMANTEXT else "2")[inversion]
    if quality is ChordType.HALF_DIMINISHED_SEVENTH:
        return half + figures
    if triad is ChordType.DIMINISHED:
        return form + figures
    seventh = quality.intervals[3]
    kind = {ChordType.MINOR: "minor", ChordType.AUGMENTED: "augmented"}.get(triad, "major")
    if seventh == _seventh(name, root, kind, "", key, notation):
        return form + figures
    if notation is Notation.DCML or (seventh == 5 and triad is ChordType.MAJOR):
        return f"{form}M{figures}"
    if triad is ChordType.MAJOR:
        return f"{form}d{figures}"
    return f"{form}{figures}[{'#' if seventh == 5 else 'b'}7]"
