"""The invariants that FrameCodec and SoundStream owe, on tiny random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stretto_codec.models.streaming import CausalDecoder, ClipDecoder, decode_on_grid, grid_of
from torch import nn

NAMES = ["framecodec", "soundstream"]


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest, make: object) -> nn.Module:
    return make(request.param)  # type: ignore[operator]


def random_codes(codec: nn.Module, num_frames: int, batch_size: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (batch_size, codec.config.num_codebooks, num_frames)
    return torch.randint(0, codec.config.cardinality, shape, generator=generator)


@pytest.mark.parametrize("num_samples", [1, 255, 5000])
@torch.inference_mode()
def test_codes_have_one_frame_per_hop_and_lie_below_the_cardinality(codec: nn.Module, num_samples: int) -> None:
    codes = codec.encode(torch.randn(2, 1, num_samples) * 0.1)
    assert codes.shape == (2, codec.config.num_codebooks, -(-num_samples // codec.config.hop_length))
    assert codes.dtype == torch.int64
    assert int(codes.min()) >= 0 and int(codes.max()) < codec.config.cardinality


@pytest.mark.parametrize("splits", [[1] * 12, [5, 5, 2], [12], [3, 1, 8]])
@torch.inference_mode()
def test_streamed_decode_equals_offline_decode(codec: nn.Module, splits: list[int]) -> None:
    codes = random_codes(codec, 12, batch_size=2)
    offline = codec.decode(codes)
    assert offline.shape == (2, 1, 12 * codec.config.hop_length)
    assert offline.abs().max() > 1e-4
    state, parts = codec.init_decoder_state(2), []
    for part in codes.split(splits, dim=-1):
        audio, state = codec.decode_chunk(part, state)
        assert audio.shape[-1] == part.shape[-1] * codec.config.hop_length
        parts.append(audio)
    torch.testing.assert_close(torch.cat(parts, -1), offline, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_decode_on_the_grid_equals_offline_decode(codec: nn.Module) -> None:
    codes = random_codes(codec, 47)
    streamed = decode_on_grid(ClipDecoder(CausalDecoder(codec)), grid_of(codec.config), codes)
    torch.testing.assert_close(streamed, codec.decode(codes), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_batch_equals_clips_alone(codec: nn.Module, steady: Any) -> None:
    audio = torch.randn(3, 1, 6000) * 0.1
    latents = torch.cat([codec.encode_latents(clip[None]) for clip in audio])
    torch.testing.assert_close(codec.encode_latents(audio), latents, atol=1e-5, rtol=1e-4)
    codes, is_steady = codec.encode(audio), steady(codec, audio)
    assert torch.equal(codes[is_steady], torch.cat([codec.encode(clip[None]) for clip in audio])[is_steady])
    alone = torch.cat([codec.decode(clip[None]) for clip in codes])
    torch.testing.assert_close(codec.decode(codes), alone, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_same_input_gives_the_same_output(codec: nn.Module) -> None:
    audio = torch.randn(1, 1, 6000) * 0.1
    codes = codec.encode(audio)
    assert torch.equal(codes, codec.encode(audio))
    assert torch.equal(codec.decode(codes), codec.decode(codes))


@torch.inference_mode()
def test_every_codebook_changes_the_audio(codec: nn.Module) -> None:
    codes = random_codes(codec, 8)
    audio = codec.decode(codes)
    for level in range(codec.config.num_codebooks):
        changed = codes.clone()
        changed[:, level] = (changed[:, level] + 1) % codec.config.cardinality
        assert not torch.allclose(codec.decode(changed), audio)
        assert level == 0 or not torch.allclose(codec.decode(codes[:, :level]), audio)


@torch.inference_mode()
def test_different_audio_gives_different_codes(codec: nn.Module) -> None:
    codes = codec.encode(torch.randn(2, 1, 9000))
    assert not torch.equal(codes[0], codes[1])


@torch.inference_mode()
def test_audio_does_not_depend_on_later_frames(codec: nn.Module) -> None:
    codes = random_codes(codec, 10)
    changed = codes.clone()
    changed[..., 6:] = 0
    kept = 6 * codec.config.hop_length
    torch.testing.assert_close(codec.decode(changed)[..., :kept], codec.decode(codes)[..., :kept])
