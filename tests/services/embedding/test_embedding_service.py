"""EmbeddingService over a real channel, with the encoder that is served by default."""

import threading

import grpc
import numpy as np
import pytest
from band_encoders import Service
from pydantic import ValidationError
from stretto.common.v1 import audio_pb2
from stretto.embedding.v1 import embedding_pb2
from stretto_embedding.engine import MAX_TEXTS
from stretto_embedding.settings import EmbeddingSettings
from stretto_shared.grpc import convert


@pytest.fixture(scope="module")
def service():
    """One server for the whole module: loading the encoder once is enough."""
    service = Service(EmbeddingSettings(max_batch_size=4, max_queued=64))
    yield service
    service.close()


def texts(*values, model=""):
    return embedding_pb2.EmbedTextRequest(texts=values, model=model)


def melody(duration_s, rate_hz=16_000, pitch_hz=440.0):
    samples = 0.3 * np.sin(2 * np.pi * pitch_hz * np.arange(round(duration_s * rate_hz)) / rate_hz)
    return embedding_pb2.EmbedMelodyRequest(
        waveform=audio_pb2.Waveform(sample_rate_hz=rate_hz, channel_count=1, samples=samples.astype("<f4").tobytes())
    )


def test_a_text_gives_the_same_bytes_alone_and_beside_others(service):
    alone = service.call("EmbedText", texts("a slow waltz for piano")).states[0]
    beside = service.call("EmbedText", texts("drums", "a slow waltz for piano", "a much longer text " * 20)).states[1]
    crowd = service.together("EmbedText", [texts("a slow waltz for piano"), *(texts(f"text {i}") for i in range(9))])
    assert alone == beside == crowd[0].states[0]


def test_states_name_their_encoder_and_leave_padding_out(service):
    answer = service.call("EmbedText", texts("slow piano", "a slow piano waltz"))
    assert answer.model.name == "minilm" and answer.model.is_default and answer.model.licence == "Apache-2.0"
    assert [len(states.token_states) // (4 * 384) for states in answer.states] == [4, 6]
    assert all(states.encoder_id == f"minilm@{answer.model.digest_sha256[:12]}" for states in answer.states)
    assert all(np.linalg.norm(states.pooled) == pytest.approx(1, abs=1e-5) for states in answer.states)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (texts(), "texts"),
        (texts(*["a"] * 65), "texts"),
        (texts("fine", ""), "texts[1]"),
        (texts("fine", " \n"), "texts[1]"),
        (texts("x" * 2001), "texts[0]"),
        (texts("fine", "piano " * 300), "texts[1]"),
    ],
)
def test_an_invalid_text_is_named_and_the_next_request_works(service, request_, field):
    error = service.fails("EmbedText", request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and error.details().startswith(f"{field}: ")
    assert len(service.call("EmbedText", texts("fine")).states) == 1


def test_an_idle_service_with_the_shortest_queue_takes_the_largest_request(service):
    largest = texts(*(f"text {i}" for i in range(MAX_TEXTS)))
    assert len(service.call("EmbedText", largest).states) == MAX_TEXTS
    with pytest.raises(ValidationError, match="max_queued"):
        EmbeddingSettings(max_queued=MAX_TEXTS - 1)


def test_an_unknown_encoder_is_not_found_and_the_known_are_named(service):
    error = service.fails("EmbedText", texts("fine", model="absent"))
    assert error.code() is grpc.StatusCode.NOT_FOUND and "minilm" in error.details()


def test_a_melody_is_heard_at_its_pitch(service):
    answer = service.call("EmbedMelody", melody(2.0)).melody
    assert answer.frame_rate_hz == 7.8125 and set(answer.pitch_classes) == {9} and len(answer.pitch_classes) == 16


def test_a_melody_is_converted_beside_the_event_loop(service, monkeypatch):
    seen, waveform_from_proto = [], convert.waveform_from_proto

    def watched(message):
        seen.append(threading.current_thread())
        return waveform_from_proto(message)

    monkeypatch.setattr(convert, "waveform_from_proto", watched)
    service.call("EmbedMelody", melody(1.0))
    assert len(seen) == 1 and seen[0] is not threading.current_thread()


@pytest.mark.parametrize("duration_s", [0.05, 60.1])
def test_a_melody_too_short_or_too_long_is_refused(service, duration_s):
    error = service.fails("EmbedMelody", melody(duration_s, rate_hz=8_000))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and "0.1 to 60 s" in error.details()


def test_models_are_listed(service):
    models = service.call("ListModels", embedding_pb2.ListModelsRequest()).models
    assert [model.name for model in models] == sorted(model.name for model in models)
    [model] = [model for model in models if model.name == "minilm"]
    assert (model.name, model.service, model.source, model.is_default) == ("minilm", "embedding", "default", True)
    assert model.parameter_count == 22_565_376 and len(model.digest_sha256) == 64
