"""The real models behind the service, untrained: what is served is what each gives by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import music21
import numpy as np
import pytest
import torch
from stretto.common.v1 import score_pb2
from stretto.transcriber.v1 import transcriber_pb2, transcriber_pb2_grpc
from stretto_shared import weights
from stretto_transcriber.models.beat_tracker.config import BeatTrackerConfig
from stretto_transcriber.models.beat_tracker.decoding import detect_onsets, track_beats
from stretto_transcriber.models.beat_tracker.network import BeatTracker
from stretto_transcriber.models.notes import NoteEnds, Notes
from stretto_transcriber.models.onsets_frames import NoteDecoder, OnsetsFrames, OnsetsFramesConfig
from transcriber_calls import failure, noise, notes_of, track, transcribe, violation

SMALL = {
    "hop_length": 320, "window_frames": 40, "context_frames": 8, "stem_channels": 4, "fold_channels": 4,
    "branch_channels": 4, "lstm_size": 4, "combined_lstm_size": 4,
    "onset_threshold": 0.01, "frame_threshold": 0.529, "offset_threshold": 0.01,  # so low are untrained heads
}  # fmt: skip


SMALL_BEATS = {
    "num_bands": 16, "num_channels": 2, "dim": 4, "num_layers": 2, "window_frames": 100, "context_frames": 20,
}  # fmt: skip


KEYED = {"has_key_head": True, "release_channels": 4, "key_level": 0.8, "frame_threshold": 0.51}


def write_onsets_frames(folder: Path, **changes: Any) -> OnsetsFrames:
    torch.manual_seed(0)
    model = OnsetsFrames(OnsetsFramesConfig(**{**SMALL, **changes})).eval()
    if model.releases is not None:  # an untrained one would let all notes be held
        torch.nn.init.constant_(model.releases.head.bias, -0.5)
    weights.write(
        folder / "small",
        model.state_dict(),
        name="small",
        architecture="OnsetsFrames",
        config={**SMALL, **changes},
        licence="CC0-1.0",
        score="random",
        training={},
    )
    return model


@pytest.mark.parametrize(("ends", "changes"), [("sound", {}), ("key", KEYED)])
async def test_served_notes_are_those_of_the_model_and_its_decoder(
    serve: Any, tmp_path: Path, ends: NoteEnds, changes: dict[str, Any]
) -> None:
    model = write_onsets_frames(tmp_path, **changes)
    samples = noise(2.03, rate_hz=16_000)
    async with serve(weights_dir=tmp_path) as channel:
        stub = transcriber_pb2_grpc.TranscriberServiceStub(channel)
        number = transcriber_pb2.NoteEnds.Value(f"NOTE_ENDS_{ends.upper()}")
        served = notes_of(await transcribe(stub, samples, rate_hz=16_000, cuts=[7, 9000], ends=number))
    expected = listed(decoded(model, samples, model.new_decoder(ends)))
    assert len(served) == len(expected) > 5
    np.testing.assert_allclose(served, expected, atol=1e-9)
    if changes:
        without = NoteDecoder(model.config)
        assert listed(decoded(model, samples, without)) != expected


def decoded(model: OnsetsFrames, samples: np.ndarray, decoder: Any) -> Notes:
    """The notes of 102 frames, heard window by window."""
    whole, found = np.pad(samples[:, 0], (8 * 320, 48 * 320)), []
    with torch.inference_mode():
        for first in range(0, 102, 40):
            window = torch.from_numpy(whole[first * 320 : (first + 56) * 320])[None]
            found.append(decoder.push(model.window_heads(window).stacked()[0, : 102 - first].numpy()))
    return Notes.joined([*found, decoder.flush()])


def listed(notes: Notes) -> list[tuple[float, float, int, int]]:
    return sorted(zip(notes.onset_s, notes.offset_s - notes.onset_s, notes.pitch_midi, notes.velocity, strict=True))


async def test_served_beats_are_those_of_the_model_and_its_decoder(serve: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tracker = BeatTracker(BeatTrackerConfig(**SMALL_BEATS)).eval()
    with torch.no_grad():
        tracker.heads.weight *= 8  # so that an untrained network hears something
        tracker.heads.bias.copy_(torch.tensor([8.0, 0.0, -3.0]))
    weights.write(
        tmp_path / "small",
        tracker.state_dict(),
        name="small",
        architecture="BeatTracker",
        config=SMALL_BEATS,
        licence="CC0-1.0",
        score="random",
        training={},
    )
    samples = noise(6.01, rate_hz=16_000) * np.linspace(0, 1, 96_160)[:, None]
    async with serve(weights_dir=tmp_path) as channel:
        stub = transcriber_pb2_grpc.TranscriberServiceStub(channel)
        served = await track(stub, samples.astype("<f4"), rate_hz=16_000, cuts=[7, 9000])
    whole = np.pad(samples[:, 0].astype(np.float32), (20 * 320, 120 * 320))
    parts = []
    for first in range(0, 301, 100):
        heard = tracker.window_activations(torch.from_numpy(whole[first * 320 : (first + 140) * 320])[None])
        parts.append(torch.stack([heard.beat[0], heard.downbeat[0], heard.onset[0]])[:, : 301 - first])
    beat, downbeat, onset = torch.cat(parts, 1).numpy()
    expected = track_beats(beat, downbeat, 50.0)
    assert len(expected.beat_s) > 3 and list(served.beat_s) == expected.beat_s.tolist()
    assert list(served.beat_in_bar) == expected.beat_in_bar.tolist()
    assert list(served.tempo_bpm) == expected.tempo_bpm.tolist()
    assert served.time_signature_numerator == expected.numerator
    assert list(served.onset_s) == detect_onsets(onset, 50.0).tolist()


async def test_a_performance_is_engraved_and_music21_reads_it(serve: Any, tmp_path: Path) -> None:
    beat_s = [0.5 + 0.52 * index for index in range(9)]
    performance = score_pb2.Score(
        onset_s=[beat + 0.01 for beat in beat_s[:8]],
        duration_s=[0.5] * 8,
        pitch_midi=[60, 62, 64, 65, 67, 69, 71, 72],
        velocity=[64] * 8,
        part_index=[0] * 8,
        parts=[score_pb2.Part(name="piano")],
        beat_s=beat_s,
        beat_in_bar=[1, 2, 3, 4, 1, 2, 3, 4, 1],
    )
    async with serve(weights_dir=tmp_path) as channel:
        stub = transcriber_pb2_grpc.TranscriberServiceStub(channel)
        request = transcriber_pb2.EngraveScoreRequest
        engraved = await stub.EngraveScore(request(score=performance, title="A scale"), timeout=120)
        again = await stub.EngraveScore(request(score=performance, title="A scale"), timeout=120)
        performance.ClearField("onset_s")
        for name in ("duration_s", "pitch_midi", "velocity", "part_index"):
            performance.ClearField(name)
        empty = await stub.EngraveScore(request(score=performance), timeout=120)
        performance.parts[0].is_drum = True
        performance.MergeFrom(
            score_pb2.Score(onset_s=[1], duration_s=[1], pitch_midi=[60], velocity=[60], part_index=[0])
        )
        drums = await failure(stub.EngraveScore(request(score=performance), timeout=120))
    assert again.musicxml == engraved.musicxml and b"encoding-date" not in engraved.musicxml
    written = engraved.score
    assert list(written.pitch_midi) == [60, 62, 64, 65, 67, 69, 71, 72] and len(written.spelling_fifths) == 8
    quarters = np.array(written.onset_s) * written.tempos[0].tempo_bpm / 60
    np.testing.assert_allclose(np.diff(quarters), 1.0)
    assert (written.time_signatures[0].numerator, written.time_signatures[0].denominator) == (4, 4)
    read = music21.converter.parseData(engraved.musicxml, format="musicxml")
    assert sorted(note.pitch.midi for note in read.recurse().notes) == [60, 62, 64, 65, 67, 69, 71, 72]
    assert b"<work-title>A scale</work-title>" in engraved.musicxml
    assert not empty.score.onset_s and music21.converter.parseData(empty.musicxml, format="musicxml")
    assert violation(drums)[0] == "score.parts[0]"
