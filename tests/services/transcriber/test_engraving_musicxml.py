"""MusicXML of engraved scores: music21 and partitura read back what was written, and every voice fills its bar."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from fractions import Fraction as F
from pathlib import Path
from types import ModuleType

import music21
import numpy as np
import pytest
from stretto_transcriber.models.engraving import Bar, EngravedNote, EngravedScore, to_musicxml
from stretto_transcriber.models.engraving.notation import symbols_of
from stretto_transcriber.models.engraving.spelling import spell

BEAT = F(1)


def note(onset: F, duration: F, pitch: int, staff: int = 1, voice: int = 1, fifths: int | None = None) -> EngravedNote:
    place = spell(np.array([pitch]), np.array([0]))[0] if fifths is None else fifths
    return EngravedNote(onset, duration, pitch, int(place), 70, staff, voice, 0)


def score(
    *notes: EngravedNote, num_bars: int = 2, signature: tuple[int, int] = (4, 4), sharps: int = 0
) -> EngravedScore:
    numerator, denominator = signature
    beat = F(3, 2) if denominator == 8 and numerator % 3 == 0 else F(4, denominator)
    num_beats = int(F(4 * numerator, denominator) / beat)
    bars = tuple(
        Bar(index * num_beats * beat, num_beats, beat, index * num_beats, numerator, denominator, sharps)
        for index in range(num_bars)
    )
    ordered = sorted(notes, key=lambda each: (each.onset, each.staff, each.voice, each.pitch_midi))
    return EngravedScore(bars, tuple(ordered), 100.0)


def read(engraved: EngravedScore) -> music21.stream.Score:
    return music21.converter.parse(to_musicxml(engraved), format="musicxml")


def sounding(stream: music21.stream.Score) -> list[tuple[F, F, int]]:
    """Onset, length and pitch of the notes, ties joined."""
    found = []
    for part in stream.parts:
        for each in part.stripTies().flatten().notes:
            found += [(F(each.offset), F(each.quarterLength), pitch.midi) for pitch in each.pitches]
    return sorted(found)


PIECES = {
    "empty": score(),
    "one note": score(note(F(0), F(1), 60)),
    "tie over the bar line": score(note(F(3), F(2), 72), note(F(0), F(3), 71)),
    "rests": score(note(F(1, 2), F(1, 4), 72), note(F(5), F(1), 74), note(F(2), F(1), 40, 2)),
    "triplets": score(*(note(F(i, 3), F(1, 3), 72 + i) for i in range(6))),
    "quintuplet": score(*(note(F(i, 5), F(1, 5), 72 + i) for i in range(5))),
    "triplet over a tie": score(note(F(0), F(4, 3), 72), note(F(4, 3), F(1, 3), 74), note(F(5, 3), F(7, 3), 76)),
    "syncopation": score(note(F(1, 2), F(3, 2), 72), note(F(2), F(5, 2), 74)),
    "chord": score(*(note(F(0), F(2), 60 + i * 3) for i in range(5))),
    "two voices": score(note(F(0), F(4), 64, 1, 2), *(note(F(i), F(1), 76 + i) for i in range(4))),
    "compound": score(*(note(F(i, 2), F(1, 2), 70 + i) for i in range(6)), signature=(6, 8)),
    "accidentals": score(note(F(0), F(1), 66), note(F(1), F(1), 65), note(F(2), F(1), 70, fifths=-2), sharps=3),
    "all the way down": score(note(F(1, 16), F(1, 32), 90), note(F(3, 32), F(5, 32), 91)),
}


@pytest.mark.parametrize("name", sorted(PIECES))
def test_music21_reads_what_was_written(name: str) -> None:
    engraved = PIECES[name]
    expected = sorted((each.onset, each.duration, each.pitch_midi) for each in engraved.notes)

    stream = read(engraved)

    assert len(stream.parts) == 2
    read_back = sounding(stream)
    assert [pitch for _, _, pitch in read_back] == [pitch for _, _, pitch in expected]
    for found, wanted in zip(read_back, expected):
        assert found[:2] == pytest.approx(wanted[:2], abs=1e-4)


@pytest.mark.parametrize("name", sorted(PIECES))
def test_partitura_reads_what_was_written(name: str, partitura: ModuleType, tmp_path: Path) -> None:
    engraved = PIECES[name]
    path = tmp_path / "score.musicxml"
    path.write_bytes(to_musicxml(engraved))

    opened = partitura.load_musicxml(path)

    rows = [row for part in opened for row in partitura.utils.music.ensure_notearray(part)] if engraved.notes else []
    found = sorted((float(row["onset_quarter"]), float(row["duration_quarter"]), int(row["pitch"])) for row in rows)
    wanted = sorted((float(each.onset), float(each.duration), each.pitch_midi) for each in engraved.notes)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted):
        assert one == pytest.approx(other, abs=1e-3)
    assert {len(part.measures) for part in opened} == {len(engraved.bars)}


@pytest.mark.parametrize("name", sorted(PIECES))
def test_every_voice_fills_its_bar(name: str) -> None:
    engraved = PIECES[name]
    root = ElementTree.fromstring(to_musicxml(engraved))
    divisions = int(next(root.iter("divisions")).text or 0)

    measures = list(root.iter("measure"))

    assert len(measures) == len(engraved.bars)
    for bar, measure in zip(engraved.bars, measures):
        length: dict[str, int] = defaultdict(int)
        for each in measure.iter("note"):
            if each.find("chord") is None:
                length[each.findtext("voice", "")] += int(each.findtext("duration", "0"))
        assert {F(value, divisions) for value in length.values()} == {bar.duration}


@pytest.mark.parametrize("name", sorted(PIECES))
def test_symbols_are_written_values_of_the_right_length(name: str) -> None:
    engraved = PIECES[name]
    quarters = {
        "whole": F(4),
        "half": F(2),
        "quarter": F(1),
        "eighth": F(1, 2),
        "16th": F(1, 4),
        "32nd": F(1, 8),
        "128th": F(1, 32),
    }
    for bar in engraved.bars:
        notes = [n for n in engraved.notes if n.voice == n.staff == 1 and n.onset < bar.end and n.end > bar.onset]
        for symbol in symbols_of(bar, notes):
            length = quarters.get(symbol.type, F(1, 16)) * (F(3, 2) if symbol.dots else 1)
            if symbol.tuplet:
                length = length * symbol.tuplet.normal / symbol.tuplet.actual
            assert length == symbol.duration


def test_a_note_over_the_beat_is_cut_there_and_tied() -> None:
    bar = Bar(F(0), 4, BEAT, 0, 4, 4)

    symbols = symbols_of(bar, [note(F(1, 2), F(3, 2), 72)])

    assert [(s.onset, s.duration, bool(s.notes), s.tied_back, s.tied_on) for s in symbols] == [
        (F(0), F(1, 2), False, False, False),
        (F(1, 2), F(1, 2), True, False, True),
        (F(1), F(1), True, True, False),
        (F(2), F(2), False, False, False),
    ]


def test_a_triplet_is_marked_where_it_begins_and_ends() -> None:
    bar = Bar(F(0), 4, BEAT, 0, 4, 4)

    symbols = symbols_of(bar, [note(F(i, 3), F(1, 3), 72) for i in range(3)])

    assert [s.type for s in symbols[:3]] == ["eighth"] * 3
    marks = [(s.tuplet.actual, s.tuplet.normal, s.tuplet.is_start, s.tuplet.is_stop) for s in symbols[:3] if s.tuplet]
    assert marks == [(3, 2, True, False), (3, 2, False, False), (3, 2, False, True)]
    assert all(s.tuplet is None for s in symbols[3:])


def test_signatures_clefs_and_pickup_reach_the_file() -> None:
    bars = (
        Bar(F(0), 1, BEAT, 0, 3, 4, -3, True),
        Bar(F(1), 3, BEAT, 1, 3, 4, -3, True),
        Bar(F(4), 4, BEAT, 4, 4, 4, 2),
    )
    stream = read(EngravedScore(bars, (note(F(0), F(1), 67),), 90.0))

    measures = list(stream.parts[0].getElementsByClass("Measure"))
    assert measures[0].number == 0
    assert [m.timeSignature.ratioString for m in measures if m.timeSignature] == ["3/4", "4/4"]
    assert [m.keySignature.sharps for m in measures if m.keySignature] == [-3, 2]
    assert [part.flatten().getElementsByClass("Clef")[0].sign for part in stream.parts] == ["G", "F"]
    assert [m.highestTime for m in measures] == [1, 3, 4]


def test_an_accidental_is_shown_once_in_a_bar_and_undone() -> None:
    sharp, natural = 6, -1
    engraved = score(
        note(F(0), F(1), 66, fifths=sharp), note(F(1), F(1), 66, fifths=sharp), note(F(2), F(1), 65, fifths=natural)
    )
    root = ElementTree.fromstring(to_musicxml(engraved))

    assert [each.text for each in root.iter("accidental")] == ["sharp", "natural"]


def test_eighths_of_a_beat_share_a_beam() -> None:
    root = ElementTree.fromstring(to_musicxml(score(*(note(F(i, 2), F(1, 2), 72) for i in range(4)))))

    assert [each.text for each in root.iter("beam")] == ["begin", "end", "begin", "end"]
