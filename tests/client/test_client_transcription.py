"""What was played in a recording: the client's methods, its files, and the commands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import symusic
from stretto_client import (
    AnalysisProgress,
    AnalysisReceipt,
    EngravedScore,
    InvalidInput,
    Key,
    LabelledScore,
    NoteChunk,
    NoteEnds,
    NotFound,
    Overloaded,
    Part,
    Score,
    Section,
    StrettoClient,
    Tempo,
    TimeSignature,
    TrackedBeats,
    Waveform,
    write_beats,
    write_midi,
)
from stretto_client.picture import draw_piano_roll

Run = Callable[..., tuple[int, str, str]]
RECORDING = Waveform(np.zeros((2, 60_000)), 24_000)  # 2.5 s
BEATS = TrackedBeats(np.array([0.1, 0.6004]), np.array([2, 1]), np.array([120.0, 119.9]), 2, np.array([0.05]))


def score_of(*notes: tuple[float, float, int, int], **known: Any) -> Score:
    onset_s, duration_s, pitch, velocity = (np.array(column) for column in zip(*notes, strict=True))
    known = {"part_index": np.zeros(len(notes)), "parts": (Part("piano"),)} | known
    return Score(onset_s, duration_s, pitch, velocity, **known)


async def test_notes_come_piece_by_piece_with_who_heard_them_and_how_far_they_are_complete(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        chunks = [chunk async for chunk in client.transcribe_audio(RECORDING)]
        with pytest.raises(NotFound, match="cascade"):
            await anext(client.transcribe_audio(RECORDING, model="missing"))
    assert [chunk.notes.onset_s.tolist() for chunk in chunks] == [[0.0], [1.0], [2.0]]
    assert [chunk.complete_s for chunk in chunks] == [1.0, 2.0, 2.5]
    assert {chunk.model and chunk.model.name for chunk in chunks} == {"onsets"}


async def test_notes_end_as_is_asked(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        for ends, duration_s in ((NoteEnds.SOUND, 0.5), (NoteEnds.KEY, 0.25)):
            chunks = [chunk async for chunk in client.transcribe_audio(RECORDING, ends=ends)]
            assert {chunk.notes.duration_s[0] for chunk in chunks} == {duration_s}


async def test_audio_is_transcribed_while_it_comes(door: Any) -> None:
    heard = asyncio.Event()

    async def halves() -> Any:
        yield Waveform(np.zeros(24_000), 24_000)
        await heard.wait()  # which never happens unless the first half is answered before the second is sent
        yield Waveform(np.zeros(12_000), 24_000)

    async with StrettoClient(door.address) as client, asyncio.timeout(60):
        async for _ in client.transcribe_audio(halves()):
            heard.set()
    assert heard.is_set()


async def test_beats_come_at_once(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        beats = await client.track_beats(RECORDING)
        with pytest.raises(Overloaded) as caught:
            await client.track_beats(RECORDING, model="full")
    assert beats.beat_s.tolist() == [0.0, 0.5, 1.0] and beats.beat_in_bar.tolist() == [1, 2, 1]
    assert beats.tempo_bpm.tolist() == [120.0] * 3 and beats.numerator == 2
    assert beats.onset_s.tolist() == [5.0], "both channels of every sample were sent"
    assert beats.model is not None and beats.model.name == "beats"
    assert caught.value.retry_after_s == 1.5


async def test_a_source_that_fails_fails_the_call_with_its_own_error(door: Any) -> None:
    async def broken() -> Any:
        yield Waveform(np.zeros(100), 24_000)
        raise InvalidInput("path", "the file is cut short.")

    async with StrettoClient(door.address) as client, asyncio.timeout(60):
        with pytest.raises(InvalidInput, match="cut short"):
            await client.track_beats(broken())


async def test_a_performance_becomes_a_score(door: Any) -> None:
    performance = score_of((0.0, 0.4, 60, 80), beat_s=[0.0, 0.5], beat_in_bar=[1, 2])
    async with StrettoClient(door.address) as client:
        engraved = await client.engrave_score(performance, title="waltz")
        with pytest.raises(InvalidInput, match=r"score\.beat_s"):
            await client.engrave_score(score_of((0.0, 0.4, 60, 80)))
    assert engraved.musicxml == b"<waltz/>" and engraved.score.beat_s.tolist() == [0.0, 0.5]


async def test_an_analysis_brings_what_was_asked_for_and_the_receipt_last(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        events = [event async for event in client.analyze_music(RECORDING, sections=list(Section), title="waltz")]
        notes = [event async for event in client.analyze_music(RECORDING, sections=[Section.NOTES])]
        with pytest.raises(InvalidInput, match=r"sections.*'chords'"):
            await anext(client.analyze_music(RECORDING, sections=["chords"]))  # type: ignore[list-item]
    kinds = [AnalysisProgress, NoteChunk, NoteChunk, NoteChunk, TrackedBeats, EngravedScore]
    kinds += [LabelledScore, AnalysisReceipt]
    assert [type(event) for event in events] == kinds
    receipt = events[-1]
    assert isinstance(receipt, AnalysisReceipt)
    assert receipt.sections == tuple(Section) and receipt.total_latency_s == 2.0
    assert [model.name for model in receipt.models] == ["onsets", "beats", "tiny"] and receipt.duration_s == 2.5
    assert [type(event) for event in notes] == [AnalysisProgress, *[NoteChunk] * 3, AnalysisReceipt]


def test_a_performance_as_midi_sounds_when_and_how_it_was_heard(tmp_path: Path) -> None:
    performance = score_of((0.0, 0.5, 60, 1), (0.1234, 2.0, 64, 127), (3.3333, 0.25, 21, 64))
    write_midi(tmp_path / "a.mid", performance)
    (piano,) = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments
    notes = sorted(piano.notes, key=lambda note: note.start)
    assert [note.start for note in notes] == pytest.approx(performance.onset_s, abs=1e-4)
    assert [note.end for note in notes] == pytest.approx(performance.offset_s, abs=1e-4)
    assert [(note.pitch, note.velocity) for note in notes] == [(60, 1), (64, 127), (21, 64)]
    assert (piano.program, piano.is_drum, piano.name) == (0, False, "piano")


def test_a_score_as_midi_keeps_its_marks_parts_and_beats(tmp_path: Path) -> None:
    score = score_of(
        (0.0, 0.5, 60, 64),
        (0.5, 1.0, 38, 90),
        (3.0, 0.4, 62, 64),
        part_index=np.array([0, 1, 0]),
        parts=(Part("flute", 73), Part("drums", 0, is_drum=True)),
        tempos=(Tempo(0.0, 120.0), Tempo(2.0, 60.0)),
        time_signatures=(TimeSignature(0.0, 3, 4), TimeSignature(1.5, 6, 8)),
        keys=(Key(0.0, 2), Key(1.5, 3, is_minor=True)),
    )
    write_midi(tmp_path / "a.mid", score)
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    assert [list(each) for each in midi.get_tempo_changes()] == [[0.0, 2.0], pytest.approx([120.0, 60.0])]
    assert [(each.time, each.numerator, each.denominator) for each in midi.time_signature_changes] == [
        (0.0, 3, 4),
        (1.5, 6, 8),
    ]
    names = [pretty_midi.key_number_to_key_name(each.key_number) for each in midi.key_signature_changes]
    assert names == ["D Major", "A minor"]
    found = {
        (each.name, each.program, each.is_drum): [(n.start, n.end) for n in each.notes] for each in midi.instruments
    }
    assert found[("flute", 73, False)] == [pytest.approx((0.0, 0.5)), pytest.approx((3.0, 3.4))]
    assert found[("drums", 0, True)] == [pytest.approx((0.5, 1.5))]
    ticks = symusic.Score(str(tmp_path / "a.mid"))
    quarters = [note.time / ticks.ticks_per_quarter for note in ticks.tracks[0].notes]
    assert quarters == [0.0, 5.0], "two seconds at 120, one at 60"


def test_overlapping_notes_of_one_pitch_end_where_the_next_begins(tmp_path: Path) -> None:
    write_midi(
        tmp_path / "a.mid", score_of((0.0, 3.0, 60, 64), (1.0, 0.5, 60, 70), (1.0, 0.7, 60, 71), (2.0, 1e-9, 60, 72))
    )
    (piano,) = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments
    assert [(note.start, round(note.end, 6)) for note in piano.notes] == [(0.0, 1.0), (1.0, 1.7), (2.0, 2.00005)]


def test_a_score_without_notes_is_a_file_too(tmp_path: Path) -> None:
    write_midi(tmp_path / "a.mid", Score(*np.zeros((5, 0)), parts=(Part("piano"),)))
    assert not symusic.Score(str(tmp_path / "a.mid")).note_num()


def test_beats_are_lines_or_json_by_the_name_of_the_file(tmp_path: Path) -> None:
    write_beats(tmp_path / "a.beats", BEATS)
    assert (tmp_path / "a.beats").read_text() == "0.100\t2\n0.600\t1\n"
    no_bars = TrackedBeats(BEATS.beat_s, np.zeros(0, np.int32), BEATS.tempo_bpm, 0, BEATS.onset_s)
    write_beats(tmp_path / "a.beats", no_bars)
    assert (tmp_path / "a.beats").read_text() == "0.100\n0.600\n"
    write_beats(tmp_path / "a.json", BEATS)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "beat_s": [0.1, 0.6004],
        "beat_in_bar": [2, 1],
        "tempo_bpm": [120.0, 119.9],
        "time_signature_numerator": 2,
        "onset_s": [0.05],
        "model": None,
    }
    with pytest.raises(InvalidInput, match=r"\.beats or \.json"):
        write_beats(tmp_path / "a.txt", BEATS)


def test_a_piano_roll_shows_notes_and_beats(tmp_path: Path) -> None:
    score = score_of((0.0, 0.4, 60, 80), (1.0, 0.5, 72, 20), beat_s=[0.0, 0.5], beat_in_bar=[1, 2])
    draw_piano_roll(tmp_path / "a.png", score, "100 $ and [/b]", 2.0)
    draw_piano_roll(tmp_path / "b.png", score_of((0.0, 0.4, 60, 80)), "100 $ and [/b]", 2.0)
    draw_piano_roll(tmp_path / "c.png", Score(*np.zeros((5, 0)), parts=()), "", 2.0)
    pictures = [(tmp_path / f"{name}.png").read_bytes() for name in "abc"]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures) and len(set(pictures)) == 3


def test_transcribe_writes_midi_a_score_and_a_picture(run: Run, tmp_path: Path, recording: Path) -> None:
    midi, score, picture = (tmp_path / name for name in ("a.mid", "a.musicxml", "a.png"))
    status, out, err = run("transcribe", recording, "-o", midi, "--score", score, "--picture", picture)
    assert (status, err) == (0, "")
    ids = ", ".join(f"{name}@{'ab' * 6}" for name in ("onsets", "beats"))
    assert out == f"Wrote {midi}: 2 notes of 1.2 s, by {ids}.\nDrew {picture}.\nWrote {score}.\n"
    assert symusic.Score(str(midi)).note_num() == 2 and picture.read_bytes().startswith(b"\x89PNG")
    assert score.read_bytes() == b"<recording/>", "called as the file is"
    status, out, _ = run("transcribe", recording, "-o", midi, "--score", tmp_path / "b.mid", "--title", "x", "--json")
    facts = json.loads(out)
    assert (facts["notes"], facts["duration_s"], facts["picture"]) == (2, 1.25, None)
    assert [model["name"] for model in facts["models"]] == ["onsets", "beats"]
    assert symusic.Score(str(tmp_path / "b.mid")).note_num() == 1


def test_transcribe_alone_asks_for_notes_alone(run: Run, tmp_path: Path, recording: Path) -> None:
    status, out, _ = run("transcribe", recording, "-o", tmp_path / "a.mid", "--json")
    assert status == 0 and [model["name"] for model in json.loads(out)["models"]] == ["onsets"]


def test_transcribe_ends_notes_as_it_is_told(run: Run, tmp_path: Path, recording: Path) -> None:
    lengths_s = {}
    for ends in ((), ("--ends", "sound"), ("--ends", "key")):
        midi = tmp_path / f"{len(lengths_s)}.mid"
        assert run("transcribe", recording, "-o", midi, *ends)[0] == 0
        score = symusic.Score(str(midi)).to("second")
        lengths_s[ends] = round(score.tracks[0].notes[0].duration, 3)
    assert list(lengths_s.values()) == [0.5, 0.5, 0.25]
    assert run("transcribe", recording, "-o", tmp_path / "b.mid", "--ends", "pedal")[0] == 2


def test_without_a_score_to_write_the_notes_are_kept_and_the_command_fails_in_one_line(
    run: Run, tmp_path: Path, recording: Path
) -> None:
    midi, score = tmp_path / "a.mid", tmp_path / "a.musicxml"
    status, out, err = run("transcribe", recording, "-o", midi, "--score", score, "--title", "no score")
    assert status == 1 and out.startswith(f"Wrote {midi}: 2 notes") and midi.exists() and not score.exists()
    assert err.startswith("stretto: score: expected notes and at least two beats") and err.count("\n") == 1


def test_beats_writes_the_beats_and_says_how_fast_they_are(run: Run, tmp_path: Path, recording: Path) -> None:
    path = tmp_path / "a.beats"
    status, out, err = run("beats", recording, "-o", path)
    assert (status, err) == (0, "")
    assert out == f"Wrote {path}: 3 beats around 120 a minute, 2 in a bar, by beats@{'ab' * 6}.\n"
    assert path.read_text() == "0.000\t1\n0.500\t2\n1.000\t1\n"
    facts = json.loads(run("beats", recording, "-o", tmp_path / "a.json", "--json")[1])
    assert (facts["beats"], facts["tempo_bpm"], facts["beats_per_bar"]) == (3, 120.0, 2)
    assert json.loads((tmp_path / "a.json").read_text())["model"] == f"beats@{'ab' * 6}"


@pytest.mark.parametrize(("model", "said"), [("alone", "1 beat, 2 in a bar"), ("none", "0 beats")])
def test_a_tempo_that_is_not_known_is_not_told(
    run: Run, tmp_path: Path, recording: Path, model: str, said: str
) -> None:
    path = tmp_path / "a.beats"
    status, out, err = run("beats", recording, "-o", path, "--model", model)
    assert (status, err) == (0, "") and out == f"Wrote {path}: {said}, by beats@{'ab' * 6}.\n"
    assert json.loads(run("beats", recording, "-o", path, "--model", model, "--json")[1])["tempo_bpm"] is None


@pytest.mark.parametrize("command", ["transcribe", "beats"])
def test_what_the_server_refuses_is_one_line_and_leaves_no_file(
    run: Run, tmp_path: Path, recording: Path, command: str
) -> None:
    path = tmp_path / ("a.mid" if command == "transcribe" else "a.beats")
    status, out, err = run(command, recording, "-o", path, "--model", "missing")
    assert (status, out) == (1, "") and err.startswith("stretto: cascade: expected") and err.count("\n") == 1
    assert not path.exists()
