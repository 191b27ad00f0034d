from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class TextStates(_message.Message):
    __slots__ = ("encoder_id", "dimension", "pooled", "token_states")
    ENCODER_ID_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    POOLED_FIELD_NUMBER: _ClassVar[int]
    TOKEN_STATES_FIELD_NUMBER: _ClassVar[int]
    encoder_id: str
    dimension: int
    pooled: _containers.RepeatedScalarFieldContainer[float]
    token_states: bytes
    def __init__(self, encoder_id: _Optional[str] = ..., dimension: _Optional[int] = ..., pooled: _Optional[_Iterable[float]] = ..., token_states: _Optional[bytes] = ...) -> None: ...

class Chromagram(_message.Message):
    __slots__ = ("frame_rate_hz", "pitch_classes")
    FRAME_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    PITCH_CLASSES_FIELD_NUMBER: _ClassVar[int]
    frame_rate_hz: float
    pitch_classes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, frame_rate_hz: _Optional[float] = ..., pitch_classes: _Optional[_Iterable[int]] = ...) -> None: ...

class JointEmbedding(_message.Message):
    __slots__ = ("encoder_id", "values", "codes")
    ENCODER_ID_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    encoder_id: str
    values: _containers.RepeatedScalarFieldContainer[float]
    codes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, encoder_id: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ..., codes: _Optional[_Iterable[int]] = ...) -> None: ...

class StyleSpan(_message.Message):
    __slots__ = ("start_s", "encoder_id", "codes")
    START_S_FIELD_NUMBER: _ClassVar[int]
    ENCODER_ID_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    start_s: float
    encoder_id: str
    codes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, start_s: _Optional[float] = ..., encoder_id: _Optional[str] = ..., codes: _Optional[_Iterable[int]] = ...) -> None: ...
