"""Analyses as files: other programs open them, and what they read is what was written."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from harmony_calls import failure, file_of, make_score, musicxml_of, typed, violation
from music21 import converter, expressions, roman
from stretto.harmony.v1 import harmony_pb2
from stretto_harmony.convert import labels_to_proto, score_to_proto
from stretto_harmony.readers import dcml, musicxml, romantext
from stretto_harmony.scores.labels import ChordType, HarmonyLabel, Key
from stretto_harmony.scores.numerals import figure_of
from stretto_harmony.scores.score import TICKS_PER_QUARTER
from stretto_harmony.writers import WRITERS
from stretto_harmony.writers.romantext import beat_text, measure_numbers
from stretto_harmony.writers.written import AnalysisFormat, WrittenAnalysis, joined
from stretto_shared.errors import InvalidInput
from tiny_analyzers import TinyAnalyzer, label_of

QUARTER = TICKS_PER_QUARTER
C, G, A_MINOR = Key(0), Key(1), Key(3, True)


def chord(start: float, end: float, key: Key, tonicised: Key, root: int, quality: ChordType, inversion: int = 0) -> Any:
    numeral = figure_of(key, tonicised, root, quality, inversion)
    ticks = [round(quarters * QUARTER) for quarters in (start, end)]
    return HarmonyLabel(ticks[0], ticks[1], key, numeral, tonicised, root, quality, inversion, 0.5)


SCORE = make_score(4)  # in 3/4
LABELS = [
    chord(0, 3, C, C, 0, ChordType.MAJOR),
    chord(3, 4, C, C, 0, ChordType.MAJOR),  # the same again, in another window
    chord(4, 4.5, C, G, 2, ChordType.DOMINANT_SEVENTH, 1),
    chord(4.5, 6, G, G, 0, ChordType.MAJOR, 2),
    chord(6, 7 + 1 / 3, G, G, 6, ChordType.HALF_DIMINISHED_SEVENTH),
    chord(7 + 1 / 3, 9, A_MINOR, A_MINOR, 8, ChordType.DIMINISHED_SEVENTH),
    chord(10, 12, A_MINOR, A_MINOR, 9, ChordType.GERMAN_SIXTH, 1),
]


def written(format: AnalysisFormat, labels: Any = LABELS, score: Any = SCORE, **fields: Any) -> str:
    return WRITERS[format](WrittenAnalysis(score, labels, **fields)).decode()


def test_romantext_is_a_line_a_measure_with_beats_and_keys() -> None:
    assert written(AnalysisFormat.ROMANTEXT, title="A\npiece", analyst="me") == (
        "Title: A piece\nAnalyst: me\n\nTime Signature: 3/4\n\nm1 C: I\nm2 b2 V65/V b2.5 G: IV64\n"
        "m3 vii/o7 b2.33 a: viio7\nm4 b2 Ger65\n"
    )


def test_music21_opens_romantext_and_hears_the_same_chords() -> None:
    stream = converter.parse(written(AnalysisFormat.ROMANTEXT), format="romantext")
    all_found = list(stream.recurse().getElementsByClass(roman.RomanNumeral))
    # music21 repeats a chord that lasts over a bar line
    found = [each for each, before in zip(all_found, [None, *all_found]) if not before or each.figure != before.figure]
    wanted = list(joined(LABELS))
    assert [str(each.figure) for each in found][:4] == ["I", "V65/V", "IV64", "viiø7"]
    for label, each in zip(wanted, found, strict=True):
        classes = {(7 * tone) % 12 for tone in label.tones}
        assert {pitch.pitchClass for pitch in each.pitches} == classes, label.numeral
        assert each.bass().pitchClass == 7 * label.bass % 12, label.numeral
        assert Fraction(each.getOffsetInHierarchy(stream)) == pytest.approx(label.start / QUARTER)


def test_romantext_and_the_table_are_read_back_as_they_were() -> None:
    score = make_score(12, pickup=1)
    labels = list(joined(TinyAnalyzer(3).analyze(score)))
    by_text = romantext.read_analysis(written(AnalysisFormat.ROMANTEXT, labels, score), score)
    by_table = dcml.read_analysis(written(AnalysisFormat.DCML_TSV, labels, score), score)
    for read in (by_text, by_table):
        found = [(each.start, each.key, each.root, each.quality, each.inversion) for each in read.analysis]
        assert found == [(each.start, each.key, each.root, each.quality, each.inversion) for each in labels]


def test_a_silence_before_the_first_chord_and_a_new_signature_are_written() -> None:
    score = replace(make_score(3), numerator=[3, 3, 6], denominator=[4, 4, 8])
    labels = [chord(1, 3, C, C, 0, ChordType.MAJOR), chord(7.5, 9, C, C, 1, ChordType.MAJOR)]
    text = written(AnalysisFormat.ROMANTEXT, labels, score)
    assert text == "Time Signature: 3/4\n\nm1 b2 C: I\n\nTime Signature: 6/8\n\nm3 b2 V\n"


@pytest.mark.parametrize(
    ("printed", "offsets", "numbers"),
    [
        (("0", "1", "2"), (1, 0, 0), [0, 1, 2]),
        (("5", "6", "6"), (0, 0, 9), [5, 6, 6]),
        (("1", "X1", "2"), (0, 0, 0), [1, 2, 3]),
        (("1", "1", "2"), (0, 0, 0), [1, 2, 3]),
        (("7", "3", "4"), (2, 0, 2), [0, 1, 1]),
    ],
)
def test_measures_keep_numbers_that_romantext_can_count(printed: Any, offsets: Any, numbers: list[int]) -> None:
    score = replace(make_score(3), measure_number=printed, measure_offset=offsets)
    assert measure_numbers(score) == numbers


@pytest.mark.parametrize(
    ("beat", "text"),
    [("1", "1"), ("3/2", "1.5"), ("7/3", "2.33"), ("8/3", "2.66"), ("33/16", "2.0625"), ("7/6", "1.1667")],
)
def test_beats_are_written_as_romantext_reads_them(beat: str, text: str) -> None:
    assert beat_text(Fraction(beat)) == text


def test_the_table_has_the_columns_of_the_dcml_and_keys_in_the_home_key() -> None:
    rows = list(csv.DictReader(io.StringIO(written(AnalysisFormat.DCML_TSV)), delimiter="\t"))
    assert [row["label"] for row in rows] == ["C.I.I", "V65/V", "V.IV64", "vii%7", "vi.#viio7", "Ger65"]
    second, last = rows[1], rows[-1]
    assert (second["mc"], second["mn"], second["quarterbeats"], second["duration_qb"]) == ("2", "2", "4", "0.5")
    assert (second["mc_onset"], second["mn_onset"], second["timesig"]) == ("1/4", "1/4", "3/4")
    assert (second["numeral"], second["form"], second["figbass"], second["relativeroot"]) == ("V", "", "65", "V")
    assert (second["chord_type"], second["localkey"], second["root"], second["bass_note"]) == ("Mm7", "I", "2", "6")
    assert second["chord_tones"] == "6, 3, 0, 2" and last["localkey_is_minor"] == "1" != last["globalkey_is_minor"]
    assert last["numeral"] == "Ger" and last["chord_type"] == "Ger"


def test_json_says_all_that_is_known_in_words() -> None:
    content = json.loads(written(AnalysisFormat.JSON, title="Ä"))
    assert content["title"] == "Ä" and len(content["labels"]) == len(LABELS) - 1
    assert content["labels"][1] == {
        "measure": "2", "measure_index": 1, "beat": 2.0, "start_quarters": 4.0, "end_quarters": 4.5, "key": "C",
        "numeral": "V65/V", "tonicised_key": "G", "root": "D", "quality": "dominant-seventh", "inversion": 1,
        "bass": "F#", "tones": ["D", "F#", "A", "C"], "confidence": 0.5,
    }  # fmt: skip


def test_musicxml_is_the_file_as_it_came_with_words_under_its_lowest_part() -> None:
    source = musicxml_of(SCORE, divisions=12)
    labels = [each for each in LABELS if each.start % (QUARTER // 12) == 0]
    text = written(AnalysisFormat.MUSICXML, labels, source=source, source_suffix="musicxml")
    again = musicxml.read_score(text.encode())
    before = musicxml.read_score(source)
    for name in ("onset", "duration", "midi", "fifths", "staff", "measure_start"):
        assert (getattr(again, name) == getattr(before, name)).all(), name
    stream = converter.parse(text, format="musicxml")
    assert not list(stream.parts[0].recurse().getElementsByClass(expressions.TextExpression))
    found = list(stream.parts[-1].recurse().getElementsByClass(expressions.TextExpression))
    placed = [(each.content, float(each.getOffsetInHierarchy(stream))) for each in found]
    assert placed == [
        ("C: I", 0.0), ("V65/V", 4.0), ("G: IV64", 4.5), ("viiø7", 6.0), ("a: viio7", pytest.approx(7 + 1 / 3)),
        ("Ger65", 10.0),
    ]  # fmt: skip
    assert all(each.placement == "below" for each in found)


def test_what_is_not_a_numeral_is_named_by_its_chord_and_no_text_escapes() -> None:
    odd = replace(LABELS[0], numeral="<x>&\tI")
    for format in (AnalysisFormat.ROMANTEXT, AnalysisFormat.DCML_TSV, AnalysisFormat.JSON):
        text = written(format, [odd], title="a\tb\nc & <d>")
        assert "<x>" not in text and "I" in text
    assert len(written(AnalysisFormat.ROMANTEXT, [odd], title="a\nm9 V").splitlines()) == 5
    source = musicxml_of(SCORE)
    assert "<x>" not in written(AnalysisFormat.MUSICXML, [odd], source=source, source_suffix="musicxml")


async def test_every_format_is_written_over_the_wire(serve: Any) -> None:
    source, messages = musicxml_of(SCORE), labels_to_proto(LABELS, SCORE)
    request = harmony_pb2.WriteHarmonyRequest
    async with serve() as stub:
        for number, begins in ((1, b"Title: t"), (2, b"mc\tmn"), (3, b"{"), (4, b"<?xml")):
            asked = request(score=file_of(source), labels=messages, format=number, title="t")
            assert (await stub.WriteHarmony(asked, timeout=60)).data.startswith(begins)
        for number, begins in ((1, b"Title: t"), (4, b"<?xml")):
            asked = request(score=typed(score_to_proto(SCORE)), labels=messages, format=number, title="t")
            assert (await stub.WriteHarmony(asked, timeout=60)).data.startswith(begins)
        wrong = [
            (request(labels=messages, format=1), "score"),
            (request(score=file_of(source), format=0), "format"),
            (request(score=file_of(source), labels=messages[::-1], format=1), "labels[1].start_ticks"),
            (request(score=file_of(source), format=1, title="x" * 201), "title"),
            (request(score=file_of(source), format=1, analyst="x" * 201), "analyst"),
            (request(score=file_of(b"<no/>"), format=4), "score.file.data"),
        ]
        for asked, field in wrong:
            found, description = violation(await failure(stub.WriteHarmony(asked, timeout=60)))
            assert found == field and description


def test_numerals_of_every_chord_survive_romantext_and_music21() -> None:
    numbers, unheard = range(0, 4000, 23), []
    for number in numbers:
        label = label_of(0, 3 * QUARTER, number)
        text = written(AnalysisFormat.ROMANTEXT, [label])
        (own,) = romantext.read_analysis(text, SCORE).analysis
        assert (own.root, own.quality, own.inversion) == (label.root, label.quality, label.inversion), text
        (found,) = converter.parse(text, format="romantext").recurse().getElementsByClass(roman.RomanNumeral)
        if {pitch.pitchClass for pitch in found.pitches} != {7 * tone % 12 for tone in label.tones}:
            unheard.append(label)
    assert len(unheard) < len(numbers) / 20
    assert all(label.key.is_minor and label.quality.num_inversions == 4 for label in unheard)


def tangled_score() -> Any:
    """Overlaps, ties over bar lines, double accidentals, a triplet, a pickup, new signatures and an empty staff."""
    quarter, triplet = QUARTER, QUARTER // 3
    notes = [
        (0, 8 * quarter, 48, 0, 2), (0, quarter, 60, 0, 0), (0, quarter, 64, 4, 0), (quarter, 3 * quarter, 62, 14, 0),
        (2 * quarter, triplet, 67, 1, 0), (2 * quarter + triplet, triplet, 66, -6, 0),
        (3 * quarter, 2 * quarter, 72, 12, 0), (7 * quarter, 9 * quarter, 50, 2, 2),
    ]  # fmt: skip
    onset, duration, midi, fifths, staff = zip(*notes)
    lengths = [quarter, 3 * quarter, 3 * quarter, 2 * quarter]
    return replace(
        make_score(4), onset=onset, duration=duration, midi=midi, fifths=fifths, staff=staff, voice=[0] * len(notes),
        measure_start=[0, quarter, 4 * quarter, 7 * quarter], measure_length=lengths,
        measure_offset=[2 * quarter, 0, 0, 0], numerator=[3, 3, 3, 2], key_signature=[0, 0, -3, -3],
        measure_number=("0", "1", "2", "3"),
    )  # fmt: skip


def test_a_score_without_a_page_is_written_so_that_it_reads_back_as_it_was() -> None:
    score = tangled_score()
    label = chord(0, 9, C, C, 0, ChordType.MAJOR)
    text = written(AnalysisFormat.MUSICXML, [label], score, title="tangled")
    again = musicxml.read_score(text.encode())
    for name in ("onset", "midi", "fifths", "staff", "measure_start", "numerator", "key_signature", "measure_offset"):
        assert getattr(again, name).tolist() == getattr(score, name).tolist(), name
    assert again.duration[:-1].tolist() == score.duration[:-1].tolist()
    assert again.duration[-1] == 2 * QUARTER, "what outlasts the last measure is left out"
    stream = converter.parse(text, format="musicxml")
    assert len(stream.parts) == 3 and stream.metadata.title == "tangled"
    found = sorted((float(each.getOffsetInHierarchy(stream)), each.pitch.midi) for each in notes_of(stream))
    assert found == sorted(zip((score.onset / QUARTER).tolist(), score.midi.tolist()))
    assert [each.content for each in stream.parts[-1].recurse().getElementsByClass(expressions.TextExpression)] == [
        "C: I"
    ]


@pytest.mark.parametrize(
    ("doctype", "inside", "message"),
    [
        (b'<!DOCTYPE a [<!ENTITY b "c">]>', b"&b;", "without entities"),
        (b"", b"<x>" * 20_000 + b"</x>" * 20_000, "a dozen deep"),
    ],
)
def test_a_file_that_would_unfold_or_is_too_deep_is_not_written_on(doctype: bytes, inside: bytes, message: str) -> None:
    source = musicxml_of(SCORE)
    root = source.index(b"<score-partwise")
    source = doctype + source[root:].replace(b"</measure>", inside + b"</measure>", 1)
    with pytest.raises(InvalidInput, match=message) as caught:
        written(AnalysisFormat.MUSICXML, source=source, source_suffix="musicxml")
    assert caught.value.field == "score.file.data"


def notes_of(stream: Any) -> list[Any]:
    """The notes of chords by themselves, tied ones once."""
    found = []
    for element in stream.recurse().notes:
        for each in element.notes if element.isChord else [element]:
            if each.tie is None or each.tie.type == "start":
                each.getOffsetInHierarchy = element.getOffsetInHierarchy
                found.append(each)
    return found
