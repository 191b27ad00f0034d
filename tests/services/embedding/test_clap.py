"""CLAP against `transformers`, on random weights in the published layout."""

import numpy as np
import pytest
import torch
from stretto_embedding.models.clap import (
    Clap,
    FrontEnd,
    FrontEndConfig,
    config_from_hf,
    front_end_from_hf,
    state_from_hf,
)
from stretto_embedding.models.clap.swin import Layer, cut, join
from transformers import ClapConfig as HfConfig
from transformers import ClapFeatureExtractor, ClapModel

# Of laion/larger_clap_music: HTSAT-base and RoBERTa-base.
LARGER_AUDIO = {
    "patch_embeds_hidden_size": 128,
    "depths": [2, 2, 12, 2],
    "num_attention_heads": [4, 8, 16, 32],
    "hidden_size": 1024,
    "enable_fusion": False,
}
LARGER_FRONT_END = {
    "truncation": "rand_trunc",
    "padding": "repeatpad",
    "frequency_min": 50,
    "frequency_max": 14_000,
    "feature_size": 64,
    "sampling_rate": 48_000,
    "hop_length": 480,
    "max_length_s": 10,
    "fft_window_size": 1_024,
}
TINY_AUDIO = {
    "patch_embeds_hidden_size": 16,
    "depths": [2, 3],
    "num_attention_heads": [2, 4],
    "hidden_size": 32,
    "num_mel_bins": 16,
    "spec_size": 64,
    "window_size": 4,
}
TINY_TEXT = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 22,
    "type_vocab_size": 1,
}


def reference_model(audio, text, projection_dim=20, seed=0):
    """A random CLAP whose norms, statistics and scales are far from their trivial initial values."""
    torch.manual_seed(seed)
    model = ClapModel(HfConfig(audio_config=audio, text_config=text, projection_dim=projection_dim)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2 or "bias_table" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        norm = model.audio_model.audio_encoder.batch_norm
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return model


def ours_of(reference):
    model = Clap(config_from_hf(reference.config.to_dict()))
    model.load_state_dict(state_from_hf(reference.state_dict()))
    return model.eval()


def assert_same_points(reference, ours, mel, ids):
    with torch.inference_mode():
        audio = reference.get_audio_features(input_features=mel[:, None], is_longer=torch.zeros(len(mel), 1).bool())
        text = reference.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids))
        torch.testing.assert_close(ours.embed_audio(mel), audio.pooler_output, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.embed_text(ids), text.pooler_output, atol=1e-4, rtol=1e-4)
    assert ours.temperature == pytest.approx(1 / float(reference.logit_scale_a.detach().exp()), rel=1e-5)


@pytest.mark.parametrize("num_frames", [101, 256])
@pytest.mark.parametrize("change", [{}, {"qkv_bias": False}, {"mlp_ratio": 2.0, "window_size": 8}])
def test_tiny_models_give_the_points_of_transformers(num_frames, change):
    reference = reference_model(TINY_AUDIO | change, TINY_TEXT)
    mel = torch.randn(3, num_frames, 16)
    assert_same_points(reference, ours_of(reference), mel, torch.randint(3, 60, (3, 20)))


def test_the_geometry_of_larger_clap_music_gives_the_points_of_transformers():
    reference = reference_model(LARGER_AUDIO, TINY_TEXT | {"hidden_size": 768, "num_attention_heads": 12}, 512)
    mel = FrontEnd(front_end_from_hf(LARGER_FRONT_END))(torch.randn(480_000) * 0.1)[None]
    assert_same_points(reference, ours_of(reference), mel, torch.randint(3, 60, (1, 20)))


def test_every_tensor_of_larger_clap_music_has_its_place():
    config = HfConfig(audio_config=LARGER_AUDIO, text_config={}, projection_dim=512)
    with torch.device("meta"):
        published = ClapModel(config).state_dict()
        ours = Clap(config_from_hf(config.to_dict())).state_dict()
    renamed = {key: tensor.shape for key, tensor in state_from_hf(published).items()}
    assert renamed == {key: tensor.shape for key, tensor in ours.items()}
    # all but what follows from the geometry: the places within a window, positions and kinds of tokens
    assert len(published) - len(renamed) == sum(LARGER_AUDIO["depths"]) + 2


@pytest.mark.parametrize("num_samples", [4_801, 100_000, 480_000])
def test_spectrograms_equal_those_of_the_feature_extractor(num_samples):
    samples = np.random.default_rng(num_samples).standard_normal(num_samples).astype(np.float32) * 0.3
    samples[num_samples // 2 :] *= np.float32(1e-4)
    expected = ClapFeatureExtractor(**LARGER_FRONT_END)(samples, sampling_rate=48_000, return_tensors="np")
    ours = FrontEnd(front_end_from_hf(LARGER_FRONT_END))(torch.from_numpy(samples))
    assert ours.shape == (1_001, 64)
    np.testing.assert_allclose(ours.numpy(), expected["input_features"][0, 0], atol=2e-3)


def test_silence_is_the_floor_and_too_much_audio_is_refused():
    front_end = FrontEnd(FrontEndConfig())
    assert (front_end(torch.zeros(480_000)) == -100).all()
    for wrong in (torch.zeros(480_001), torch.zeros(0), torch.zeros(1, 480)):
        with pytest.raises(ValueError, match="480000"):
            front_end(wrong)


def test_windows_come_apart_and_together_again():
    square = torch.randn(2, 8, 8, 3)
    windows = cut(square, 4)
    torch.testing.assert_close(windows[1, 1].reshape(4, 4, 3), square[1, :4, 4:])
    torch.testing.assert_close(join(windows, 8, 4), square)


def test_moved_windows_keep_apart_what_only_wrapping_brings_together():
    config = config_from_hf({"audio_config": TINY_AUDIO}).audio
    layer = Layer(config, 16, 2, 16, is_moved=True).eval()
    x = torch.randn(1, 256, 16)
    changed = x.clone()
    changed[:, :32] += 1  # the first two rows, which wrap around to the last two
    with torch.inference_mode():
        same = (layer(x) - layer(changed)).abs().amax(2).reshape(16, 16) < 1e-6
    assert same[2:].all() and not same[:2].any()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"audio_config": {"enable_fusion": True}}, "fusion"),
        ({"audio_config": {"hidden_act": "relu"}}, "hidden_act"),
        ({"projection_hidden_act": "gelu"}, "projection_hidden_act"),
        ({"audio_config": {"patch_size": [4, 16]}}, "square"),
        ({"audio_config": {"spec_size": 100}}, "image_size"),
        ({"audio_config": {"window_size": 7}}, "windows of 7"),
    ],
)
def test_a_clap_of_another_kind_is_refused(config, said):
    with pytest.raises(ValueError, match=said):
        config_from_hf(config)


@pytest.mark.parametrize("change", [{"truncation": "fusion"}, {"padding": "pad"}, {"top_db": 80}])
def test_a_front_end_of_another_kind_is_refused(change):
    with pytest.raises(ValueError, match="preprocessor_config"):
        front_end_from_hf(LARGER_FRONT_END | change)
