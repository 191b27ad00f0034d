"""T5's encoder against `transformers`, on random weights in the published layouts."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stretto_embedding import loading
from stretto_embedding.models import t5
from stretto_shared.nn.packed_linear import PackedLinear
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import T5Config, T5EncoderModel


def reference_model(kind: str) -> T5EncoderModel:
    """A small random T5 encoder, with biases and norms far from their trivial initial values."""
    config = T5Config(
        vocab_size=60, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=3, feed_forward_proj=kind,
        relative_attention_num_buckets=8, relative_attention_max_distance=20, dropout_rate=0.0,
    )  # fmt: skip
    torch.manual_seed(1)
    model = T5EncoderModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def write_folder(folder, tensors, config):
    """A checkpoint folder in the Hugging Face layout, tokenizer included."""
    vocabulary = {"<unk>": 0, "</s>": 1, "slow": 2, "piano": 3, "waltz": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_states_equal_those_of_transformers(kind):
    reference = reference_model(kind)
    ours = t5.T5Encoder(t5.config_from_hf(reference.config.to_dict()))
    ours.load_state_dict(t5.state_from_hf(reference.state_dict()))
    ids = torch.randint(0, 60, (2, 45))
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids), reference(ids).last_hidden_state, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("inside_musicgen", [False, True])
def test_a_hugging_face_folder_is_served_as_transformers_would(tmp_path, inside_musicgen):
    reference = reference_model("relu")
    config, tensors = reference.config.to_dict(), dict(reference.state_dict())
    del tensors["encoder.embed_tokens.weight"]
    if inside_musicgen:
        config = {"model_type": "musicgen", "text_encoder": config}
        tensors = {f"text_encoder.{key}": tensor for key, tensor in tensors.items()} | {"decoder.x": torch.ones(1)}
    write_folder(tmp_path, tensors, config)
    encoder = loading.load("t5", tmp_path.as_uri())
    [states] = encoder.encode(["slow piano waltz"])
    with torch.inference_mode():
        expected = reference(torch.tensor([[2, 3, 4, 1]])).last_hidden_state[0]
    np.testing.assert_allclose(states.states, expected.numpy(), atol=1e-4)
    assert states.encoder_id == f"t5@{encoder.info.digest_sha256[:12]}"
    assert encoder.max_tokens == 512
    assert encoder.info.parameter_count == sum(parameter.numel() for parameter in reference.parameters())
    assert sum(isinstance(module, PackedLinear) for module in encoder.model.modules()) == 6 * len(encoder.model.layers)
    assert encoder.encode(["slow piano waltz"])[0].states.tobytes() == states.states.tobytes()
    if sys.platform == "linux":  # what was packed is not held twice
        assert str(tmp_path / "model.safetensors") not in Path("/proc/self/maps").read_text()


def test_buckets_tell_directions_apart_and_saturate():
    config = t5.T5Config()
    distances = torch.tensor([0, -1, 1, -7, 7, -8, -127, -128, -4000, 4000])
    assert t5.relative_bucket(distances, config).tolist() == [0, 1, 17, 7, 23, 8, 15, 15, 15, 31]


def test_an_activation_that_t5_never_had_is_refused():
    with pytest.raises(ValueError, match="swish"):
        t5.T5Encoder(t5.T5Config(activation="swish"))
