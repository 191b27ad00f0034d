"""A clip encoded window by window has the codes of the clip in one piece, and leaves room for others."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from stretto_codec.engine import CodecEngine, encoding
from stretto_codec.engine.encoding import WindowedEncoder, encode_work, join
from stretto_codec.loading import ARCHITECTURES, LoadedCodec, Reach, Segments
from stretto_shared.audio import Waveform
from stretto_shared.tokens import TokenMatrix

PARTS = {
    "framecodec": ["front_reach"],
    "soundstream": ["front_reach"],
    "encodec_24khz": ["front_reach", "back_reach", "remember"],
    "encodec_32khz": ["front_reach", "back_reach", "remember"],
}
"""Codecs without segments, and the parts of their encoders that look beyond a frame: a feed-forward one has nothing
between front and quantizer."""


def noise(codec: LoadedCodec, num_samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(1, codec.config.num_channels, num_samples, generator=generator) * 0.1


def show_latents(codec: LoadedCodec) -> None:
    """Let the codec give what it would quantize, [1, D, T], in which every rounding shows."""
    is_channels_last = codec.architecture is not ARCHITECTURES["Encodec"]
    codec.module.quantizer.encode = lambda latents: latents.transpose(1, 2) if is_channels_last else latents


def in_windows(codec: LoadedCodec, audio: torch.Tensor, window_frames: int) -> torch.Tensor:
    encoder = WindowedEncoder(codec.encoder_parts(), codec.config.hop_length)
    return join([work() for work in encoder.windows(audio, window_frames)])[0]


@pytest.mark.parametrize("window_frames", [1, 11])
@pytest.mark.parametrize("name", PARTS)
@torch.inference_mode()
def test_windows_give_the_latents_and_codes_of_one_piece(load: Any, steady: Any, name: str, window_frames: int) -> None:
    codec = load(name)
    audio = noise(codec, 22 * codec.config.hop_length + 5)
    codes, whole = in_windows(codec, audio, window_frames), codec.encode(audio)[0]
    is_steady = steady(codec.module, audio)
    assert codes.shape == whole.shape and torch.equal(codes[is_steady], whole[is_steady])
    show_latents(codec)
    latents = in_windows(codec, audio, window_frames)
    torch.testing.assert_close(latents, codec.encode(audio)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PARTS)
def test_the_parts_that_look_beyond_a_frame_are_those_of_the_table(load: Any, name: str) -> None:
    parts = load(name).encoder_parts()
    assert PARTS[name] == [
        part for part in ("front_reach", "back_reach", "remember") if getattr(parts, part) not in (None, Reach())
    ]


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in PARTS.items() for part in parts])
@torch.inference_mode()
def test_less_context_or_memory_would_show(load: Any, name: str, part: str) -> None:
    codec = load(name)
    show_latents(codec)
    parts = codec.encoder_parts()
    less = Reach() if part != "remember" else lambda frames, memory: parts.remember(frames, None)
    encoder = WindowedEncoder(dataclasses.replace(parts, **{part: less}), codec.config.hop_length)
    audio = noise(codec, 22 * codec.config.hop_length)
    latents, _ = join([work() for work in encoder.windows(audio, 8)])
    assert not torch.allclose(latents, codec.encode(audio)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_samples", [1, 48_000, 95_040, 95_041])
@torch.inference_mode()
def test_segments_one_by_one_give_the_codes_and_loudness_of_one_piece(load: Any, num_samples: int) -> None:
    codec = load("encodec_48khz")
    assert codec.encoder_parts() == Segments(48_000, 47_520)
    audio = noise(codec, num_samples)
    codes, scales = join([work() for work in encode_work(codec, audio)])
    whole, whole_scales = codec.encode(audio)
    assert torch.equal(codes, whole)
    assert torch.equal(scales, whole_scales)


@pytest.mark.parametrize("name", PARTS)
async def test_the_engine_encodes_a_long_clip_as_one_piece_would(
    load: Any, steady: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "WINDOW_S", 0.25)
    codec = load(name)
    audio = noise(codec, round(0.6 * codec.config.sample_rate_hz))
    engine = CodecEngine({name: lambda: codec})
    await engine.start()
    try:
        clip = await engine.encode(name, Waveform(audio[0].numpy(), codec.config.sample_rate_hz))
    finally:
        await engine.stop()
    with torch.inference_mode():
        codes, scales = codec.encode(audio)
        is_steady = steady(codec.module, audio)[0].numpy()
    assert clip.num_samples == audio.shape[-1]
    assert clip.tokens.codes.shape == codes[0].shape
    assert np.array_equal(clip.tokens.codes[is_steady], codes[0].numpy()[is_steady])
    assert clip.tokens.chunk_scales == tuple(scales[0].tolist())


async def test_a_stream_gets_its_turns_while_a_long_clip_is_encoded(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WINDOW_S", 0.1)
    codec = load("soundstream")
    engine = CodecEngine({"soundstream": lambda: codec})
    await engine.start()
    try:
        rate_hz = codec.config.sample_rate_hz
        audio = Waveform(noise(codec, 4 * rate_hz)[0].numpy(), rate_hz)
        running = asyncio.create_task(engine.encode("", audio))
        await asyncio.sleep(0)

        async def tokens() -> Any:
            yield TokenMatrix(np.zeros((4, 150)), codec.config.frame_rate_hz, "soundstream")

        chunks = [chunk async for chunk in engine.decode("", tokens())]
        assert len(chunks) == len(list(codec.grid.cuts(150)))
        assert not running.done(), "the stream waited for the whole clip"

        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        again = asyncio.create_task(engine.encode("", Waveform(audio.samples[:, :100], rate_hz)))
        assert (await again).num_samples == 100
    finally:
        await engine.stop()
