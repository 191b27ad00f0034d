from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class TokenMatrix(_message.Message):
    __slots__ = ("codec_id", "frame_rate_hz", "codebook_count", "codes", "chunk_scales")
    CODEC_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_COUNT_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_SCALES_FIELD_NUMBER: _ClassVar[int]
    codec_id: str
    frame_rate_hz: float
    codebook_count: int
    codes: _containers.RepeatedScalarFieldContainer[int]
    chunk_scales: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, codec_id: _Optional[str] = ..., frame_rate_hz: _Optional[float] = ..., codebook_count: _Optional[int] = ..., codes: _Optional[_Iterable[int]] = ..., chunk_scales: _Optional[_Iterable[float]] = ...) -> None: ...
