"""MusicXML is read as it sounds: pickups, ties, voices, staves, transpositions, split bars; bad bytes are refused."""

import io
import re
import zipfile
from pathlib import Path

import music21
import numpy as np
import pytest
from stretto_harmony.readers.musicxml import read_score
from stretto_harmony.scores.pitch import from_name, spelled_name
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score
from stretto_shared.errors import InvalidInput

Q = TICKS_PER_QUARTER


def note(step: str, octave: int, duration: int, *, alter: int = 0, extra: str = "", before: str = "") -> str:
    pitch = f"<pitch><step>{step}</step><alter>{alter}</alter><octave>{octave}</octave></pitch>"
    return f"<note>{before}{pitch}<duration>{duration}</duration>{extra}</note>"


def partwise(*parts: str) -> bytes:
    listed = "".join(f'<score-part id="P{place}"/>' for place in range(len(parts)))
    written = "".join(f'<part id="P{place}">{part}</part>' for place, part in enumerate(parts))
    return f"<score-partwise><part-list>{listed}</part-list>{written}</score-partwise>".encode()


def attributes(beats: int = 4, fifths: int = 0, divisions: int = 2, more: str = "") -> str:
    return (
        f"<attributes><divisions>{divisions}</divisions><key><fifths>{fifths}</fifths></key>"
        f"<time><beats>{beats}</beats><beat-type>4</beat-type></time>{more}</attributes>"
    )


TIE_START, TIE_STOP = '<tie type="start"/>', '<tie type="stop"/>'
PICKUP = partwise(
    f'<measure number="0" implicit="yes">{attributes(3, -1)}{note("C", 5, 2)}</measure>'
    f'<measure number="1">{note("F", 4, 6, extra=TIE_START)}'
    f"{note('A', 4, 6, before='<chord/>')}</measure>"
    f'<measure number="2">{note("F", 4, 2, extra=TIE_STOP)}{note("B", 4, 4, alter=-1)}</measure>'
)


def names(score: Score) -> list[str]:
    pairs = zip(score.fifths.tolist(), score.octave.tolist(), strict=True)
    return [f"{spelled_name(fifths)}{octave}" for fifths, octave in pairs]


def test_a_pickup_a_chord_and_a_tie() -> None:
    score = read_score(PICKUP)
    assert names(score) == ["C5", "F4", "A4", "Bb4"]
    assert score.onset.tolist() == [0, Q, Q, 5 * Q]
    assert score.duration.tolist() == [Q, 4 * Q, 3 * Q, 2 * Q]
    assert score.measure_length.tolist() == [Q, 3 * Q, 3 * Q]
    assert score.measure_offset.tolist() == [2 * Q, 0, 0]
    assert score.key_signature.tolist() == [-1, -1, -1]
    assert score.measure_number == ("0", "1", "2")
    assert score.beat_position(score.onset).tolist() == [2 * Q, 0, 0, Q]


def test_a_tie_may_lack_its_stop() -> None:
    start = f'<measure number="1">{attributes()}{note("C", 5, 8, extra=TIE_START)}</measure>'
    score = read_score(partwise(f'{start}<measure number="2">{note("C", 5, 4)}{note("C", 5, 4)}</measure>'))
    assert score.duration.tolist() == [6 * Q, 2 * Q]


def test_voices_staves_rests_and_backups() -> None:
    upper = note("E", 5, 4, extra="<voice>1</voice><staff>1</staff>")
    lower = note("C", 3, 8, extra="<voice>5</voice><staff>2</staff>")
    rest = "<note><rest/><duration>4</duration><voice>1</voice></note>"
    measure = f"{attributes(more='<staves>2</staves>')}{rest}{upper}<backup><duration>8</duration></backup>{lower}"
    second = f"{attributes()}<forward><duration>6</duration></forward>{note('G', 2, 2)}"
    score = read_score(partwise(f'<measure number="1">{measure}</measure>', f'<measure number="1">{second}</measure>'))
    assert names(score) == ["C3", "E5", "G2"]
    assert score.onset.tolist() == [0, 2 * Q, 3 * Q]
    assert score.staff.tolist() == [1, 0, 2]
    assert score.voice.tolist() == [1, 0, 0]


def test_grace_cue_and_unpitched_notes_are_left_out() -> None:
    grace = note("D", 5, 0, before="<grace/>")
    cue = note("D", 5, 2, before="<cue/>")
    drum = "<note><unpitched/><duration>2</duration></note>"
    score = read_score(partwise(f'<measure number="1">{attributes()}{grace}{cue}{drum}{note("C", 5, 4)}</measure>'))
    assert names(score) == ["C5"]
    assert score.onset.tolist() == [2 * Q]


@pytest.mark.parametrize(
    ("transpose", "sounding", "key"),
    [
        ("<diatonic>-1</diatonic><chromatic>-2</chromatic>", "Bb4", -2),
        ("<diatonic>-4</diatonic><chromatic>-7</chromatic>", "F4", -1),
        ("<diatonic>-5</diatonic><chromatic>-9</chromatic>", "Eb4", -3),
        ("<diatonic>-7</diatonic><chromatic>-12</chromatic>", "C4", 0),
        ("<diatonic>0</diatonic><chromatic>0</chromatic><octave-change>-1</octave-change>", "C4", 0),
        ("<diatonic>2</diatonic><chromatic>3</chromatic>", "Eb5", -3),
        ("<chromatic>-2</chromatic>", "Bb4", -2),
    ],
)
def test_transposing_instruments_sound(transpose: str, sounding: str, key: int) -> None:
    given = attributes(more=f"<transpose>{transpose}</transpose>")
    score = read_score(partwise(f'<measure number="1">{given}{note("C", 5, 8)}</measure>'))
    assert names(score) == [sounding]
    assert score.key_signature.tolist() == [key]


def test_a_bar_that_a_repeat_splits_goes_on_where_it_stopped() -> None:
    repeat = '<barline location="right"><repeat direction="backward"/></barline>'
    score = read_score(
        partwise(
            f'<measure number="1">{attributes()}{note("C", 4, 8)}</measure>'
            f'<measure number="2">{note("D", 4, 6)}{repeat}</measure>'
            f'<measure number="X1" implicit="yes">{note("E", 4, 2)}</measure>'
            f'<measure number="3">{note("F", 4, 8)}</measure>'
        )
    )
    assert score.measure_offset.tolist() == [0, 0, 3 * Q, 0]
    assert score.beat_position(score.onset).tolist() == [0, 0, 3 * Q, 0]
    assert score.num_ticks == 12 * Q


def test_short_bars_with_numbers_of_their_own_are_bars() -> None:
    bars = "".join(f'<measure number="{number}">{note("C", 4, 4)}</measure>' for number in (2, 3))
    score = read_score(partwise(f'<measure number="1">{attributes()}{note("C", 4, 8)}</measure>{bars}'))
    assert score.measure_length.tolist() == [4 * Q, 2 * Q, 2 * Q]
    assert score.measure_offset.tolist() == [0, 0, 0]


def test_an_empty_measure_is_as_long_as_its_metre() -> None:
    score = read_score(partwise(f'<measure number="1">{attributes(3)}</measure><measure number="2"></measure>'))
    assert score.measure_length.tolist() == [3 * Q, 3 * Q]
    assert score.num_notes == 0


def test_divisions_and_signatures_change_where_they_say() -> None:
    first = f'<measure number="1">{attributes()}{note("C", 4, 8)}</measure>'
    second = (
        f'<measure number="2">{attributes(3, 2, 12)}{note("D", 4, 12)}{note("E", 4, 4)}{note("F", 4, 20)}</measure>'
    )
    score = read_score(partwise(first + second))
    assert score.duration.tolist() == [4 * Q, Q, Q // 3, 5 * Q // 3]
    assert score.numerator.tolist() == [4, 3]
    assert score.key_signature.tolist() == [0, 2]


def test_timewise_is_read_as_partwise() -> None:
    timewise = PICKUP.replace(b"score-partwise", b"score-timewise")
    measures = re.findall(rb"<measure .*?</measure>", timewise)
    inner = b"".join(
        measure.replace(b">", b'><part id="P0">', 1).replace(b"</measure>", b"</part></measure>")
        for measure in measures
    )
    score = read_score(b"<score-timewise><part-list/>" + inner + b"</score-timewise>")
    assert score.onset.tolist() == read_score(PICKUP).onset.tolist()


def compressed(name: str, content: bytes, container: str | None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        if container is not None:
            archive.writestr("META-INF/container.xml", container)
        archive.writestr(name, content)
    return buffer.getvalue()


def test_compressed_scores_are_found_by_their_container_or_by_their_name() -> None:
    container = '<container><rootfiles><rootfile full-path="inner/score.bin"/></rootfiles></container>'
    for data in (compressed("inner/score.bin", PICKUP, container), compressed("score.xml", PICKUP, None)):
        assert read_score(data).num_notes == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no XML"),
        (b"<score-partwise>", "no XML"),
        (b"<html/>", "score-partwise"),
        (b"<score-partwise/>", "a part and a measure"),
        (partwise(*["<measure/>"] * 257), "up to 256 parts, got 257"),
        (b"PK\x03\x04 nothing", "broken one"),
        (compressed("readme.txt", b"", None), "got none"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><score-partwise/>', "without entities"),
        (
            '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]><a/>'.encode("utf-16"),
            "without entities",
        ),
        (PICKUP.replace(b"<octave>5", b"<octave>many"), "number in <octave>"),
        (PICKUP.replace(b"<octave>5", b"<octave>99"), "midi"),
        (PICKUP.replace(b"<step>C", b"<step>H"), "step from A to G"),
        (PICKUP.replace(b"<divisions>2", b"<divisions>0"), "1 or more in <divisions>"),
        (PICKUP.replace(b"<duration>2", b"<duration>1e999999999"), "number in <duration>"),
        (PICKUP.replace(b"<beat-type>4", b"<beat-type>5"), "denominator"),
        (PICKUP.replace(b"<fifths>-1", b"<fifths>99"), "key_signature"),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_score(data)
    assert caught.value.field.startswith("score")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["bach/bwv66.6.mxl", "bach/bwv1.6.mxl"])
def test_whole_scores_are_read_as_music21_reads_them(name: str) -> None:
    """A chorale with a pickup, and one with horns that transpose."""
    path = Path(music21.__file__).parent / "corpus" / name
    ours = read_score(path.read_bytes())
    theirs = music21.converter.parse(path).toSoundingPitch().stripTies()
    expected = sorted(
        (round(float(sounding.getOffsetInHierarchy(theirs)) * 4), pitch.midi, from_name(pitch.name))
        for sounding in theirs.recurse().notes
        if not sounding.duration.isGrace
        for pitch in sounding.pitches
    )
    found = zip((ours.onset * 4 // Q).tolist(), ours.midi.tolist(), ours.fifths.tolist(), strict=True)
    assert sorted(found) == expected


def test_damaged_bytes_never_do_worse_than_invalid_input() -> None:
    random = np.random.default_rng(0)
    for source in (PICKUP, compressed("score.xml", PICKUP, None)):
        for _ in range(300):
            damaged = bytearray(source)
            for place in random.integers(0, len(damaged), random.integers(1, 6)):
                damaged[place] = random.integers(0, 256)
            cut = bytes(damaged[: random.integers(1, len(damaged) + 1)]) if random.random() < 0.3 else bytes(damaged)
            try:
                assert read_score(cut).num_measures >= 1
            except InvalidInput as error:
                assert error.field.startswith("score")
