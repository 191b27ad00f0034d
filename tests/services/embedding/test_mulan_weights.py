"""The committed MuLan: what it says of itself, and that it relates texts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stretto_embedding import loading
from stretto_embedding.models.mulan import DEFAULT_TAGS, MODE_TAGS, TEMPO_TAGS

WEIGHTS = Path(loading.__file__).parents[2] / "weights"


@pytest.fixture(scope="module")
def mulan():
    return loading.load_joint("mulan", "default", weights_dir=WEIGHTS)


def test_it_is_the_default_joint_encoder_with_the_codes_of_the_stages(mulan):
    assert "mulan" in loading.list_joint_names(WEIGHTS)
    assert (mulan.dimension, mulan.info.num_codebooks, mulan.model.config.cardinality) == (128, 8, 256)
    assert mulan.info.licence == "CC-BY-NC-SA-4.0"
    assert mulan.info.parameter_count == json.loads((WEIGHTS / "mulan" / "config.json").read_text())["parameter_count"]
    assert 0.02 < mulan.temperature < 1.0


def test_its_tags_are_points_of_their_own_and_their_codes_are_near_them(mulan):
    tags = [*DEFAULT_TAGS, *TEMPO_TAGS.values(), *MODE_TAGS.values()]
    points = np.stack([mulan.embed_ids(mulan.tokenize(tag)) for tag in tags])
    likeness = points @ points.T - 2 * np.eye(len(points))
    assert likeness.max() < 0.999
    codes = torch.tensor([mulan.quantize(point) for point in points])
    near = (mulan.model.dequantize(codes).detach().numpy() * points).sum(1)
    assert near.mean() > 0.6


def test_texts_that_mean_one_thing_lie_together(mulan):
    drums, kit, flute = (
        mulan.embed_ids(mulan.tokenize(text))
        for text in ("solo drums, fast", "a fast drum kit groove", "a calm flute melody")
    )
    assert drums @ kit > drums @ flute + 0.3
