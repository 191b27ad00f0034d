"""Roman numerals: figures are read as the corpora and music21 mean them, and printed so that they read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stretto_harmony.scores.labels import ChordType, Key, key_of_name
from stretto_harmony.scores.numerals import Notation, applied_key, figure_of, parse
from stretto_harmony.scores.pitch import from_name, in_range

ROMANTEXT = [
    ("C", "I", "C", ChordType.MAJOR, 0, "C"),
    ("C", "V65/V", "D", ChordType.DOMINANT_SEVENTH, 1, "G"),
    ("C", "V6/5/V", "D", ChordType.DOMINANT_SEVENTH, 1, "G"),
    ("C", "viio7/V/ii", "G#", ChordType.DIMINISHED_SEVENTH, 0, "A"),
    ("C", "vii/o43/iii", "D#", ChordType.HALF_DIMINISHED_SEVENTH, 2, "e"),
    ("C", "IV7", "F", ChordType.MAJOR_SEVENTH, 0, "C"),
    ("C", "IVd7", "F", ChordType.DOMINANT_SEVENTH, 0, "C"),
    ("C", "IVmaj6/5", "F", ChordType.MAJOR_SEVENTH, 1, "C"),
    ("C", "I7/bVI", "Ab", ChordType.MAJOR_SEVENTH, 0, "Ab"),
    ("C", "ii2", "D", ChordType.MINOR_SEVENTH, 3, "C"),
    ("C", "bVII7", "Bb", ChordType.MAJOR_SEVENTH, 0, "C"),
    ("C", "bVIId7", "Bb", ChordType.DOMINANT_SEVENTH, 0, "C"),
    ("C", "i7[#7]", "C", ChordType.MINOR_MAJOR_SEVENTH, 0, "C"),
    ("c", "i#7", "C", ChordType.MINOR_MAJOR_SEVENTH, 0, "c"),
    ("C", "V7[#5]", "G", ChordType.AUGMENTED_SEVENTH, 0, "C"),
    ("C", "V7[b5]", "G", ChordType.DOMINANT_SEVENTH, 0, "C"),
    ("C", "V7[no3][add4]/V", "D", ChordType.DOMINANT_SEVENTH, 0, "G"),
    ("C", "V9", "G", ChordType.DOMINANT_SEVENTH, 0, "C"),
    ("C", "V54", "G", ChordType.MAJOR, 0, "C"),
    ("C", "N", "Db", ChordType.MAJOR, 1, "C"),
    ("c", "N53", "Db", ChordType.MAJOR, 0, "c"),
    ("C", "Cad64", "C", ChordType.MAJOR, 2, "C"),
    ("C", "Cad64/iii", "E", ChordType.MINOR, 2, "e"),
    ("c", "Ger65", "F#", ChordType.GERMAN_SIXTH, 1, "c"),
    ("C", "Ger6/vi", "D#", ChordType.GERMAN_SIXTH, 1, "a"),
    ("C", "It", "F#", ChordType.ITALIAN_SIXTH, 1, "C"),
    ("C", "Fr43", "D", ChordType.FRENCH_SIXTH, 2, "C"),
    ("C", "Fr6", "D", ChordType.FRENCH_SIXTH, 2, "C"),
    ("C", "III+6", "E", ChordType.AUGMENTED, 1, "C"),
    ("c", "viio7", "B", ChordType.DIMINISHED_SEVENTH, 0, "c"),
    ("c", "#viio7", "B", ChordType.DIMINISHED_SEVENTH, 0, "c"),
    ("c", "VII", "Bb", ChordType.MAJOR, 0, "c"),
    ("c", "bVII", "Bb", ChordType.MAJOR, 0, "c"),
    ("c", "VI6", "Ab", ChordType.MAJOR, 1, "c"),
    ("c", "vi", "A", ChordType.MINOR, 0, "c"),
    ("c", "bvi", "Ab", ChordType.MINOR, 0, "c"),
    ("c", "#VI", "A", ChordType.MAJOR, 0, "c"),
    ("c", "##vi", "A#", ChordType.MINOR, 0, "c"),
    ("c", "V7/III", "Bb", ChordType.DOMINANT_SEVENTH, 0, "Eb"),
    ("c", "V7/vi", "E", ChordType.DOMINANT_SEVENTH, 0, "a"),
    ("c", "VII7", "Bb", ChordType.DOMINANT_SEVENTH, 0, "c"),
    ("c", "III7", "Eb", ChordType.MAJOR_SEVENTH, 0, "c"),
]
DCML = [
    ("c", "#viio7", "B", ChordType.DIMINISHED_SEVENTH, 0, "c"),
    ("c", "viio", "Bb", ChordType.DIMINISHED, 0, "c"),
    ("c", "vi", "Ab", ChordType.MINOR, 0, "c"),
    ("c", "ii%65", "D", ChordType.HALF_DIMINISHED_SEVENTH, 1, "c"),
    ("C", "IV7", "F", ChordType.DOMINANT_SEVENTH, 0, "C"),
    ("C", "IVM7", "F", ChordType.MAJOR_SEVENTH, 0, "C"),
    ("C", "I+M7", "C", ChordType.AUGMENTED_MAJOR_SEVENTH, 0, "C"),
    ("C", "V7(4)/ii", "A", ChordType.DOMINANT_SEVENTH, 0, "d"),
    ("C", "V(64)", "C", ChordType.MAJOR, 2, "C"),
    ("c", "V(64)", "C", ChordType.MINOR, 2, "c"),
    ("C", "V(b64)/V", "G", ChordType.MINOR, 2, "G"),
    ("c", "V(#64)", "C", ChordType.MAJOR, 2, "c"),
    ("C", "V(6#4)", "G", ChordType.MAJOR, 0, "C"),
    ("C", "V(+64)", "G", ChordType.MAJOR, 0, "C"),
    ("c", "#viio7/V", "F#", ChordType.DIMINISHED_SEVENTH, 0, "G"),
    ("c", "Ger", "F#", ChordType.GERMAN_SIXTH, 1, "c"),
    ("C", "V2/V/bIII", "F", ChordType.DOMINANT_SEVENTH, 3, "Bb"),
]


@pytest.mark.parametrize(("key", "figure", "root", "quality", "inversion", "tonicised"), ROMANTEXT)
def test_romantext_is_read_as_it_is_meant(
    key: str, figure: str, root: str, quality: ChordType, inversion: int, tonicised: str
) -> None:
    chord = parse(figure, key_of_name(key))
    assert (chord.root, chord.quality, chord.inversion) == (from_name(root), quality, inversion)
    assert chord.tonicised == key_of_name(tonicised)


@pytest.mark.parametrize(("key", "figure", "root", "quality", "inversion", "tonicised"), DCML)
def test_dcml_is_read_as_it_is_meant(
    key: str, figure: str, root: str, quality: ChordType, inversion: int, tonicised: str
) -> None:
    chord = parse(figure, key_of_name(key), Notation.DCML)
    assert (chord.root, chord.quality, chord.inversion) == (from_name(root), quality, inversion)
    assert chord.tonicised == key_of_name(tonicised)


@pytest.mark.parametrize(
    ("key", "tonicised", "root", "quality", "inversion", "romantext", "dcml"),
    [
        ("C", "G", "D", ChordType.DOMINANT_SEVENTH, 1, "V65/V", "V65/V"),
        ("C", "C", "G", ChordType.DOMINANT_SEVENTH, 3, "V42", "V2"),
        ("C", "a", "G#", ChordType.DIMINISHED_SEVENTH, 0, "viio7/vi", "#viio7/vi"),
        ("C", "C", "B", ChordType.HALF_DIMINISHED_SEVENTH, 2, "viiø43", "vii%43"),
        ("C", "C", "F", ChordType.MAJOR_SEVENTH, 0, "IV7", "IVM7"),
        ("C", "C", "F", ChordType.DOMINANT_SEVENTH, 0, "IVd7", "IV7"),
        ("C", "C", "Db", ChordType.MAJOR, 1, "bII6", "bII6"),
        ("c", "c", "A", ChordType.MINOR, 0, "vi", "#vi"),
        ("c", "c", "Ab", ChordType.MINOR, 0, "bvi", "vi"),
        ("c", "c", "A", ChordType.MAJOR, 0, "#VI", "#VI"),
        ("c", "c", "Abb", ChordType.MAJOR, 0, "bbVI", "bVI"),
        ("c", "Eb", "Bb", ChordType.DOMINANT_SEVENTH, 0, "V7/III", "V7/III"),
        ("C", "C", "F#", ChordType.GERMAN_SIXTH, 1, "Ger65", "Ger65"),
        ("C", "C", "B", ChordType.ITALIAN_SIXTH, 1, "It6/IV", "It6/IV"),
        ("C", "c", "G", ChordType.DOMINANT_SEVENTH, 0, "V7", "V7"),
        ("C", "c", "B", ChordType.DIMINISHED_SEVENTH, 0, "viio7", "viio7"),
    ],
)
def test_chords_are_printed_as_people_write_them(
    key: str, tonicised: str, root: str, quality: ChordType, inversion: int, romantext: str, dcml: str
) -> None:
    chord = (key_of_name(key), key_of_name(tonicised), from_name(root), quality, inversion)
    assert figure_of(*chord) == romantext
    assert figure_of(*chord, Notation.DCML) == dcml


KEYS = st.builds(Key, st.integers(-8, 12), st.booleans())
STEPS = st.integers(-5, 6)


@given(KEYS, STEPS, st.booleans(), STEPS, st.sampled_from(ChordType), st.integers(0, 3), st.sampled_from(Notation))
def test_every_chord_reads_back_from_its_figure(
    key: Key, tonic: int, is_minor: bool, root: int, quality: ChordType, inversion: int, notation: Notation
) -> None:
    tonicised = Key(max(-15, min(19, key.tonic + tonic)), is_minor)
    place, inversion = tonicised.tonic + root, min(inversion, quality.num_inversions - 1)
    if not all(in_range(place + interval) for interval in (*quality.intervals, -2, -6)):
        return
    figure = figure_of(key, tonicised, place, quality, inversion, notation)
    chord = parse(figure, key, notation)
    assert (chord.root, chord.quality, chord.inversion) == (place, quality, inversion), figure
    assert figure_of(key, chord.tonicised, place, quality, inversion, notation) == figure


@given(st.text(alphabet="IViv#b-o+ø%M7d6543/[]()NaCGerFrIt @.", max_size=14), KEYS, st.sampled_from(Notation))
def test_no_text_makes_the_parser_fall_over(text: str, key: Key, notation: Notation) -> None:
    try:
        chord = parse(text, key, notation)
    except ValueError as error:
        assert "expected" in str(error)
    else:
        assert all(in_range(chord.root + interval) for interval in chord.quality.intervals)
        assert chord.inversion < chord.quality.num_inversions


def test_a_long_figure_takes_no_longer_to_refuse() -> None:
    with pytest.raises(ValueError, match="expected a Roman numeral"):
        parse("I" + "b" * 60 + "x", Key(0))  # a pattern that tries every way to part them would never end


@pytest.mark.parametrize("figure", ["", "H", "V12", "V7/", "/V", "V77", "It42", "Ger/It", "V/Cad64", "I" * 65, "V7/x"])
def test_what_is_no_figure_is_refused(figure: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(figure, Key(0))


def test_a_chord_beyond_two_accidentals_is_refused() -> None:
    with pytest.raises(ValueError, match="two accidentals"):
        parse("V7/#IV", key_of_name("D#"))
    with pytest.raises(ValueError, match="two accidentals"):
        applied_key("#VII", key_of_name("B#"))


def test_an_applied_key_is_minor_under_a_small_numeral() -> None:
    assert applied_key("bIII/V", Key(0), Notation.DCML) == Key(-2)
    assert applied_key("vi", Key(0)) == Key(3, is_minor=True)
    assert applied_key("VI", Key(0, is_minor=True)) == Key(-4)
    assert applied_key("N", Key(0)) == Key(-5)


@pytest.mark.parametrize("key", ["C", "c", "Ab", "f#"])
def test_plain_figures_sound_as_music21_has_them(key: str) -> None:
    """music21 is the reader that the RomanText corpora were checked with."""
    music21_key = pytest.importorskip("music21.key").Key(key.replace("b", "-"))
    roman = pytest.importorskip("music21.roman")
    translate = pytest.importorskip("music21.romanText.translate")
    cautionary = translate.PartTranslator().sixthMinor
    figures = ["I", "ii65", "V7/V", "viio7", "IV7", "bII6", "vi", "VI", "VII7", "viiø43/V", "V42/IV", "Ger65", "Fr43"]
    for figure in [*figures, "It6", "#viio7", "III+", "iv6", "i42", "V65/vi", "bVI", "IVd7", "Cad64", "N6"]:
        theirs = roman.RomanNumeral(figure, music21_key, sixthMinor=cautionary, seventhMinor=cautionary)
        ours = parse(figure, key_of_name(key))
        tones = {ours.root + interval for interval in ours.quality.intervals}
        assert tones == {from_name(tone.name) for tone in theirs.pitches}, figure
        bass = ours.root + ours.quality.intervals[ours.inversion]
        assert bass == from_name(theirs.bass().name), figure
