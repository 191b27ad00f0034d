"""What a joint and a melody encoder answer over a real channel."""

import grpc
import numpy as np
import pytest
from band_encoders import BANDS, RATE_HZ, tone, wire
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.common.v1 import audio_pb2, features_pb2
from stretto.embedding.v1 import embedding_pb2

LOW, MIDDLE, HIGH = (tone(hz) for hz in (500, 1_500, 2_500))
LOUD = 2e25 * LOW


def field_of(error):
    """The field that BadRequest names."""
    request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(request) for detail in rpc_status.from_call(error).details)
    return request.field_violations[0].field


def audio(samples, rate_hz=RATE_HZ, model=""):
    return embedding_pb2.EmbedAudioRequest(model=model, waveform=wire(samples, rate_hz))


def rank(*candidates, **query):
    return embedding_pb2.RankAudioRequest(candidates=[wire(each) for each in candidates], **query)


def point(*values, encoder_id="bands@" + "b" * 12):
    return features_pb2.JointEmbedding(encoder_id=encoder_id, values=values)


def test_a_text_and_a_recording_of_one_kind_meet_in_the_joint_space(bands_service):
    text = bands_service.call("EmbedText", embedding_pb2.EmbedTextRequest(model="bands", texts=["low low", "high"]))
    assert text.model.name == "bands" and text.model.is_default and not text.states
    low, high = (np.array(each.values) for each in text.embeddings)
    heard = bands_service.call("EmbedAudio", audio(LOW))
    values = np.array(heard.embedding.values)
    assert np.linalg.norm(values) == pytest.approx(1) and values @ low > 0.99 and values @ high < 0.1
    assert heard.embedding.encoder_id == text.embeddings[0].encoder_id == "bands@" + "b" * 12
    assert list(heard.embedding.codes) == [0, 100] and text.embeddings[1].codes[0] == 2
    assert (heard.window_s, heard.stride_s, len(heard.windows)) == (1.0, 0.5, 1)
    assert heard.windows[0] == heard.embedding


def test_a_long_recording_is_the_mean_of_its_windows(bands_service):
    heard = bands_service.call("EmbedAudio", audio(np.concatenate([LOW, LOW, HIGH])))
    windows = np.array([each.values for each in heard.windows])
    assert windows.shape == (5, 4) and windows.argmax(1).tolist() == [0, 0, 0, 0, 2]
    mean = windows.mean(0)
    np.testing.assert_allclose(heard.embedding.values, mean / np.linalg.norm(mean), atol=1e-6)
    assert [each.codes[0] for each in heard.windows] == [0, 0, 0, 0, 2] and heard.embedding.codes[0] == 0


def test_a_recording_gives_the_same_bytes_alone_and_beside_others(bands_service):
    request = audio(np.concatenate([LOW, HIGH, MIDDLE]))
    alone = bands_service.call("EmbedAudio", request)
    others = [audio(tone(100 * index, 3.0)) for index in range(1, 6)]
    assert bands_service.together("EmbedAudio", [others[0], request, *others])[1] == alone


@pytest.mark.parametrize("rate_hz", [11_025, 44_100, 48_000, 192_000])
def test_any_sample_rate_is_heard_and_stereo_is_mixed(bands_service, rate_hz):
    low = tone(500, 1.0, rate_hz)
    stereo = bands_service.call("EmbedAudio", audio(np.stack([low, np.zeros_like(low)]), rate_hz)).embedding
    mono = bands_service.call("EmbedAudio", audio(low / 2, rate_hz)).embedding
    assert stereo == mono and stereo.codes[0] == 0 and stereo.values[0] > 0.99


def test_recordings_are_ranked_by_a_text_or_by_a_recording(bands_service):
    by_text = bands_service.call("RankAudio", rank(HIGH, LOW, MIDDLE, LOW, text="low middle middle middle"))
    assert [each.candidate_index for each in by_text.ranking] == [2, 1, 3, 0]
    scores = [each.similarity for each in by_text.ranking]
    assert scores[1] == scores[2] and scores == sorted(scores, reverse=True) and by_text.model.name == "bands"
    by_audio = bands_service.call("RankAudio", rank(LOW, HIGH, reference=wire(tone(2_600))))
    assert [each.candidate_index for each in by_audio.ranking] == [1, 0] and by_audio.ranking[0].similarity > 0.99


def test_tags_are_shares_of_one(bands_service):
    tagged = bands_service.call("TagAudio", embedding_pb2.TagAudioRequest(waveform=wire(MIDDLE)))
    assert tagged.tags[0].tag == "middle" and {each.tag for each in tagged.tags} == set(BANDS)
    assert sum(each.probability for each in tagged.tags) == pytest.approx(1)
    best, second = tagged.tags[:2]
    ratio = np.exp((best.similarity - second.similarity) / 0.1)  # the encoder's temperature
    assert best.probability / second.probability == pytest.approx(ratio, rel=1e-3)
    own = embedding_pb2.TagAudioRequest(waveform=wire(MIDDLE), tags=["top high", "middle low"])
    assert [each.tag for each in bands_service.call("TagAudio", own).tags] == ["middle low", "top high"]


def test_more_tags_than_the_queue_holds_are_tried(bands_service):
    many = [f"{BANDS[index % 4]} {index}" for index in range(256)]  # the queue of the fixture holds 64 texts
    answer = bands_service.call("TagAudio", embedding_pb2.TagAudioRequest(waveform=wire(LOW), tags=many))
    assert [each.tag for each in answer.tags[:64]] == many[::4]


def test_points_between_others_get_their_codes(bands_service):
    request = embedding_pb2.QuantizeEmbeddingsRequest(embeddings=[point(0, 0, 3, 0), *[point(2, 1, 0, 0)] * 100])
    coded = bands_service.call("QuantizeEmbeddings", request)
    assert list(coded.embeddings[0].values) == [0, 0, 1, 0] and list(coded.embeddings[0].codes) == [2, 100]
    assert len(coded.embeddings) == 101 and list(coded.embeddings[100].codes) == [0, 89]
    assert coded.model.name == "bands"


def test_a_melody_encoder_gives_codes_and_no_chromagram(bands_service):
    levels = np.concatenate([tone(200, 1.0, amplitude=0.355), tone(200, 0.5, amplitude=0.855)])
    answer = bands_service.call("EmbedMelody", embedding_pb2.EmbedMelodyRequest(waveform=wire(levels), model="levels"))
    codes = answer.codes
    assert (codes.codec_id, codes.frame_rate_hz, codes.codebook_count) == ("levels@" + "c" * 12, 1.0, 2)
    assert list(codes.codes) == [3, 8, 5, 5]
    assert not answer.HasField("melody") and answer.model.name == "levels"
    plain = bands_service.call("EmbedMelody", embedding_pb2.EmbedMelodyRequest(waveform=wire(levels)))
    assert plain.HasField("melody") and not plain.HasField("codes") and not plain.HasField("model")


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("EmbedAudio", embedding_pb2.EmbedAudioRequest(), "waveform"),
        ("EmbedAudio", audio(LOW[:700]), "waveform"),
        ("EmbedAudio", audio(np.zeros(RATE_HZ * 601)), "waveform"),
        ("EmbedAudio", audio(LOW, 4_000), "waveform.sample_rate_hz"),
        ("EmbedAudio", audio(LOW * np.nan), "waveform.samples"),
        ("EmbedAudio", audio(LOUD), "waveform.samples"),
        ("EmbedAudio", audio(LOW, model="minilm"), "model"),
        ("EmbedAudio", audio(LOW, model="levels"), "model"),
        ("EmbedText", embedding_pb2.EmbedTextRequest(model="levels", texts=["low"]), "model"),
        ("EmbedText", embedding_pb2.EmbedTextRequest(model="bands", texts=["low", "low " * 7]), "texts[1]"),
        ("RankAudio", rank(text="low"), "candidates"),
        ("RankAudio", rank(*[LOW] * 65, text="low"), "candidates"),
        ("RankAudio", rank(LOW, HIGH), "query"),
        ("RankAudio", rank(LOW, text=" "), "text"),
        ("RankAudio", rank(LOW, text="low " * 7), "text"),
        ("RankAudio", rank(LOW, reference=audio_pb2.Waveform()), "reference"),
        ("RankAudio", rank(LOW, reference=wire(LOW[:90])), "reference"),
        ("RankAudio", rank(LOW, LOW[:90], text="low"), "candidates[1]"),
        ("RankAudio", rank(LOW, LOUD, text="low"), "candidates[1].samples"),
        ("RankAudio", rank(LOW, reference=wire(LOUD)), "reference.samples"),
        (
            "RankAudio",
            embedding_pb2.RankAudioRequest(text="low", candidates=[*[wire(LOW)] * 3, wire(LOW, 1_000)]),
            "candidates[3].sample_rate_hz",
        ),
        ("TagAudio", embedding_pb2.TagAudioRequest(), "waveform"),
        ("TagAudio", embedding_pb2.TagAudioRequest(waveform=wire(LOUD)), "waveform.samples"),
        ("TagAudio", embedding_pb2.TagAudioRequest(waveform=wire(LOW), tags=["low"] * 257), "tags"),
        ("TagAudio", embedding_pb2.TagAudioRequest(waveform=wire(LOW), tags=["low", ""]), "tags[1]"),
        ("TagAudio", embedding_pb2.TagAudioRequest(waveform=wire(LOW), tags=["x" * 201]), "tags[0]"),
        ("TagAudio", embedding_pb2.TagAudioRequest(waveform=wire(LOW), tags=["low", "low " * 7]), "tags[1]"),
        ("TagAudio", embedding_pb2.TagAudioRequest(waveform=wire(LOW), model="mute"), "tags"),
        ("QuantizeEmbeddings", embedding_pb2.QuantizeEmbeddingsRequest(), "embeddings"),
        ("QuantizeEmbeddings", embedding_pb2.QuantizeEmbeddingsRequest(embeddings=[point(1)] * 1025), "embeddings"),
        (
            "QuantizeEmbeddings",
            embedding_pb2.QuantizeEmbeddingsRequest(embeddings=[point(1, 0, 0, 0), point(1, 2, 3)]),
            "embeddings[1].values",
        ),
        (
            "QuantizeEmbeddings",
            embedding_pb2.QuantizeEmbeddingsRequest(embeddings=[point(1, 0, 0, 0), point(0, 0, 0, 0)]),
            "embeddings[1].values",
        ),
        (
            "QuantizeEmbeddings",
            embedding_pb2.QuantizeEmbeddingsRequest(embeddings=[point(1, 0, 0, 0, encoder_id="mulan@" + "0" * 12)]),
            "embeddings[0].encoder_id",
        ),
        (
            "QuantizeEmbeddings",
            embedding_pb2.QuantizeEmbeddingsRequest(
                model="mute", embeddings=[point(1, 0, 0, 0, encoder_id="mute@" + "b" * 12)]
            ),
            "model",
        ),
        (
            "EmbedMelody",
            embedding_pb2.EmbedMelodyRequest(waveform=wire(np.zeros(RATE_HZ * 61)), model="levels"),
            "waveform",
        ),
        ("EmbedMelody", embedding_pb2.EmbedMelodyRequest(waveform=wire(LOUD), model="levels"), "waveform.samples"),
        ("EmbedMelody", embedding_pb2.EmbedMelodyRequest(waveform=wire(LOUD)), "waveform.samples"),
        ("EmbedMelody", embedding_pb2.EmbedMelodyRequest(waveform=wire(LOW), model="bands"), "model"),
    ],
)
def test_an_invalid_request_names_its_field_and_the_next_one_works(bands_service, method, request_, field):
    error = bands_service.fails(method, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and field_of(error) == field
    assert bands_service.call("EmbedAudio", audio(LOW)).embedding.codes[0] == 0


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("EmbedText", embedding_pb2.EmbedTextRequest(model="absent", texts=["low"])),
        ("EmbedAudio", audio(LOW, model="absent")),
        ("RankAudio", rank(LOW, text="low", model="absent")),
        ("TagAudio", embedding_pb2.TagAudioRequest(waveform=wire(LOW), model="absent")),
        ("QuantizeEmbeddings", embedding_pb2.QuantizeEmbeddingsRequest(embeddings=[point(1)], model="absent")),
        ("EmbedMelody", embedding_pb2.EmbedMelodyRequest(waveform=wire(LOW), model="absent")),
    ],
)
def test_an_unknown_encoder_is_not_found_and_those_that_fit_are_named(bands_service, method, request_):
    error = bands_service.fails(method, request_)
    fitting = "levels" if method == "EmbedMelody" else "bands, "
    assert error.code() is grpc.StatusCode.NOT_FOUND and fitting in error.details() and "absent" in error.details()


def test_every_checkpoint_of_a_known_architecture_is_served(bands_service):
    models = bands_service.call("ListModels", embedding_pb2.ListModelsRequest()).models
    assert [model.name for model in models] == ["bands", "levels", "minilm", "mute"]
    assert {model.name for model in models if model.is_default} == {"bands", "minilm"}


def test_a_call_whose_deadline_passes_leaves_the_encoder_to_others(bands_service):
    long = audio(np.tile(LOW, 600))
    error = bands_service.fails("EmbedAudio", long, timeout=0.02)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert bands_service.call("EmbedAudio", audio(LOW)).embedding.codes[0] == 0
