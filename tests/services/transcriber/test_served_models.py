"""The real architectures behind the service, with random weights: what is served is what the model gives by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from stretto.transcriber.v1 import transcriber_pb2_grpc
from stretto_shared import weights
from stretto_transcriber.models.onsets_frames import NoteDecoder, OnsetsFrames, OnsetsFramesConfig
from transcriber_calls import noise, notes_of, transcribe

SMALL = {
    "hop_length": 320, "window_frames": 40, "context_frames": 8, "stem_channels": 4, "fold_channels": 4,
    "branch_channels": 4, "lstm_size": 4, "combined_lstm_size": 4,
    "onset_threshold": 0.01, "frame_threshold": 0.529, "offset_threshold": 0.01,  # so low are untrained heads
}  # fmt: skip


def write_onsets_frames(folder: Path) -> OnsetsFrames:
    torch.manual_seed(0)
    model = OnsetsFrames(OnsetsFramesConfig(**SMALL)).eval()
    weights.write(
        folder / "small",
        model.state_dict(),
        name="small",
        architecture="OnsetsFrames",
        config=SMALL,
        licence="CC0-1.0",
        score="random",
        training={},
    )
    return model


async def test_served_notes_are_those_of_the_model_and_its_decoder(serve: Any, tmp_path: Path) -> None:
    model = write_onsets_frames(tmp_path)
    samples = noise(2.03, rate_hz=16_000)
    async with serve(weights_dir=tmp_path) as channel:
        stub = transcriber_pb2_grpc.TranscriberServiceStub(channel)
        served = notes_of(await transcribe(stub, samples, rate_hz=16_000, cuts=[7, 9000]))
    config = model.config
    whole = np.pad(samples[:, 0], (8 * 320, 48 * 320))
    decoder, found = NoteDecoder(config), []
    with torch.inference_mode():
        for first in range(0, 102, 40):
            window = torch.from_numpy(whole[first * 320 : (first + 56) * 320])[None]
            frames = model.window_heads(window).stacked()[0, : 102 - first].numpy()
            found.append(decoder.push(frames))
    found.append(decoder.flush())
    expected = sorted(
        (onset_s, offset_s - onset_s, pitch, velocity)
        for part in found
        for onset_s, offset_s, pitch, velocity in zip(part.onset_s, part.offset_s, part.pitch_midi, part.velocity)
    )
    assert len(served) == len(expected) > 5
    np.testing.assert_allclose(served, expected, atol=1e-9)
