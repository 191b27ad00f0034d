from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Waveform(_message.Message):
    __slots__ = ("sample_rate_hz", "channel_count", "samples")
    SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    sample_rate_hz: int
    channel_count: int
    samples: bytes
    def __init__(self, sample_rate_hz: _Optional[int] = ..., channel_count: _Optional[int] = ..., samples: _Optional[bytes] = ...) -> None: ...
