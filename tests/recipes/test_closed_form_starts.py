"""The closed-form starts give models that work before the first step of training."""

import sys
from pathlib import Path

import pytest
import torch
from stretto_acoustic.models.musicgen import MusicGenConfig, MusicGenLM
from stretto_codec.models.framecodec import FrameCodec, FrameCodecConfig
from stretto_codec.models.soundstream import SoundStream, SoundStreamConfig

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "services/codec/recipes"), str(ROOT / "services/acoustic/recipes")]

from aligned_start import start_aligned_heads  # noqa: E402
from block_transform_start import start_from_block_transform  # noqa: E402
from coarser_start import start_from_finer  # noqa: E402


def chords(num_clips: int, num_samples: int, seed: int) -> torch.Tensor:
    """Sums of decaying partials [B, 1, S] at 24 kHz."""
    random = torch.Generator().manual_seed(seed)
    time_s = torch.arange(num_samples) / 24_000
    pitches_hz = 110 * 2 ** (torch.randint(0, 36, (num_clips, 3, 1), generator=random) / 12)
    partials = [torch.sin(2 * torch.pi * k * pitches_hz * time_s) / k**1.5 for k in (1, 2, 3)]
    return 0.15 * sum(partials).sum(1, keepdim=True) * torch.exp(-2 * time_s)


def si_sdr_db(estimate: torch.Tensor, target: torch.Tensor) -> float:
    scaled = (estimate * target).sum() / target.square().sum() * target
    return float(10 * torch.log10(scaled.square().sum() / (estimate - scaled).square().sum()).detach())


def test_soundstream_starts_as_a_codec_that_keeps_the_waveform() -> None:
    torch.manual_seed(0)
    codec, heard = SoundStream(SoundStreamConfig()).eval(), chords(4, 9600, seed=1)
    assert si_sdr_db(codec.decode_latents(codec.encode_latents(heard)), heard) < 0
    start_from_block_transform(codec, chords(24, 24_000, seed=0))
    with torch.no_grad():
        assert si_sdr_db(codec.decode_latents(codec.encode_latents(heard)), heard) > 12


def test_a_codec_too_narrow_for_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="stage 2 has 32 channels, expected at least 80"):
        start_from_block_transform(
            SoundStream(SoundStreamConfig(encoder_channels=4, decoder_channels=4)), chords(2, 9600, seed=0)
        )


def test_a_coarser_codec_starts_as_the_finer_one_it_comes_from() -> None:
    torch.manual_seed(0)
    small = {"dim": 32, "num_decoder_blocks": 2, "num_codebooks": 2, "cardinality": 8}
    finer = FrameCodec(FrameCodecConfig(**small, code_dim=8)).eval()
    coarser = FrameCodec(FrameCodecConfig(**small, code_dim=16, stride=8)).eval()
    heard = chords(4, 23_040, seed=1)

    def gap() -> float:
        with torch.no_grad():
            expected = finer.decode_sinusoids(finer.quantizer.bypass(finer.encode_latents(heard))).log_magnitude
            actual = coarser.decode_sinusoids(coarser.quantizer.bypass(coarser.encode_latents(heard))).log_magnitude
        return float((actual - expected).square().mean() / (expected - expected.mean((0, 1))).square().mean())

    before = gap()
    start_from_finer(coarser, finer, chords(24, 23_040, seed=0))
    assert gap() < 0.2 < before


def test_a_coarser_codec_of_another_width_is_refused() -> None:
    finer = FrameCodec(FrameCodecConfig(num_codebooks=1, num_decoder_blocks=1))
    with pytest.raises(ValueError, match="dim must be that of the finer codec, 256"):
        start_from_finer(
            FrameCodec(FrameCodecConfig(dim=32, stride=8, num_codebooks=1)), finer, chords(2, 23_040, seed=0)
        )
    with pytest.raises(ValueError, match="stride must be a multiple of 4"):
        start_from_finer(FrameCodec(FrameCodecConfig(stride=6, num_decoder_blocks=1)), finer, chords(2, 23_040, seed=0))


def test_the_aligned_head_looks_at_the_melody_frame_that_sounds_now() -> None:
    torch.manual_seed(0)
    config = MusicGenConfig(num_codebooks=2, cardinality=16, dim=320, num_layers=2, num_heads=5, ffn_dim=64)
    config = MusicGenConfig(**{**config.__dict__, "melody_conditioning": "prefix", "frame_rate_hz": 25.0})
    model = MusicGenLM(config)
    start_aligned_heads(model)
    with torch.no_grad():
        melody = model.conditioner(None, None, torch.randint(0, 12, (1, 80))).prefix
        steps = model._embed(torch.randint(0, 16, (1, 2, 200))) + model._positions(0, 200)
        query, _, _ = model.blocks()[0].qkv(steps)
        _, key, _ = model.blocks()[0].qkv(melody)
        scores = query[0, 0] @ key[0, 0].T  # [steps, melody frames]
    sounding = (torch.arange(200) * config.chroma_frame_rate_hz / config.frame_rate_hz).round().clamp(max=79)
    assert (scores.argmax(1) - sounding).abs().median() <= 1
