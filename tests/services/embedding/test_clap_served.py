"""A CLAP in the published layout, named by an operator and asked over a real channel."""

import json

import grpc
import numpy as np
import pytest
import torch
from band_encoders import Service, tone, wire
from safetensors.torch import save_file
from stretto.embedding.v1 import embedding_pb2
from stretto_embedding import loading
from stretto_embedding.settings import EmbeddingSettings
from stretto_shared.errors import NotFound, NotReady
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

RATE_HZ = 16_000
FRONT_END = {
    "truncation": "rand_trunc",
    "padding": "repeatpad",
    "feature_size": 16,
    "frequency_min": 50,
    "frequency_max": 7_000,
    "sampling_rate": RATE_HZ,
    "hop_length": 160,
    "max_length_s": 2,
    "fft_window_size": 512,
}
AUDIO = {
    "patch_embeds_hidden_size": 16,
    "depths": [1, 2],
    "num_attention_heads": [2, 4],
    "hidden_size": 32,
    "num_mel_bins": 16,
    "spec_size": 64,
    "window_size": 4,
}
TEXT = {
    "vocab_size": 8,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 12,
    "type_vocab_size": 1,
}


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(3)
    return ClapModel(ClapConfig(audio_config=AUDIO, text_config=TEXT, projection_dim=20)).eval()


@pytest.fixture
def folder(tmp_path, reference):
    return write_folder(tmp_path / "clap", reference)


def write_folder(folder, reference):
    folder.mkdir()
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "slow": 4, "piano": 5, "waltz": 6, "drums": 7}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    tensors = {key: each.contiguous().clone() for key, each in reference.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(reference.config.to_dict()))
    (folder / "preprocessor_config.json").write_text(json.dumps(FRONT_END))
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory, reference):
    root = tmp_path_factory.mktemp("published")
    source = write_folder(root / "clap", reference).as_uri()
    service = Service(EmbeddingSettings(joint_models=f"clap={source}", weights_dir=root / "none"))
    yield service
    service.close()


def test_texts_and_recordings_are_the_points_of_transformers(service, reference):
    texts = ["slow piano waltz", "drums"]
    answer = service.call("EmbedText", embedding_pb2.EmbedTextRequest(model="clap", texts=texts))
    samples = tone(440, 1.7, RATE_HZ)
    heard = service.call("EmbedAudio", embedding_pb2.EmbedAudioRequest(waveform=wire(samples, RATE_HZ)))
    features = ClapFeatureExtractor(**FRONT_END)(samples, sampling_rate=RATE_HZ, return_tensors="pt")
    with torch.inference_mode():
        for point, ids in zip(answer.embeddings, ([0, 4, 5, 6, 2], [0, 7, 2]), strict=True):
            expected = reference.get_text_features(torch.tensor([ids]), torch.ones(1, len(ids))).pooler_output[0]
            np.testing.assert_allclose(point.values, expected.numpy(), atol=1e-4)
        expected = reference.get_audio_features(**features).pooler_output[0]
    np.testing.assert_allclose(heard.embedding.values, expected.numpy(), atol=1e-4)
    assert (heard.window_s, heard.stride_s, len(heard.windows)) == (2.0, 2.0, 1)
    assert heard.model.is_default and not heard.embedding.codes and heard.model.sample_rate_hz == RATE_HZ


def test_a_text_and_a_recording_give_the_same_bytes_alone_and_beside_others(service):
    def text(*texts):
        return embedding_pb2.EmbedTextRequest(model="clap", texts=texts)

    alone = service.call("EmbedText", text("slow waltz")).embeddings[0]
    assert service.call("EmbedText", text("drums", "slow waltz", "piano " * 8)).embeddings[1] == alone
    requests = [
        embedding_pb2.EmbedAudioRequest(waveform=wire(tone(hz, 5.0, RATE_HZ), RATE_HZ)) for hz in (200, 300, 500)
    ]
    heard = service.call("EmbedAudio", requests[1])
    assert len(heard.windows) == 3 and service.together("EmbedAudio", requests)[1] == heard


def test_what_clap_has_not_is_refused(service):
    waveform = wire(tone(440, 1.0, RATE_HZ), RATE_HZ)
    point = service.call("EmbedAudio", embedding_pb2.EmbedAudioRequest(waveform=waveform)).embedding
    error = service.fails("QuantizeEmbeddings", embedding_pb2.QuantizeEmbeddingsRequest(embeddings=[point]))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and "quantiser" in error.details()
    error = service.fails("EmbedText", embedding_pb2.EmbedTextRequest(model="clap", texts=["piano " * 9]))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and "at most 10 tokens" in error.details()


def load(folder):
    return loading.load_joint("clap", folder.as_uri(), weights_dir=folder)


def test_a_folder_without_its_files_or_of_another_kind_is_not_served(folder):
    assert load(folder).dimension == 20
    for name in ("preprocessor_config.json", "tokenizer.json"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(NotReady, match=name):
            load(folder)
        (folder / name).write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    for change, said in (
        ({"audio_config": config["audio_config"] | {"enable_fusion": True}}, "fusion"),
        ({"projection_dim": 21}, "do not fit"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(NotReady, match=said):
            load(folder)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "wav2vec2"}))
    with pytest.raises(NotFound, match=r"joint encoder of clap, got 'wav2vec2'"):
        load(folder)
