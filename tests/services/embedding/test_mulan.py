"""MuLan's promises on a tiny seeded model: shapes, padding, batches, conditions, the modality gap, codes."""

import dataclasses

import pytest
import torch
from stretto_embedding.models.mulan import (
    AST_BASE,
    DEFAULT_TAGS,
    INSTRUMENT_TAGS,
    MODE_TAGS,
    TEMPO_TAGS,
    MuLan,
    MuLanConfig,
    build_mulan,
)
from stretto_embedding.models.mulan.audio_tower import SILENCE, onset_autocorrelation
from stretto_shared.dsp.log_mel import log_mel
from stretto_shared.training.corpus.instruments import FAMILIES
from torch.nn import functional as F

TINY = MuLanConfig(
    embedding_dim=16, stem_channels=(4, 8), audio_dim=24, audio_layers=2, audio_heads=2, num_rhythm_lags=40,
    text_states_dim=12, text_dim=24, text_layers=2, text_heads=2, num_codebooks=3, cardinality=8,
)  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = MuLan(TINY).eval()
    made.quantizer.initialise(F.normalize(torch.randn(64, 1, 16), dim=-1))
    made.audio_mean.copy_(0.3 * F.normalize(torch.randn(16), dim=0))
    made.text_mean.copy_(0.3 * F.normalize(torch.randn(16), dim=0))
    return made


@pytest.fixture
def mel():
    torch.manual_seed(1)
    return log_mel(0.1 * torch.randn(3, 240 * 200) * torch.linspace(0, 1, 240 * 200))


@pytest.mark.parametrize("num_frames", [1, 63, 64, 65, 500, 1024])
@torch.inference_mode()
def test_audio_of_any_length_gives_unit_vectors(model, num_frames):
    points = model.embed_audio(torch.randn(2, num_frames, 80))
    assert points.shape == (2, 16) and points.dtype == torch.float32
    torch.testing.assert_close(points.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("num_tokens", [1, 7, 40])
@torch.inference_mode()
def test_text_of_any_length_gives_unit_vectors(model, num_tokens):
    points = model.embed_text(torch.randn(2, num_tokens, 12))
    assert points.shape == (2, 16) and points.dtype == torch.float32
    torch.testing.assert_close(points.norm(dim=1), torch.ones(2))


@torch.inference_mode()
def test_short_audio_is_heard_as_if_silence_followed(model, mel):
    short = mel[:, :100]
    torch.testing.assert_close(model.embed_audio(short), model.embed_audio(F.pad(short, (0, 0, 0, 12), value=SILENCE)))
    assert (model.embed_audio(short) - model.embed_audio(F.pad(short, (0, 0, 0, 12)))).abs().max() > 1e-3


def test_silence_is_what_log_mel_makes_of_nothing():
    torch.testing.assert_close(log_mel(torch.zeros(1, 2400)), torch.full((1, 10, 80), SILENCE))


@torch.inference_mode()
def test_masked_tokens_change_nothing(model):
    states = torch.randn(1, 5, 12)
    padded = torch.cat([states, 9 * torch.randn(1, 4, 12)], 1)
    mask = torch.arange(9)[None] < 5
    torch.testing.assert_close(model.embed_text(padded, mask), model.embed_text(states))
    assert (model.embed_text(padded) - model.embed_text(states)).abs().max() > 1e-3


@torch.inference_mode()
def test_a_batch_equals_its_members(model, mel):
    alone = torch.cat([model.embed_audio(each[None]) for each in mel])
    torch.testing.assert_close(model.embed_audio(mel), alone)
    states = torch.randn(3, 6, 12)
    torch.testing.assert_close(model.embed_text(states), torch.cat([model.embed_text(each[None]) for each in states]))
    torch.testing.assert_close(model.quantize(alone), torch.cat([model.quantize(each[None]) for each in alone]))


@torch.inference_mode()
def test_the_same_input_gives_the_same_bytes(model, mel):
    states = torch.randn(1, 6, 12)
    assert torch.equal(model.embed_audio(mel), model.embed_audio(mel.clone()))
    assert torch.equal(model.embed_text(states), model.embed_text(states.clone()))


@torch.inference_mode()
def test_what_is_heard_and_what_is_read_change_the_point(model, mel):
    points = model.embed_audio(mel)
    assert (points[0] - points[1]).abs().max() > 1e-4
    later = torch.cat([mel[:, :120], mel[:, 120:].flip(1)], 1)  # only the end differs
    assert (model.embed_audio(later) - points).abs().max() > 1e-4
    states = torch.randn(1, 6, 12)
    other = states.clone()
    other[0, 5] = torch.randn(12)
    assert (model.embed_text(states) - model.embed_text(other)).abs().max() > 1e-4


@torch.inference_mode()
def test_each_modality_loses_its_own_mean(model, mel):
    states = torch.randn(3, 6, 12)
    raw = model.raw_audio(mel)
    torch.testing.assert_close(raw.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(model.embed_audio(mel), F.normalize(raw - model.audio_mean, dim=1))
    torch.testing.assert_close(model.embed_text(states), F.normalize(model.raw_text(states) - model.text_mean, dim=1))


@torch.inference_mode()
def test_codes_come_nearer_with_every_codebook(model):
    torch.manual_seed(2)
    points = F.normalize(torch.randn(50, 16), dim=1)
    codes = model.quantize(points)
    assert codes.shape == (50, 3) and codes.min() >= 0 and codes.max() < 8
    errors = [float((points * model.dequantize(codes[:, :k])).sum(1).mean()) for k in (1, 2, 3)]
    assert errors[0] < errors[1] < errors[2]
    torch.testing.assert_close(model.dequantize(codes).norm(dim=1), torch.ones(50))
    assert torch.equal(model.quantize(3 * points), codes)


def test_onsets_are_like_themselves_at_their_period():
    mel = torch.full((1, 800, 80), SILENCE)
    mel[:, ::50] = 1.0  # twice a second
    lagged = onset_autocorrelation(mel, 120)
    assert lagged.shape == (1, 4, 120)
    assert torch.equal(lagged.argmax(2) + 1, torch.full((1, 4), 50)) or torch.equal(
        lagged.argmax(2) + 1, torch.full((1, 4), 100)
    )
    assert (lagged[..., 49] > 0.9).all() and (lagged[..., 24].abs() < 0.2).all()
    assert torch.isfinite(onset_autocorrelation(torch.full((1, 64, 80), SILENCE), 120)).all()


def test_a_servable_state_builds_the_same_model(model, mel):
    state = model.servable_state()
    built = build_mulan(dataclasses.asdict(TINY), state)
    states = torch.randn(1, 4, 12)
    with torch.inference_mode():
        assert torch.equal(built.embed_audio(mel), model.embed_audio(mel))
        assert torch.equal(built.embed_text(states), model.embed_text(states))
        assert torch.equal(built.quantize(built.embed_text(states)), model.quantize(model.embed_text(states)))
    assert built.temperature == pytest.approx(0.07) and not built.training
    assert not [name for name in state if "embed_sum" in name or "cluster_size" in name]


def test_tensors_of_another_model_are_refused(model):
    state = model.servable_state()
    with pytest.raises(ValueError, match="audio_mean"):
        build_mulan(dataclasses.asdict(TINY), {name: value for name, value in state.items() if name != "audio_mean"})
    with pytest.raises(ValueError, match="audio_mean"):
        build_mulan(dataclasses.asdict(TINY), {**state, "audio_mean": torch.zeros(17)})
    with pytest.raises(ValueError, match="extra"):
        build_mulan(dataclasses.asdict(TINY), {**state, "extra": torch.zeros(1)})


def test_the_published_size_is_a_config():
    with torch.device("meta"):
        model = MuLan(AST_BASE)
    num_layers = sum(p.numel() for p in model.audio.layers.parameters())
    assert num_layers == pytest.approx(85e6, rel=0.01)  # ViT-B's and AST's twelve layers


@pytest.mark.parametrize("wrong", [{"num_mel_bands": 81}, {"audio_heads": 5, "audio_dim": 24}, {"text_heads": 7}])
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=r"num_mel_bands|heads"):
        dataclasses.replace(TINY, **wrong)


def test_the_tags_name_every_family_of_the_corpus_once():
    assert set(INSTRUMENT_TAGS) == set(FAMILIES)
    every = [*INSTRUMENT_TAGS.values(), *TEMPO_TAGS.values(), *MODE_TAGS.values()]
    assert len(set(every)) == len(every) == len(FAMILIES) + len(TEMPO_TAGS) + len(MODE_TAGS)


def test_what_is_at_chance_is_tried_only_when_asked_for():
    assert DEFAULT_TAGS == tuple(INSTRUMENT_TAGS.values())
