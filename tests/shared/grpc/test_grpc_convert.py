"""Values cross the wire unchanged, and every malformed message names the caller's own field."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stretto.common.v1 import audio_pb2, features_pb2, model_pb2, tokens_pb2
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import Chromagram, ModelInfo, SamplingOptions, TextStates
from stretto_shared.grpc import convert
from stretto_shared.tokens import TokenMatrix

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 2), st.integers(1, 50)), elements=finite))
def test_a_waveform_crosses_the_wire_unchanged(samples):
    back = convert.waveform_from_proto(convert.waveform_to_proto(Waveform(samples, 44_100)))
    np.testing.assert_array_equal(back.samples, samples)
    assert back.sample_rate_hz == 44_100


def test_stereo_is_interleaved_little_endian_floats():
    message = convert.waveform_to_proto(Waveform(np.array([[1, 2], [3, 4]], np.float32), 48_000))
    assert message.channel_count == 2
    assert message.samples == np.array([1, 3, 2, 4], "<f4").tobytes()


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 8), st.integers(0, 20)), elements=st.integers(0, 2**31 - 1)))
def test_tokens_cross_the_wire_unchanged(codes):
    scales = (0.5, 1e4)[: codes.shape[1]]
    back = convert.tokens_from_proto(convert.tokens_to_proto(TokenMatrix(codes, 50.0, "c@1", scales)))
    np.testing.assert_array_equal(back.codes, codes)
    assert (back.frame_rate_hz, back.codec_id, back.chunk_scales) == (50.0, "c@1", scales)


def test_the_tokens_of_a_long_clip_cross_the_wire_unchanged():
    codes = np.random.default_rng(0).integers(0, 1024, (32, 1000))
    message = convert.tokens_to_proto(TokenMatrix(codes, 50.0, "c@1"))
    assert list(message.codes) == codes.ravel().tolist()
    np.testing.assert_array_equal(convert.tokens_from_proto(message).codes, codes)


def test_codes_are_row_major_by_codebook():
    message = convert.tokens_to_proto(TokenMatrix(np.array([[1, 2, 3], [4, 5, 6]]), 50.0, "c@1"))
    assert list(message.codes) == [1, 2, 3, 4, 5, 6]
    assert message.codebook_count == 2


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=finite))
def test_text_states_cross_the_wire_unchanged(states):
    value = TextStates("minilm@1", states.mean(axis=0, dtype=np.float64).astype(np.float32), states)
    back = convert.text_states_from_proto(convert.text_states_to_proto(value))
    np.testing.assert_array_equal(back.states, states)
    np.testing.assert_array_equal(back.pooled, value.pooled)
    assert back.encoder_id == "minilm@1"


def test_a_melody_crosses_the_wire_unchanged():
    back = convert.chromagram_from_proto(convert.chromagram_to_proto(Chromagram(np.array([-1, 0, 11]), 10.0)))
    np.testing.assert_array_equal(back.pitch_classes, [-1, 0, 11])
    assert back.frame_rate_hz == 10.0


@pytest.mark.parametrize(
    "sampling", [SamplingOptions(), SamplingOptions(0.0, 0, 1.0, 0.0), SamplingOptions(1.1, 250, 0.9, 3.0)]
)
def test_sampling_options_cross_the_wire_unchanged_and_zero_is_not_unset(sampling):
    assert convert.sampling_from_proto(convert.sampling_to_proto(sampling)) == sampling


def test_model_info_crosses_the_wire_unchanged():
    info = ModelInfo("framecodec", "codec", "ab" * 32, "CC-BY-4.0", "mel .3", 7, True, "default", 24_000, 50.0, 4, 2)
    assert convert.model_info_from_proto(convert.model_info_to_proto(info)) == info
    assert info.model_id == "framecodec@abababababab"


def pcm(*values):
    return np.array(values, "<f4").tobytes()


def proto_audio(rate=24_000, channels=1, samples=None):
    return audio_pb2.Waveform(
        sample_rate_hz=rate, channel_count=channels, samples=pcm(0, 0) if samples is None else samples
    )


def proto_tokens(**changed):
    fields = {"codec_id": "c@1", "frame_rate_hz": 50, "codebook_count": 2, "codes": [1, 2, 3, 4], **changed}
    return tokens_pb2.TokenMatrix(**fields)


def proto_text(**changed):
    fields = {"encoder_id": "e@1", "dimension": 2, "pooled": [0, 1], "token_states": pcm(1, 2, 3, 4), **changed}
    return features_pb2.TextStates(**fields)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (audio_pb2.Waveform(), "melody"),
        (proto_audio(rate=0), "melody.sample_rate_hz"),
        (proto_audio(rate=4_000), "melody.sample_rate_hz"),
        (proto_audio(rate=400_000), "melody.sample_rate_hz"),
        (proto_audio(channels=0), "melody.channel_count"),
        (proto_audio(channels=-1), "melody.channel_count"),
        (proto_audio(channels=3), "melody.channel_count"),
        (proto_audio(samples=b""), "melody.samples"),
        (proto_audio(samples=b"12345"), "melody.samples"),
        (proto_audio(channels=2, samples=pcm(1, 2, 3)), "melody.samples"),
        (proto_audio(samples=pcm(0, np.nan)), "melody.samples"),
        (proto_audio(samples=pcm(0, np.inf)), "melody.samples"),
    ],
)
def test_a_malformed_waveform_names_the_callers_field(message, field):
    with pytest.raises(InvalidInput) as caught:
        convert.waveform_from_proto(message, field="melody")
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (tokens_pb2.TokenMatrix(), "resume_from"),
        (proto_tokens(codec_id=""), "resume_from.codec_id"),
        (proto_tokens(codebook_count=0), "resume_from.codebook_count"),
        (proto_tokens(codebook_count=65), "resume_from.codebook_count"),
        (proto_tokens(codes=[1, 2, 3]), "resume_from.codes"),
        (proto_tokens(codes=[1, -1]), "resume_from.codes"),
        (proto_tokens(frame_rate_hz=0), "resume_from.frame_rate_hz"),
        (proto_tokens(frame_rate_hz=float("nan")), "resume_from.frame_rate_hz"),
        (proto_tokens(chunk_scales=[float("nan")]), "resume_from.chunk_scales"),
        (proto_tokens(chunk_scales=[0.0]), "resume_from.chunk_scales"),
        (proto_tokens(chunk_scales=[1.0, -1.0]), "resume_from.chunk_scales"),
        (proto_tokens(chunk_scales=[1.0, float("inf")]), "resume_from.chunk_scales"),
        (proto_tokens(chunk_scales=[3.4e38]), "resume_from.chunk_scales"),
        (proto_tokens(chunk_scales=[1.0] * 3), "resume_from.chunk_scales"),
    ],
)
def test_malformed_tokens_name_the_callers_field(message, field):
    with pytest.raises(InvalidInput) as caught:
        convert.tokens_from_proto(message, field="resume_from")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "num_codes", "num_scales"),
    [
        ("tokens.chunk_scales", 2, 2_000_000),
        ("tokens.chunk_scales", 10_000, 4097),
        ("tokens.codes", 2**22 + 2, 0),
    ],
)
def test_more_tokens_than_one_message_may_bring_are_refused(field, num_codes, num_scales):
    with pytest.raises(InvalidInput) as caught:
        convert.tokens_from_proto(proto_tokens(codes=[1] * num_codes, chunk_scales=[1.0] * num_scales))
    assert caught.value.field == field


def test_more_features_than_one_message_may_bring_are_refused():
    with pytest.raises(InvalidInput) as caught:
        convert.text_states_from_proto(
            proto_text(dimension=16_385, pooled=[0] * 16_385, token_states=bytes(4 * 16_385))
        )
    assert caught.value.field == "text.dimension"
    with pytest.raises(InvalidInput) as caught:
        convert.chromagram_from_proto(features_pb2.Chromagram(frame_rate_hz=8, pitch_classes=[1] * 65_537))
    assert caught.value.field == "melody.pitch_classes"


def test_a_message_is_checked_at_once_and_not_value_by_value():
    message = proto_tokens(codes=[1] * 8000, chunk_scales=[1.0] * 4000)
    num_calls = 0

    def count(frame, event, argument):
        nonlocal num_calls
        num_calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        convert.tokens_from_proto(message)
    finally:
        sys.setprofile(None)
    assert num_calls < 200


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (features_pb2.TextStates(), "text"),
        (proto_text(encoder_id=""), "text.encoder_id"),
        (proto_text(dimension=0), "text.dimension"),
        (proto_text(dimension=-2), "text.dimension"),
        (proto_text(pooled=[1]), "text.pooled"),
        (proto_text(token_states=b""), "text.token_states"),
        (proto_text(token_states=pcm(1, 2, 3)), "text.token_states"),
        (proto_text(token_states=pcm(1, np.nan)), "text.token_states"),
        (proto_text(pooled=[0, float("inf")]), "text.token_states"),
    ],
)
def test_malformed_text_states_name_their_field(message, field):
    with pytest.raises(InvalidInput) as caught:
        convert.text_states_from_proto(message)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (features_pb2.Chromagram(), "tune"),
        (features_pb2.Chromagram(frame_rate_hz=8), "tune.pitch_classes"),
        (features_pb2.Chromagram(frame_rate_hz=8, pitch_classes=[12]), "tune.pitch_classes"),
        (features_pb2.Chromagram(frame_rate_hz=8, pitch_classes=[-2]), "tune.pitch_classes"),
        (features_pb2.Chromagram(pitch_classes=[1]), "tune.frame_rate_hz"),
    ],
)
def test_a_malformed_melody_names_the_callers_field(message, field):
    with pytest.raises(InvalidInput) as caught:
        convert.chromagram_from_proto(message, field="tune")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", 0.001),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("guidance_scale", -1.0),
        ("guidance_scale", float("inf")),
    ],
)
def test_a_sampling_option_out_of_range_names_its_field(name, value):
    with pytest.raises(InvalidInput) as caught:
        convert.sampling_from_proto(model_pb2.SamplingOptions(**{name: value}), field="request.sampling")
    assert caught.value.field == f"request.sampling.{name}"


def test_unset_sampling_takes_every_default():
    assert convert.sampling_from_proto(model_pb2.SamplingOptions()) == SamplingOptions()


@pytest.mark.parametrize(("message", "field"), [({}, "model"), ({"service": "codec"}, "model.name")])
def test_a_nameless_model_is_refused(message, field):
    with pytest.raises(InvalidInput) as caught:
        convert.model_info_from_proto(model_pb2.ModelInfo(**message))
    assert caught.value.field == field
