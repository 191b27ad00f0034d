"""EnCodec's own invariants, on tiny random geometries of every published kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from stretto_codec.models.encodec import GEOMETRIES, Encodec, EncodecConfig
from stretto_codec.models.encodec.config import from_hugging_face
from stretto_codec.models.encodec.streaming import encodec_decoder, encodec_grid
from stretto_codec.models.streaming import ClipDecoder, decode_on_grid

TINY = {
    name: replace(config, num_filters=4, hidden_size=16, cardinality=32, num_codebooks=4)
    for name, config in GEOMETRIES.items()
}


def make(config: EncodecConfig, seed: int = 0) -> Encodec:
    torch.manual_seed(seed)
    return Encodec(config).eval()


def random_codes(config: EncodecConfig, num_frames: int, batch_size: int = 1, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, config.num_codebooks, num_frames)
    return torch.randint(0, config.cardinality, shape, generator=generator)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("num_samples", [1, 5000, 24_000])
@torch.inference_mode()
def test_codes_have_one_frame_per_hop_and_lie_below_the_cardinality(name: str, num_samples: int) -> None:
    config = TINY[name]
    codes = make(config).encode(torch.randn(2, config.num_channels, num_samples) * 0.1)
    assert codes.shape == (2, config.num_codebooks, -(-num_samples // config.hop_length))
    assert codes.dtype == torch.int64
    assert int(codes.min()) >= 0 and int(codes.max()) < config.cardinality


@pytest.mark.parametrize("num_frames", [1, 149, 150, 151, 152, 310])
@torch.inference_mode()
def test_streamed_segments_equal_offline_segments(num_frames: int) -> None:
    config = TINY["encodec_48khz"]
    model = make(config)
    codes = random_codes(config, num_frames)
    scales = tuple(0.5 + index for index in range(-(-num_frames // 150)))
    offline = model.decode(codes, torch.tensor([scales]))
    streamed = decode_on_grid(ClipDecoder(encodec_decoder(model)), encodec_grid(config), codes, scales)
    assert torch.equal(streamed, offline)


@torch.inference_mode()
def test_segment_loudness_scales_the_audio(steady: Any) -> None:
    config = TINY["encodec_48khz"]
    model = make(config)
    audio = torch.randn(1, 2, 60_000) * 0.1
    codes, scales = model.encode_scaled(audio)
    louder_codes, louder_scales = model.encode_scaled(audio * 4)
    assert scales.shape == (1, 2)
    torch.testing.assert_close(louder_scales, scales * 4)
    is_steady = steady(model, audio)
    assert torch.equal(codes[is_steady], louder_codes[is_steady])
    torch.testing.assert_close(model.decode(codes, scales * 4), model.decode(codes, scales) * 4)


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_batch_equals_clips_alone(name: str, steady: Any) -> None:
    config = TINY[name]
    model = make(config)
    audio = torch.randn(3, config.num_channels, 6000) * 0.1
    latents = torch.cat([model.encoder(clip[None]) for clip in audio])
    torch.testing.assert_close(model.encoder(audio), latents, atol=1e-5, rtol=1e-4)
    codes, is_steady = model.encode(audio), steady(model, audio)
    assert torch.equal(codes[is_steady], torch.cat([model.encode(clip[None]) for clip in audio])[is_steady])
    alone = torch.cat([model.decode(clip[None]) for clip in codes])
    torch.testing.assert_close(model.decode(codes), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_every_codebook_changes_the_audio(name: str) -> None:
    config = TINY[name]
    model = make(config)
    codes = random_codes(config, 20)
    audio = model.decode(codes)
    for level in range(config.num_codebooks):
        changed = codes.clone()
        changed[:, level] = (changed[:, level] + 1) % config.cardinality
        assert not torch.allclose(model.decode(changed), audio)
        assert level == 0 or not torch.allclose(model.decode(codes[:, :level]), audio)


@torch.inference_mode()
def test_causal_audio_does_not_depend_on_later_frames() -> None:
    config = TINY["encodec_24khz"]
    model = make(config)
    codes = random_codes(config, 40)
    changed = codes.clone()
    changed[..., 30:] = 0
    torch.testing.assert_close(
        model.decode(changed)[..., : 30 * config.hop_length], model.decode(codes)[..., : 30 * config.hop_length]
    )


@pytest.mark.parametrize(
    "config",
    [
        {"norm": "layer_norm"},
        {"norm": "time_group_norm"},
        {"normalize": True},
    ],
)
def test_impossible_geometries_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected|needs"):
        EncodecConfig(**config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "encodec"}, "encodec_24khz"),
        (
            {
                "model_type": "encodec",
                "sampling_rate": 32000,
                "codebook_size": 2048,
                "num_filters": 64,
                "upsampling_ratios": [8, 5, 4, 4],
                "target_bandwidths": [2.2],
                "use_causal_conv": False,
                "use_conv_shortcut": False,
            },
            "encodec_32khz",
        ),
        (
            {
                "model_type": "encodec",
                "sampling_rate": 48000,
                "audio_channels": 2,
                "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
                "norm_type": "time_group_norm",
                "normalize": True,
                "chunk_length_s": 1.0,
                "overlap": 0.01,
                "use_causal_conv": False,
            },
            "encodec_48khz",
        ),
    ],
)
def test_published_configs_become_the_named_geometries(config: dict[str, object], name: str) -> None:
    assert from_hugging_face(config) == GEOMETRIES[name]


def test_foreign_configs_are_refused() -> None:
    with pytest.raises(ValueError, match="model_type"):
        from_hugging_face({"model_type": "dac"})
    with pytest.raises(ValueError, match="trim_right_ratio"):
        from_hugging_face({"model_type": "encodec", "trim_right_ratio": 0.5})
