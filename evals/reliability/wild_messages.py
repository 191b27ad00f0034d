"""Requests that are almost right, of any method that a descriptor knows: what a fuzzer sends.

Every request has a temper: calm ones are filled as a caller would, wilder ones have fields at or over an edge, or left
out, and some messages have damaged bytes. Fields are drawn by their name and type, the values that belong together
(audio, tokens, scores) as a whole. The same seed gives the same requests. A method that is added to the wire is fuzzed
without a word here, unless its calm requests need values that nobody can guess.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from reliability import wild_scores
from stretto.acoustic.v1 import acoustic_pb2
from stretto.common.v1 import audio_pb2, features_pb2, score_pb2, tokens_pb2
from stretto_shared.features import ModelInfo

MAX_DEPTH = 5
MAX_MESSAGES = 5
TEMPERS, SHARES = (0.0, 0.05, 0.4), (0.45, 0.35, 0.2)
DAMAGED = 0.5  # of the messages of a request, times its temper
OPTIONAL = 0.25  # how often a calm request fills a message that it could do without

TEXTS = ("", " ", "x" * 2001, "\x00", "å\u0301 🎹", "'; --", "nobody", "a" * 300, "%s%n", "\u202e")
NUMBERS = (0.0, -0.0, -1.0, 1e-300, 0.1, 1.0, 30.0, 31.0, 601.0, 1e18, float("nan"), float("inf"), -float("inf"))
WHOLES = (0, 1, -1, 2, 8, 9, 64, 99, 1024, 2**31 - 1, -(2**31))
LARGE_WHOLES = (0, 1, 2**32, 2**63 - 1, -(2**63))
BYTES = (b"", b"\x00", b"\xff" * 7, struct.pack("<f", float("nan")) * 8, struct.pack("<f", 1e30) * 8)
NEEDED = frozenset(
    {"waveform", "audio", "score", "candidates", "embeddings", "config", "source", "tokens", "styles"}
    | {"file", "labels", "spans"}
)

Draw = random.Random
NAMED: Mapping[str, Sequence[Any]] = {
    "duration_s": (0.1, 0.2, 0.5, 0.96),
    "prompt": ("a flute", "a calm piano piece"),
    "text": ("a flute", "a storm"),
    "texts": ("a flute", "a storm"),
    "tags": ("a flute", "a drum"),
    "codebook_count": (0, 1, 4),
    "candidate_count": (0, 1, 2),
    "temperature": (0.9, 1.0),
    "top_p": (0.9, 1.0),
    "top_k": (0, 50),
    "guidance_scale": (1.0, 3.0),
    "priority": (0, 5, 9),
    "start_s": (0.0,),
    "seed": (0, 1, 7, 2**32),
}
"""What a caller writes into fields of these names; others get an empty, or a small, value."""


class WildMessages:
    """Draws requests that name the models of a server.

    Args:
        models: What the server lists.
    """

    def __init__(self, models: Sequence[ModelInfo]) -> None:
        self._names = ("", "musicgen", "musiclm", *(model.name for model in models))
        self._ids = ("", *(model.model_id for model in models))
        self._codec = next(model for model in models if model.service == "codec" and model.is_default)
        self._tokenizer = next(model for model in models if model.name == "w2vbert")
        self._encoder_id = next(model.model_id for model in models if model.name == "mulan")
        self._whole: Mapping[str, Callable[[Draw], Message]] = {
            "stretto.common.v1.Waveform": _waveform,
            "stretto.common.v1.TokenMatrix": self._tokens,
            "stretto.common.v1.Score": _score,
            "stretto.common.v1.JointEmbedding": self._point,
            "stretto.common.v1.StyleSpan": self._style,
            "stretto.acoustic.v1.RefineConfig": self._refining,
            **wild_scores.WHOLE,
        }

    def requests(self, method: MethodDescriptor, draw: Draw) -> list[bytes]:
        """The messages of one request; a wild one of a method that takes no stream may have more than one, or none."""
        kind, temper = message_factory.GetMessageClass(method.input_type), draw.choices(TEMPERS, SHARES)[0]
        if not method.client_streaming:
            count = draw.choice((0, 2)) if draw.random() < 0.1 * temper else 1
            return [self._written(self._filled(kind(), draw, 0, temper), draw, temper) for _ in range(count)]
        messages = [self._payload(kind(), draw, temper, is_config=True)] if draw.random() >= temper / 4 else []
        for _ in range(draw.randrange(1, MAX_MESSAGES)):
            messages.append(self._payload(kind(), draw, temper, is_config=draw.random() < temper / 4))
        if draw.random() < temper / 4:
            draw.shuffle(messages)
        return [self._written(message, draw, temper) for message in messages]

    def _payload(self, message: Message, draw: Draw, temper: float, *, is_config: bool) -> Message:
        """A message of a stream, which carries its configuration or what it is about."""
        choices = [field for oneof in message.DESCRIPTOR.oneofs for field in oneof.fields]
        fields = [field for field in choices if (field.name == "config") == is_config] or choices
        if not fields:
            return self._filled(message, draw, 0, temper)
        name = draw.choice(fields).name
        part = getattr(message, name)
        part.SetInParent()
        self._fill_part(part, draw, 1, temper, name=name)
        return message

    def _filled(self, message: Message, draw: Draw, depth: int, temper: float) -> Message:
        taken = {draw.choice(oneof.fields).name for oneof in message.DESCRIPTOR.oneofs if oneof.fields}
        for field in message.DESCRIPTOR.fields:
            if field.containing_oneof is not None and field.name not in taken:
                continue
            if draw.random() >= temper / 2:
                self._fill_field(message, field, draw, depth, temper)
        return message

    def _fill_part(self, part: Message, draw: Draw, depth: int, temper: float, *, name: str) -> None:
        whole = self._whole.get(part.DESCRIPTOR.full_name)
        if whole is None:
            self._filled(part, draw, depth, temper)
            return
        part.CopyFrom(self._heard_tokens(draw) if name == "source" else whole(draw))
        for field in part.DESCRIPTOR.fields:  # and then one or the other is off
            if draw.random() < temper / 2:
                part.ClearField(field.name)
                if draw.random() < 0.7:
                    self._fill_field(part, field, draw, depth, 1.0)

    def _fill_field(self, message: Message, field: FieldDescriptor, draw: Draw, depth: int, temper: float) -> None:
        count = draw.choice((1, 1, 2, 3)) if field.is_repeated else 1
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if depth >= MAX_DEPTH or (field.name not in NEEDED and draw.random() > OPTIONAL):
                return
            for _ in range(count):
                target = getattr(message, field.name)
                part = target.add() if field.is_repeated else target
                self._fill_part(part, draw, depth + 1, temper, name=field.name)
            return
        values = [self._value(field, draw, temper) for _ in range(count)]
        if field.is_repeated:
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, values[0])

    def _value(self, field: FieldDescriptor, draw: Draw, temper: float) -> Any:
        is_wild = draw.random() < temper / 2
        if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            known = [value.number for value in field.enum_type.values if value.number or not field.is_repeated]
            return draw.choice((99, -1)) if is_wild else draw.choice(known)
        if is_wild:
            return _edge(field, draw)
        if field.name in NAMED and isinstance(NAMED[field.name][0], str) == _is_text(field):
            return draw.choice(NAMED[field.name])
        if _is_text(field):
            names = self._ids if field.name.endswith("_id") else self._names
            return draw.choice(names) if draw.random() < temper else ""
        return b"" if field.type == FieldDescriptor.TYPE_BYTES else draw.choice((0, 1))

    def _tokens(self, draw: Draw) -> Message:
        shape = {"codec_id": self._codec.model_id, "frame_rate_hz": self._codec.frame_rate_hz}
        num_codes = self._codec.num_codebooks * draw.choice((1, 10, 25))
        codes = [draw.randrange(64) for _ in range(num_codes)]
        return tokens_pb2.TokenMatrix(**shape, codebook_count=self._codec.num_codebooks, codes=codes)

    def _heard_tokens(self, draw: Draw) -> Message:
        """What a stage that refines is told, 0.96 s of it."""
        codes = [draw.randrange(64) for _ in range(24)]
        return tokens_pb2.TokenMatrix(
            codec_id=self._tokenizer.model_id, frame_rate_hz=25.0, codebook_count=1, codes=codes
        )

    def _refining(self, draw: Draw) -> Message:
        return acoustic_pb2.RefineConfig(
            model="musiclm_coarse", styles=[self._style(draw)], duration_s=0.96, seed=draw.randrange(9)
        )

    def _point(self, draw: Draw) -> Message:
        values = np.random.default_rng(draw.randrange(2**32)).standard_normal(128)
        return features_pb2.JointEmbedding(encoder_id=self._encoder_id, values=values)

    def _style(self, draw: Draw) -> Message:
        return features_pb2.StyleSpan(encoder_id=self._encoder_id, codes=[draw.randrange(64) for _ in range(8)])

    def _written(self, message: Message, draw: Draw, temper: float) -> bytes:
        raw = message.SerializeToString()
        if not raw or draw.random() >= DAMAGED * temper:
            return bytes(raw)
        place = draw.randrange(len(raw))
        match draw.randrange(4):
            case 0:
                return bytes(raw[:place])
            case 1:
                return bytes(raw[:place] + bytes([raw[place] ^ 1 << draw.randrange(8)]) + raw[place + 1 :])
            case 2:
                return bytes(raw[:place] + draw.randbytes(draw.randrange(1, 9)) + raw[place:])
            case _:
                return bytes(raw + raw)


def _waveform(draw: Draw) -> Message:
    """Up to half a second of quiet noise; all of a stream alike, mostly."""
    rate_hz = 24_000 if draw.random() < 0.95 else draw.choice((8_000, 48_000))
    samples = np.random.default_rng(draw.randrange(2**32)).uniform(-0.3, 0.3, draw.choice((1, 480, 2_400, 12_000)))
    return audio_pb2.Waveform(sample_rate_hz=rate_hz, channel_count=1, samples=samples.astype("<f4").tobytes())


def _score(draw: Draw) -> Message:
    count = draw.randrange(1, 9)
    onsets = sorted(draw.randrange(0, 16) / 4 for _ in range(count))
    return score_pb2.Score(
        onset_s=onsets, duration_s=[0.25] * count, pitch_midi=[draw.randrange(21, 109) for _ in onsets],
        velocity=[64] * count, part_index=[0] * count, parts=[score_pb2.Part(name="piano")],
        beat_s=[index / 2 for index in range(9)], beat_in_bar=[index % 4 + 1 for index in range(9)],
    )  # fmt: skip


def _is_text(field: FieldDescriptor) -> bool:
    return bool(field.type == FieldDescriptor.TYPE_STRING)


def _edge(field: FieldDescriptor, draw: Draw) -> Any:
    """A value at or over the edge of what a field of this type may hold."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw.choice(BYTES)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return draw.choice(TEXTS)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return draw.choice(NUMBERS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return draw.random() < 0.5
        case FieldDescriptor.CPPTYPE_INT32:
            return draw.choice(WHOLES)
        case FieldDescriptor.CPPTYPE_INT64:
            return draw.choice(LARGE_WHOLES)
        case _:
            return abs(draw.choice(WHOLES))
