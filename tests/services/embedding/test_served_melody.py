"""The committed melody encoder, asked over a real channel."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from band_encoders import Service, wire
from stretto.embedding.v1 import embedding_pb2
from stretto_embedding import loading
from stretto_embedding.models.melody_weights import ARCHITECTURE
from stretto_embedding.settings import EmbeddingSettings
from stretto_shared import weights
from stretto_shared.errors import NotReady

WEIGHTS = Path(loading.__file__).parents[2] / "weights"
RATE_HZ = 44_100


@pytest.fixture(scope="module")
def service():
    service = Service(EmbeddingSettings(melody_models="melody"))
    yield service
    service.close()


def scale(amplitude=0.3, duration_s=2.5):
    """Five notes with partials, half a second each."""
    seconds = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    pitch = np.array([60, 64, 67, 72, 69])[np.minimum((seconds * 2).astype(int), 4)]
    phase = 2 * np.pi * np.cumsum(440 * 2 ** ((pitch - 69) / 12)) / RATE_HZ
    return amplitude * (np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase))


def melody_of(service, samples):
    request = embedding_pb2.EmbedMelodyRequest(waveform=wire(samples, RATE_HZ), model="melody")
    return service.call("EmbedMelody", request)


def test_a_melody_is_a_column_of_codes_each_second(service):
    answer = melody_of(service, scale())
    manifest = json.loads((WEIGHTS / "melody" / "config.json").read_text())
    codes, model = answer.codes, answer.model
    assert (codes.codec_id, model.digest_sha256) == (
        f"melody@{manifest['weights_sha256'][:12]}",
        manifest["weights_sha256"],
    )
    assert (codes.frame_rate_hz, codes.codebook_count, len(codes.codes)) == (1.0, 2, 6)
    assert max(codes.codes) < manifest["config"]["cardinality"]
    assert (model.licence, model.parameter_count) == (manifest["licence"], manifest["parameter_count"])
    assert not model.is_default and not answer.HasField("melody")


def test_the_melody_and_not_the_loudness_makes_the_codes(service):
    codes = list(melody_of(service, scale()).codes.codes)
    assert list(melody_of(service, scale(0.03)).codes.codes) == codes
    assert list(melody_of(service, scale()[::-1].copy()).codes.codes) != codes


def test_tensors_of_another_geometry_are_not_served(tmp_path):
    weights.write(
        tmp_path / "broken", {"salience.weight": torch.zeros(3)}, name="broken", architecture=ARCHITECTURE,
        config={"num_channels": 8}, licence="", score="", training={},
    )  # fmt: skip
    with pytest.raises(NotReady, match="'broken' do not fit"):
        loading.load_melody("broken", "default", weights_dir=tmp_path)


def test_a_folder_that_says_nothing_of_itself_is_served(tmp_path):
    shutil.copytree(WEIGHTS / "melody", tmp_path / "melody")
    path = tmp_path / "melody" / "config.json"
    content = json.loads(path.read_text())
    said = [content.pop(key) for key in ("licence", "score", "parameter_count")]
    path.write_text(json.dumps(content))
    found = loading.load_melody("melody", "default", weights_dir=tmp_path).info
    assert (found.licence, found.score, found.parameter_count) == ("NOASSERTION", "", said[2])
