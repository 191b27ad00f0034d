from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Pace(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PACE_UNSPECIFIED: _ClassVar[Pace]
    PACE_BEST_EFFORT: _ClassVar[Pace]
    PACE_REALTIME: _ClassVar[Pace]
PACE_UNSPECIFIED: Pace
PACE_BEST_EFFORT: Pace
PACE_REALTIME: Pace

class ModelInfo(_message.Message):
    __slots__ = ("name", "service", "digest_sha256", "licence", "score", "parameter_count", "is_default", "source", "sample_rate_hz", "frame_rate_hz", "codebook_count", "channel_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    FRAME_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    service: str
    digest_sha256: str
    licence: str
    score: str
    parameter_count: int
    is_default: bool
    source: str
    sample_rate_hz: int
    frame_rate_hz: float
    codebook_count: int
    channel_count: int
    def __init__(self, name: _Optional[str] = ..., service: _Optional[str] = ..., digest_sha256: _Optional[str] = ..., licence: _Optional[str] = ..., score: _Optional[str] = ..., parameter_count: _Optional[int] = ..., is_default: _Optional[bool] = ..., source: _Optional[str] = ..., sample_rate_hz: _Optional[int] = ..., frame_rate_hz: _Optional[float] = ..., codebook_count: _Optional[int] = ..., channel_count: _Optional[int] = ...) -> None: ...

class SamplingOptions(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "guidance_scale")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    guidance_scale: float
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., guidance_scale: _Optional[float] = ...) -> None: ...
