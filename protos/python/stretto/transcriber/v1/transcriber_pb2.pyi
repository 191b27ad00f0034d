from stretto.common.v1 import audio_pb2 as _audio_pb2
from stretto.common.v1 import model_pb2 as _model_pb2
from stretto.common.v1 import score_pb2 as _score_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NoteEnds(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTE_ENDS_UNSPECIFIED: _ClassVar[NoteEnds]
    NOTE_ENDS_SOUND: _ClassVar[NoteEnds]
    NOTE_ENDS_KEY: _ClassVar[NoteEnds]
NOTE_ENDS_UNSPECIFIED: NoteEnds
NOTE_ENDS_SOUND: NoteEnds
NOTE_ENDS_KEY: NoteEnds

class TranscribeAudioRequest(_message.Message):
    __slots__ = ("config", "waveform")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    config: TranscribeConfig
    waveform: _audio_pb2.Waveform
    def __init__(self, config: _Optional[_Union[TranscribeConfig, _Mapping]] = ..., waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ...) -> None: ...

class TranscribeConfig(_message.Message):
    __slots__ = ("model", "ends")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    ends: NoteEnds
    def __init__(self, model: _Optional[str] = ..., ends: _Optional[_Union[NoteEnds, str]] = ...) -> None: ...

class TranscribeAudioResponse(_message.Message):
    __slots__ = ("notes", "complete_s", "model")
    NOTES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_S_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    notes: _score_pb2.Score
    complete_s: float
    model: _model_pb2.ModelInfo
    def __init__(self, notes: _Optional[_Union[_score_pb2.Score, _Mapping]] = ..., complete_s: _Optional[float] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class TrackBeatsRequest(_message.Message):
    __slots__ = ("config", "waveform")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    config: TrackBeatsConfig
    waveform: _audio_pb2.Waveform
    def __init__(self, config: _Optional[_Union[TrackBeatsConfig, _Mapping]] = ..., waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ...) -> None: ...

class TrackBeatsConfig(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class TrackBeatsResponse(_message.Message):
    __slots__ = ("beat_s", "beat_in_bar", "tempo_bpm", "time_signature_numerator", "onset_s", "model")
    BEAT_S_FIELD_NUMBER: _ClassVar[int]
    BEAT_IN_BAR_FIELD_NUMBER: _ClassVar[int]
    TEMPO_BPM_FIELD_NUMBER: _ClassVar[int]
    TIME_SIGNATURE_NUMERATOR_FIELD_NUMBER: _ClassVar[int]
    ONSET_S_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    beat_s: _containers.RepeatedScalarFieldContainer[float]
    beat_in_bar: _containers.RepeatedScalarFieldContainer[int]
    tempo_bpm: _containers.RepeatedScalarFieldContainer[float]
    time_signature_numerator: int
    onset_s: _containers.RepeatedScalarFieldContainer[float]
    model: _model_pb2.ModelInfo
    def __init__(self, beat_s: _Optional[_Iterable[float]] = ..., beat_in_bar: _Optional[_Iterable[int]] = ..., tempo_bpm: _Optional[_Iterable[float]] = ..., time_signature_numerator: _Optional[int] = ..., onset_s: _Optional[_Iterable[float]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class EngraveScoreRequest(_message.Message):
    __slots__ = ("score", "title")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    score: _score_pb2.Score
    title: str
    def __init__(self, score: _Optional[_Union[_score_pb2.Score, _Mapping]] = ..., title: _Optional[str] = ...) -> None: ...

class EngraveScoreResponse(_message.Message):
    __slots__ = ("score", "musicxml")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    MUSICXML_FIELD_NUMBER: _ClassVar[int]
    score: _score_pb2.Score
    musicxml: bytes
    def __init__(self, score: _Optional[_Union[_score_pb2.Score, _Mapping]] = ..., musicxml: _Optional[bytes] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.ModelInfo, _Mapping]]] = ...) -> None: ...
