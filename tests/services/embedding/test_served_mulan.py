"""MuLan as a checkpoint of the weights folder, asked over a real channel."""

import json

import numpy as np
import pytest
import torch
from band_encoders import Service, tone, wire
from stretto.embedding.v1 import embedding_pb2
from stretto_embedding import loading
from stretto_embedding.models.mulan import DEFAULT_TAGS, MuLan, MuLanConfig
from stretto_embedding.settings import EmbeddingSettings
from stretto_shared import weights
from stretto_shared.dsp.log_mel import log_mel

RATE_HZ = 24_000
SIZES = {
    "stem_channels": [4, 6],
    "audio_dim": 10,
    "audio_layers": 1,
    "audio_heads": 2,
    "text_dim": 12,
    "text_layers": 1,
    "text_heads": 2,
    "window_s": 2.56,
    "stride_s": 1.28,
}


def write(folder, name, architecture, config, tensors):
    weights.write(
        folder / name,
        {key: each.half() if each.is_floating_point() else each for key, each in tensors.items()},
        name=name,
        architecture=architecture,
        config=config,
        licence="Apache-2.0",
        score="none",
        training={},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = MuLan(MuLanConfig(**SIZES))
    with torch.no_grad():
        model.audio_mean.normal_(std=0.02)
        model.text_mean.normal_(std=0.02)
        for name, value in model.named_buffers():
            if name.endswith("embed"):
                value.normal_(std=0.3)
    write(folder, "mulan", "MuLan", SIZES, model.servable_state())
    return folder


@pytest.fixture(scope="module")
def service(folder):
    service = Service(EmbeddingSettings(weights_dir=folder))
    yield service
    service.close()


@pytest.fixture(scope="module")
def encoder(folder):
    return loading.load_joint("mulan", "default", weights_dir=folder)


def audio(samples, rate_hz=RATE_HZ):
    return embedding_pb2.EmbedAudioRequest(waveform=wire(samples, rate_hz))


def test_mulan_answers_as_its_towers_do(service, encoder):
    text = service.call("EmbedText", embedding_pb2.EmbedTextRequest(model="mulan", texts=["a slow waltz"]))
    [states] = loading.load_default().encode(["a slow waltz"])
    samples = tone(440, 2.56, RATE_HZ)
    heard = service.call("EmbedAudio", audio(samples))
    with torch.inference_mode():
        expected = encoder.model.embed_text(torch.from_numpy(states.states.copy())[None])
        np.testing.assert_allclose(text.embeddings[0].values, expected[0].numpy(), atol=1e-6)
        assert list(text.embeddings[0].codes) == encoder.model.quantize(expected)[0].tolist()
        expected = encoder.model.embed_audio(log_mel(torch.from_numpy(samples)[None]))
        np.testing.assert_allclose(heard.embedding.values, expected[0].numpy(), atol=1e-6)
        assert list(heard.embedding.codes) == encoder.model.quantize(expected)[0].tolist()
    assert len(heard.embedding.codes) == heard.model.codebook_count == 8
    assert (heard.window_s, heard.stride_s) == (2.56, 1.28)


def test_texts_recordings_and_points_keep_their_bytes_beside_others(service):
    def texts(*each):
        return embedding_pb2.EmbedTextRequest(model="mulan", texts=each)

    alone = service.call("EmbedText", texts("slow piano")).embeddings[0]
    assert service.call("EmbedText", texts("drums", "slow piano", "a long text " * 20)).embeddings[1] == alone
    requests = [audio(tone(hz, 4.0, RATE_HZ)) for hz in (200, 300, 500, 900)]
    heard = service.call("EmbedAudio", requests[1])
    assert len(heard.windows) == 3 and service.together("EmbedAudio", requests)[1] == heard
    points = [heard.windows[0], heard.windows[1], alone]
    coded = service.call("QuantizeEmbeddings", embedding_pb2.QuantizeEmbeddingsRequest(embeddings=points)).embeddings
    assert [list(each.codes) for each in coded] == [list(each.codes) for each in points]


@pytest.mark.parametrize("duration_s", [0.1, 1.003, 2.5601])
def test_recordings_of_any_length_are_heard(service, duration_s):
    heard = service.call("EmbedAudio", audio(tone(440, duration_s, 44_100), 44_100))
    assert len(heard.windows) == (2 if duration_s > 2.56 else 1)
    assert np.linalg.norm(heard.embedding.values) == pytest.approx(1, abs=1e-6)


def test_mulan_tags_with_its_own_list(service):
    tagged = service.call("TagAudio", embedding_pb2.TagAudioRequest(waveform=wire(tone(440, 1.0, RATE_HZ), RATE_HZ)))
    assert sorted(each.tag for each in tagged.tags) == sorted(DEFAULT_TAGS)
    assert sum(each.probability for each in tagged.tags) == pytest.approx(1, abs=1e-5)


def test_mulan_is_named_as_language_models_know_it_and_shares_minilm(service, folder):
    models = {each.name: each for each in service.call("ListModels", embedding_pb2.ListModelsRequest()).models}
    assert set(models) == {"minilm", "mulan"} and models["mulan"].is_default and models["minilm"].is_default
    manifest = json.loads((folder / "mulan" / "config.json").read_text())
    assert models["mulan"].digest_sha256 == manifest["weights_sha256"]
    asked = []
    served = loading.load_default()
    load_text = loading.Once(lambda: asked.append(1) or served)
    first = loading.load_joint("mulan", "default", weights_dir=folder, load_text_encoder=load_text)
    assert first.text is served and load_text() is served and asked == [1]
