"""MuLan as the engine sees it: loaded from its folder, on MiniLM's states, window by window."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from stretto_embedding import loading
from stretto_embedding.models.mulan import MuLan, MuLanConfig
from stretto_shared import weights
from stretto_shared.dsp.log_mel import log_mel
from stretto_shared.errors import NotReady
from torch.nn import functional as F

TINY = MuLanConfig(
    embedding_dim=16, stem_channels=(4, 8), audio_dim=24, audio_layers=1, audio_heads=2, num_rhythm_lags=40,
    text_dim=24, text_layers=1, text_heads=2, num_codebooks=3, cardinality=8,
)  # fmt: skip


def write(folder, config=TINY, **changes):
    torch.manual_seed(0)
    model = MuLan(config)
    model.quantizer.initialise(F.normalize(torch.randn(64, 1, 16), dim=-1))
    tensors = {name: value.half() for name, value in model.servable_state().items()} | changes
    weights.write(
        folder / "tiny", tensors, name="tiny", architecture="MuLan", config=dataclasses.asdict(config),
        licence="CC0-1.0", score="", training={},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def text_encoder():
    return loading.load_default()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, text_encoder):
    folder = write(tmp_path_factory.mktemp("weights"))
    return loading.load_joint("tiny", "default", weights_dir=folder, load_text_encoder=lambda: text_encoder)


def test_the_folder_says_what_it_is(encoder):
    assert (encoder.window_samples, encoder.stride_samples, encoder.sample_rate_hz) == (245_760, 24_576, 24_000)
    assert (encoder.dimension, encoder.info.num_codebooks, encoder.info.licence) == (16, 3, "CC0-1.0")
    assert encoder.temperature == pytest.approx(0.07, rel=1e-3) and "piano" in encoder.default_tags


def test_a_folder_that_says_nothing_of_itself_is_served(tmp_path, text_encoder, encoder):
    folder = write(tmp_path)
    path = folder / "tiny" / "config.json"
    content = json.loads(path.read_text())
    for key in ("licence", "score", "parameter_count"):
        del content[key]
    path.write_text(json.dumps(content))
    found = loading.load_joint("tiny", "default", weights_dir=folder, load_text_encoder=lambda: text_encoder).info
    assert (found.licence, found.score, found.parameter_count) == ("NOASSERTION", "", encoder.info.parameter_count)
    assert encoder.info.parameter_count > 1_000


def test_a_text_is_heard_through_minilm(encoder, text_encoder):
    values = encoder.embed_ids(encoder.tokenize("solo piano"))
    (states,) = text_encoder.encode(["solo piano"])
    with torch.inference_mode():
        expected = encoder.model.embed_text(torch.from_numpy(states.states.copy())[None])[0]
    np.testing.assert_array_equal(values, expected.numpy())
    assert values.shape == (16,) and values.dtype == np.float32
    assert np.abs(values - encoder.embed_ids(encoder.tokenize("loud drums"))).max() > 1e-3


@pytest.mark.parametrize("num_samples", [2_400, 50_001, 245_760])
def test_a_window_of_any_length_is_heard_to_its_last_sample(encoder, num_samples):
    samples = 0.1 * np.random.default_rng(0).standard_normal(num_samples).astype(np.float32)
    values = encoder.embed_window(samples)
    whole = torch.from_numpy(np.pad(samples, (0, -num_samples % 240)))
    with torch.inference_mode():
        np.testing.assert_array_equal(values, encoder.model.embed_audio(log_mel(whole[None]))[0].numpy())
    codes = encoder.quantize(values)
    assert len(codes) == 3 and all(isinstance(code, int) and 0 <= code < 8 for code in codes)
    assert np.linalg.norm(values) == pytest.approx(1, abs=1e-5)


def test_states_of_another_encoder_are_refused(tmp_path, text_encoder):
    folder = write(tmp_path, dataclasses.replace(TINY, text_encoder="bert-base"))
    with pytest.raises(NotReady, match="bert-base"):
        loading.load_joint("tiny", "default", weights_dir=folder, load_text_encoder=lambda: text_encoder)


def test_tensors_that_do_not_fit_are_refused(tmp_path, text_encoder):
    folder = write(tmp_path, audio_mean=torch.zeros(17))
    with pytest.raises(NotReady, match="audio_mean"):
        loading.load_joint("tiny", "default", weights_dir=folder, load_text_encoder=lambda: text_encoder)
