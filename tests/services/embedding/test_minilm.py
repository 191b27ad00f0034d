"""MiniLM against `transformers`, from the very weights that are served."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from stretto_embedding import loading
from stretto_embedding.loading import text as text_loading
from stretto_embedding.models.minilm import MiniLm, MiniLmConfig, state_from_hf
from stretto_shared.errors import InvalidInput, NotFound, NotReady
from transformers import AutoTokenizer, BertConfig, BertModel

FOLDER = Path(str(resources.files(text_loading.MINILM_PACKAGE))) / "model"
TEXTS = [
    "A slow waltz for solo piano in D minor, melancholic.",
    "Fast bluegrass!! 180 bpm; banjo & fiddle",
    "Ein fröhliches Lied – naïve café 音楽",
]


@pytest.fixture(scope="module")
def encoder():
    return loading.load_default()


def test_states_equal_those_of_transformers(encoder):
    reference = BertModel.from_pretrained(FOLDER, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    for text, states in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        tokens = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            expected = reference(**tokens).last_hidden_state[0]
        np.testing.assert_allclose(states.states, expected.numpy(), atol=2e-5)
        pooled = torch.nn.functional.normalize(expected.mean(0), dim=0)
        np.testing.assert_allclose(states.pooled, pooled.numpy(), atol=2e-6)


def test_random_geometry_equals_transformers_over_a_batch():
    config = BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=20, hidden_dropout_prob=0, attention_probs_dropout_prob=0, layer_norm_eps=1e-12,
    )  # fmt: skip
    torch.manual_seed(0)
    reference = BertModel(config).eval()
    ours = MiniLm(MiniLmConfig(50, 24, 2, 3, 40, 20))
    ours.load_state_dict(state_from_hf(reference.state_dict()))
    ids = torch.randint(0, 50, (3, 20))
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids), reference(ids).last_hidden_state, atol=1e-5, rtol=1e-4)


def test_pooled_vectors_have_unit_length_and_follow_meaning(encoder):
    piano, sonata, metal = (
        states.pooled for states in encoder.encode(["gentle solo piano", "a soft piano sonata", "brutal death metal"])
    )
    assert np.linalg.norm(piano) == pytest.approx(1, abs=1e-5)
    assert piano @ sonata > piano @ metal + 0.2


def test_offline_encoding_of_repeated_texts_gives_the_same_states(encoder):
    first, second, again = encoder.encode([TEXTS[0], TEXTS[1], TEXTS[0]])
    assert first.states.tobytes() == again.states.tobytes() == encoder.encode([TEXTS[0]])[0].states.tobytes()
    assert first.states.tobytes() != second.states.tobytes()


def test_a_text_beyond_the_token_limit_is_refused_not_cut(encoder):
    encoder.encode(["piano " * 254])
    with pytest.raises(InvalidInput, match=r"texts\[1\].*256 tokens.*257"):
        encoder.encode(["fine", "piano " * 255])


def test_weights_with_another_digest_are_not_served(monkeypatch):
    monkeypatch.setattr(text_loading, "MINILM_SHA256", "0" * 64)
    with pytest.raises(NotReady, match="sha256"):
        loading.load_default()


def test_only_minilm_has_a_default_source():
    with pytest.raises(NotFound, match="minilm"):
        loading.load("bert-large", "default")


def test_states_that_are_not_finite_are_the_encoders_fault(encoder):
    broken = replace(encoder, model=Broken())
    with pytest.raises(RuntimeError, match=r"minilm@.* not finite"):
        broken.encode_ids([1, 2])


class Broken:
    def __call__(self, ids):
        return torch.full((1, ids.shape[1], 3), torch.nan)

    def pool(self, states):
        return states.mean(1)
