"""The harmony of scores: the client's methods, and the command."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stretto_client import (
    AnalysisFormat,
    ChordCandidate,
    ChordQuality,
    HarmonyAnalysis,
    HarmonyKey,
    HarmonyOutline,
    HarmonyReceipt,
    HarmonyWindow,
    InvalidInput,
    KeyCandidate,
    LabelledScore,
    NotatedScore,
    NotFound,
    ScoreFile,
    ScoreFormat,
    Section,
    ServerFailure,
    StrettoClient,
    Waveform,
)

Run = Callable[..., tuple[int, str, str]]
FILE = ScoreFile(b"<9", ScoreFormat.MUSICXML)


async def test_labels_come_window_by_window_between_the_outline_and_the_receipt(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        outline, *windows, receipt = [event async for event in client.analyze_harmony(FILE)]
        with pytest.raises(NotFound, match="model"):
            await anext(client.analyze_harmony(FILE, analyzer="missing"))
        with pytest.raises(InvalidInput, match=r"score\.file\.data"):
            await anext(client.analyze_harmony(ScoreFile(b"no", ScoreFormat.HUMDRUM)))
    assert isinstance(outline, HarmonyOutline) and (outline.num_measures, outline.window_measures) == (9, 2)
    assert isinstance(receipt, HarmonyReceipt) and receipt.num_windows == 5 and receipt.total_latency_s == 0.5
    assert all(isinstance(window, HarmonyWindow) for window in windows)
    label = windows[1].labels[0]
    assert (label.measure_index, label.start_ticks, label.confidence) == (2, 40_320, 0.25)
    assert label.key == label.tonicised_key and label.numeral in ("I", "IV", "V7")


async def test_a_stream_that_breaks_off_is_no_analysis(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        with pytest.raises(ServerFailure, match="before it was done"):
            await HarmonyAnalysis.collect(client.analyze_harmony(FILE, analyzer="breaks"))


def edited(score: NotatedScore, measure: int) -> NotatedScore:
    pitch = score.pitch_midi.copy()
    pitch[measure] = 67
    return dataclasses.replace(score, pitch_midi=pitch)


async def test_an_amended_analysis_is_that_of_the_edited_score_and_little_is_sent(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        for num_measures in (1, 9, 40):
            score = await client.read_score(ScoreFile(b"<%d" % num_measures, ScoreFormat.MUSICXML))
            before = await HarmonyAnalysis.collect(client.analyze_harmony(score))
            for measure in range(num_measures):
                changed = edited(score, measure)
                whole = await HarmonyAnalysis.collect(client.analyze_harmony(changed))
                amended = await client.reanalyze_harmony(changed, before, first_edited=measure)
                assert amended == whole != before
                first, last = before.needed_measures(measure, measure + 1, num_measures)
                assert last - first <= 2 * 2 + 2 * 1


async def test_an_edit_may_change_the_length_of_its_measures_or_their_number(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        score = await client.read_score(FILE)
        before = await HarmonyAnalysis.collect(client.analyze_harmony(score))
        lengths = score.measure_length_ticks.copy()
        lengths[4] += 5_000
        onsets = score.onset_ticks + 5_000 * (np.arange(9) > 4)
        longer = dataclasses.replace(score, measure_length_ticks=lengths, onset_ticks=onsets)
        fewer = await client.read_score(ScoreFile(b"<6", ScoreFormat.MUSICXML))
        for changed, first, count in ((longer, 4, 1), (fewer, 3, 3)):
            amended = await client.reanalyze_harmony(changed, before, first_edited=first, num_edited=count)
            assert amended == await HarmonyAnalysis.collect(client.analyze_harmony(changed))
        for first, count in ((3, 1), (6, 1), (0, 7), (0, 0)):
            with pytest.raises(InvalidInput, match="edited"):
                await client.reanalyze_harmony(fewer, before, first_edited=first, num_edited=count)


async def test_every_module_answers_and_an_analysis_is_written(door: Any) -> None:
    chord = ChordCandidate(2, ChordQuality.MINOR, 1, 0.5)
    async with StrettoClient(door.address) as client:
        analysis = await HarmonyAnalysis.collect(client.analyze_harmony(FILE))
        labels = [dataclasses.replace(label, root_fifths=2) for label in analysis.labels[:2]]
        assert await client.find_chord_changes(FILE) == [0.5] * 9
        assert await client.classify_chords(FILE, [(3, 5)], num_candidates=2) == [[chord, chord]]
        assert await client.predict_chord(FILE, labels) == [chord]
        assert await client.find_key_changes(FILE, labels) == [0.25, 0.25]
        assert await client.predict_key(FILE, labels) == [KeyCandidate(labels[-1].key, 0.75)]
        assert await client.predict_first_chord(HarmonyKey(2)) == [chord]
        written = await client.write_harmony(FILE, labels, AnalysisFormat.DCML_TSV, title="t", analyst="a")
        score = await client.read_score(FILE)
        again = await client.write_harmony(score, labels, AnalysisFormat.JSON)
    assert written.decode() == f"2 t a file: {labels[0].numeral} {labels[1].numeral}"
    assert again.startswith(b"3   score: ")


def test_neighbours_that_say_the_same_are_one_and_their_confidence_is_weighed() -> None:
    from fake_harmony_service import label_of
    from stretto_shared.grpc.convert_harmony import labels_from_proto
    from stretto_shared.harmony import joined

    own = labels_from_proto([label_of(0, 30, 1), label_of(30, 40, 1), label_of(50, 60, 1), label_of(60, 70, 2)])
    own = (dataclasses.replace(own[0], confidence=0.5), *own[1:])
    found = list(joined(own))
    assert [(each.start_ticks, each.end_ticks) for each in found] == [(0, 40), (50, 60), (60, 70)]
    assert found[0].confidence == pytest.approx((0.5 * 30 + 0.25 * 10) / 40)


async def test_a_recording_gets_its_harmony_with_the_score(door: Any) -> None:
    recording = Waveform(np.zeros((1, 24_000)), 24_000)
    async with StrettoClient(door.address) as client:
        events = [each async for each in client.analyze_music(recording, sections=[Section.HARMONY], title="waltz")]
    (labelled,) = [each for each in events if isinstance(each, LabelledScore)]
    assert labelled.musicxml == b"<waltz/>I" and len(labelled.labels) == 1
    assert events[-1].sections == (Section.HARMONY,)  # type: ignore[union-attr]


@pytest.fixture
def score_path(tmp_path: Path) -> Path:
    path = tmp_path / "piece.MusicXML"
    path.write_bytes(b"<9")
    return path


@pytest.mark.parametrize(
    ("suffix", "number"), [(".rntxt", 1), (".tsv", 2), (".json", 3), (".musicxml", 4), (".XML", 4)]
)
def test_analyze_writes_what_the_name_asks_for(
    run: Run, tmp_path: Path, score_path: Path, suffix: str, number: int
) -> None:
    output = tmp_path / f"out{suffix}"
    status, stdout, stderr = run("analyze", str(score_path), "-o", str(output), "--analyzer", "tiny")
    assert (status, stderr) == (0, "")
    assert output.read_text().startswith(f"{number} piece tiny@") and "chords" in stdout and "by tiny@" in stdout


def test_analyze_hears_a_recording_through_the_transcriber(run: Run, tmp_path: Path, recording: Path) -> None:
    for name, said in (("out.musicxml", f"<{recording.stem}/>I"), ("out.rntxt", f"1 {recording.stem} tiny@")):
        output = tmp_path / name
        status, stdout, _ = run("analyze", str(recording), "-o", str(output), "--json")
        assert status == 0 and output.read_text().startswith(said)
        assert json.loads(stdout)["chords"] == 1
        assert [model["name"] for model in json.loads(stdout)["models"]] == ["onsets", "tiny"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{score}", "-o", "{out}/x.pdf"), "expected a file that ends in .rntxt"),
        (("{score}", "-o", "{out}/none/x.tsv"), "existing folder"),
        (("{score}", "-o", "{score}"), "another file to write"),
        (("{out}/missing.krn", "-o", "{out}/x.tsv"), "No such file"),
        (("{out}/text.txt", "-o", "{out}/x.tsv"), "text.txt"),
        (("{score}", "-o", "{out}/x.tsv", "--analyzer", "missing"), "expected tiny"),
        (("{out}/broken.krn", "-o", "{out}/x.tsv"), "score.file.data"),
        (("{recording}", "-o", "{out}/x.tsv", "--title", "no score"), "at least two beats"),
    ],
)
def test_what_cannot_be_analysed_is_one_line_and_leaves_no_file(
    run: Run, tmp_path: Path, score_path: Path, recording: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "text.txt").write_text("no music")
    (tmp_path / "broken.krn").write_text("no music")
    before = sorted(tmp_path.iterdir())
    filled = [each.format(score=score_path, out=tmp_path, recording=recording) for each in arguments]
    status, stdout, stderr = run("analyze", *filled)
    assert status == 1 and said in stderr and len(stderr.splitlines()) == 1 and not stdout
    assert sorted(tmp_path.iterdir()) == before
