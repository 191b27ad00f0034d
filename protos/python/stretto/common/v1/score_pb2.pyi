from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Score(_message.Message):
    __slots__ = ("onset_s", "duration_s", "pitch_midi", "velocity", "part_index", "parts", "spelling_fifths", "beat_s", "beat_in_bar", "tempos", "time_signatures", "keys")
    ONSET_S_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    PITCH_MIDI_FIELD_NUMBER: _ClassVar[int]
    VELOCITY_FIELD_NUMBER: _ClassVar[int]
    PART_INDEX_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    SPELLING_FIFTHS_FIELD_NUMBER: _ClassVar[int]
    BEAT_S_FIELD_NUMBER: _ClassVar[int]
    BEAT_IN_BAR_FIELD_NUMBER: _ClassVar[int]
    TEMPOS_FIELD_NUMBER: _ClassVar[int]
    TIME_SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    onset_s: _containers.RepeatedScalarFieldContainer[float]
    duration_s: _containers.RepeatedScalarFieldContainer[float]
    pitch_midi: _containers.RepeatedScalarFieldContainer[int]
    velocity: _containers.RepeatedScalarFieldContainer[int]
    part_index: _containers.RepeatedScalarFieldContainer[int]
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    spelling_fifths: _containers.RepeatedScalarFieldContainer[int]
    beat_s: _containers.RepeatedScalarFieldContainer[float]
    beat_in_bar: _containers.RepeatedScalarFieldContainer[int]
    tempos: _containers.RepeatedCompositeFieldContainer[Tempo]
    time_signatures: _containers.RepeatedCompositeFieldContainer[TimeSignature]
    keys: _containers.RepeatedCompositeFieldContainer[Key]
    def __init__(self, onset_s: _Optional[_Iterable[float]] = ..., duration_s: _Optional[_Iterable[float]] = ..., pitch_midi: _Optional[_Iterable[int]] = ..., velocity: _Optional[_Iterable[int]] = ..., part_index: _Optional[_Iterable[int]] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ..., spelling_fifths: _Optional[_Iterable[int]] = ..., beat_s: _Optional[_Iterable[float]] = ..., beat_in_bar: _Optional[_Iterable[int]] = ..., tempos: _Optional[_Iterable[_Union[Tempo, _Mapping]]] = ..., time_signatures: _Optional[_Iterable[_Union[TimeSignature, _Mapping]]] = ..., keys: _Optional[_Iterable[_Union[Key, _Mapping]]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("name", "program", "is_drum")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    IS_DRUM_FIELD_NUMBER: _ClassVar[int]
    name: str
    program: int
    is_drum: bool
    def __init__(self, name: _Optional[str] = ..., program: _Optional[int] = ..., is_drum: _Optional[bool] = ...) -> None: ...

class Tempo(_message.Message):
    __slots__ = ("time_s", "tempo_bpm")
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    TEMPO_BPM_FIELD_NUMBER: _ClassVar[int]
    time_s: float
    tempo_bpm: float
    def __init__(self, time_s: _Optional[float] = ..., tempo_bpm: _Optional[float] = ...) -> None: ...

class TimeSignature(_message.Message):
    __slots__ = ("time_s", "numerator", "denominator")
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    NUMERATOR_FIELD_NUMBER: _ClassVar[int]
    DENOMINATOR_FIELD_NUMBER: _ClassVar[int]
    time_s: float
    numerator: int
    denominator: int
    def __init__(self, time_s: _Optional[float] = ..., numerator: _Optional[int] = ..., denominator: _Optional[int] = ...) -> None: ...

class Key(_message.Message):
    __slots__ = ("time_s", "tonic_fifths", "is_minor")
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    TONIC_FIFTHS_FIELD_NUMBER: _ClassVar[int]
    IS_MINOR_FIELD_NUMBER: _ClassVar[int]
    time_s: float
    tonic_fifths: int
    is_minor: bool
    def __init__(self, time_s: _Optional[float] = ..., tonic_fifths: _Optional[int] = ..., is_minor: _Optional[bool] = ...) -> None: ...
