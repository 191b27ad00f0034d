import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from stretto.common.v1 import harmony_pb2 as _harmony_pb2
from stretto.common.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScoreFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORE_FORMAT_UNSPECIFIED: _ClassVar[ScoreFormat]
    SCORE_FORMAT_MUSICXML: _ClassVar[ScoreFormat]
    SCORE_FORMAT_MIDI: _ClassVar[ScoreFormat]
    SCORE_FORMAT_HUMDRUM: _ClassVar[ScoreFormat]

class AnalysisFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANALYSIS_FORMAT_UNSPECIFIED: _ClassVar[AnalysisFormat]
    ANALYSIS_FORMAT_ROMANTEXT: _ClassVar[AnalysisFormat]
    ANALYSIS_FORMAT_DCML_TSV: _ClassVar[AnalysisFormat]
    ANALYSIS_FORMAT_JSON: _ClassVar[AnalysisFormat]
    ANALYSIS_FORMAT_MUSICXML: _ClassVar[AnalysisFormat]
SCORE_FORMAT_UNSPECIFIED: ScoreFormat
SCORE_FORMAT_MUSICXML: ScoreFormat
SCORE_FORMAT_MIDI: ScoreFormat
SCORE_FORMAT_HUMDRUM: ScoreFormat
ANALYSIS_FORMAT_UNSPECIFIED: AnalysisFormat
ANALYSIS_FORMAT_ROMANTEXT: AnalysisFormat
ANALYSIS_FORMAT_DCML_TSV: AnalysisFormat
ANALYSIS_FORMAT_JSON: AnalysisFormat
ANALYSIS_FORMAT_MUSICXML: AnalysisFormat

class ScoreInput(_message.Message):
    __slots__ = ("file", "score")
    FILE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    file: ScoreFile
    score: NotatedScore
    def __init__(self, file: _Optional[_Union[ScoreFile, _Mapping]] = ..., score: _Optional[_Union[NotatedScore, _Mapping]] = ...) -> None: ...

class ScoreFile(_message.Message):
    __slots__ = ("data", "format")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    format: ScoreFormat
    def __init__(self, data: _Optional[bytes] = ..., format: _Optional[_Union[ScoreFormat, str]] = ...) -> None: ...

class NotatedScore(_message.Message):
    __slots__ = ("onset_ticks", "duration_ticks", "pitch_midi", "spelling_fifths", "staff_index", "voice_index", "measure_length_ticks", "measure_offset_ticks", "time_signature_numerator", "time_signature_denominator", "key_signature_fifths", "measure_numbers")
    ONSET_TICKS_FIELD_NUMBER: _ClassVar[int]
    DURATION_TICKS_FIELD_NUMBER: _ClassVar[int]
    PITCH_MIDI_FIELD_NUMBER: _ClassVar[int]
    SPELLING_FIFTHS_FIELD_NUMBER: _ClassVar[int]
    STAFF_INDEX_FIELD_NUMBER: _ClassVar[int]
    VOICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    MEASURE_LENGTH_TICKS_FIELD_NUMBER: _ClassVar[int]
    MEASURE_OFFSET_TICKS_FIELD_NUMBER: _ClassVar[int]
    TIME_SIGNATURE_NUMERATOR_FIELD_NUMBER: _ClassVar[int]
    TIME_SIGNATURE_DENOMINATOR_FIELD_NUMBER: _ClassVar[int]
    KEY_SIGNATURE_FIFTHS_FIELD_NUMBER: _ClassVar[int]
    MEASURE_NUMBERS_FIELD_NUMBER: _ClassVar[int]
    onset_ticks: _containers.RepeatedScalarFieldContainer[int]
    duration_ticks: _containers.RepeatedScalarFieldContainer[int]
    pitch_midi: _containers.RepeatedScalarFieldContainer[int]
    spelling_fifths: _containers.RepeatedScalarFieldContainer[int]
    staff_index: _containers.RepeatedScalarFieldContainer[int]
    voice_index: _containers.RepeatedScalarFieldContainer[int]
    measure_length_ticks: _containers.RepeatedScalarFieldContainer[int]
    measure_offset_ticks: _containers.RepeatedScalarFieldContainer[int]
    time_signature_numerator: _containers.RepeatedScalarFieldContainer[int]
    time_signature_denominator: _containers.RepeatedScalarFieldContainer[int]
    key_signature_fifths: _containers.RepeatedScalarFieldContainer[int]
    measure_numbers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, onset_ticks: _Optional[_Iterable[int]] = ..., duration_ticks: _Optional[_Iterable[int]] = ..., pitch_midi: _Optional[_Iterable[int]] = ..., spelling_fifths: _Optional[_Iterable[int]] = ..., staff_index: _Optional[_Iterable[int]] = ..., voice_index: _Optional[_Iterable[int]] = ..., measure_length_ticks: _Optional[_Iterable[int]] = ..., measure_offset_ticks: _Optional[_Iterable[int]] = ..., time_signature_numerator: _Optional[_Iterable[int]] = ..., time_signature_denominator: _Optional[_Iterable[int]] = ..., key_signature_fifths: _Optional[_Iterable[int]] = ..., measure_numbers: _Optional[_Iterable[str]] = ...) -> None: ...

class ReadScoreRequest(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: ScoreFile
    def __init__(self, file: _Optional[_Union[ScoreFile, _Mapping]] = ...) -> None: ...

class ReadScoreResponse(_message.Message):
    __slots__ = ("score",)
    SCORE_FIELD_NUMBER: _ClassVar[int]
    score: NotatedScore
    def __init__(self, score: _Optional[_Union[NotatedScore, _Mapping]] = ...) -> None: ...

class AnalyzeHarmonyRequest(_message.Message):
    __slots__ = ("model", "score")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    model: str
    score: ScoreInput
    def __init__(self, model: _Optional[str] = ..., score: _Optional[_Union[ScoreInput, _Mapping]] = ...) -> None: ...

class AnalyzeHarmonyResponse(_message.Message):
    __slots__ = ("outline", "window", "receipt")
    OUTLINE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    outline: AnalysisOutline
    window: AnalyzedWindow
    receipt: HarmonyReceipt
    def __init__(self, outline: _Optional[_Union[AnalysisOutline, _Mapping]] = ..., window: _Optional[_Union[AnalyzedWindow, _Mapping]] = ..., receipt: _Optional[_Union[HarmonyReceipt, _Mapping]] = ...) -> None: ...

class AnalysisOutline(_message.Message):
    __slots__ = ("model", "measure_count", "note_count", "length_ticks", "window_measure_count", "context_measure_count")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEASURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    NOTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_TICKS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_MEASURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_MEASURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.ModelInfo
    measure_count: int
    note_count: int
    length_ticks: int
    window_measure_count: int
    context_measure_count: int
    def __init__(self, model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ..., measure_count: _Optional[int] = ..., note_count: _Optional[int] = ..., length_ticks: _Optional[int] = ..., window_measure_count: _Optional[int] = ..., context_measure_count: _Optional[int] = ...) -> None: ...

class AnalyzedWindow(_message.Message):
    __slots__ = ("first_measure_index", "measure_count", "labels")
    FIRST_MEASURE_INDEX_FIELD_NUMBER: _ClassVar[int]
    MEASURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    first_measure_index: int
    measure_count: int
    labels: _containers.RepeatedCompositeFieldContainer[_harmony_pb2.HarmonyLabel]
    def __init__(self, first_measure_index: _Optional[int] = ..., measure_count: _Optional[int] = ..., labels: _Optional[_Iterable[_Union[_harmony_pb2.HarmonyLabel, _Mapping]]] = ...) -> None: ...

class HarmonyReceipt(_message.Message):
    __slots__ = ("model", "input_sha256", "window_count", "stretto_version", "total_latency")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    WINDOW_COUNT_FIELD_NUMBER: _ClassVar[int]
    STRETTO_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_LATENCY_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.ModelInfo
    input_sha256: str
    window_count: int
    stretto_version: str
    total_latency: _duration_pb2.Duration
    def __init__(self, model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ..., input_sha256: _Optional[str] = ..., window_count: _Optional[int] = ..., stretto_version: _Optional[str] = ..., total_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ReanalyzeHarmonyRequest(_message.Message):
    __slots__ = ("model", "model_id", "score", "first_measure_index", "measure_count", "edited_measure_index", "edited_measure_count", "start_ticks")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    FIRST_MEASURE_INDEX_FIELD_NUMBER: _ClassVar[int]
    MEASURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    EDITED_MEASURE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EDITED_MEASURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    START_TICKS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_id: str
    score: ScoreInput
    first_measure_index: int
    measure_count: int
    edited_measure_index: int
    edited_measure_count: int
    start_ticks: int
    def __init__(self, model: _Optional[str] = ..., model_id: _Optional[str] = ..., score: _Optional[_Union[ScoreInput, _Mapping]] = ..., first_measure_index: _Optional[int] = ..., measure_count: _Optional[int] = ..., edited_measure_index: _Optional[int] = ..., edited_measure_count: _Optional[int] = ..., start_ticks: _Optional[int] = ...) -> None: ...

class ReanalyzeHarmonyResponse(_message.Message):
    __slots__ = ("first_measure_index", "measure_count", "labels", "start_ticks", "end_ticks", "window_count", "model")
    FIRST_MEASURE_INDEX_FIELD_NUMBER: _ClassVar[int]
    MEASURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    START_TICKS_FIELD_NUMBER: _ClassVar[int]
    END_TICKS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_COUNT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    first_measure_index: int
    measure_count: int
    labels: _containers.RepeatedCompositeFieldContainer[_harmony_pb2.HarmonyLabel]
    start_ticks: int
    end_ticks: int
    window_count: int
    model: _model_pb2.ModelInfo
    def __init__(self, first_measure_index: _Optional[int] = ..., measure_count: _Optional[int] = ..., labels: _Optional[_Iterable[_Union[_harmony_pb2.HarmonyLabel, _Mapping]]] = ..., start_ticks: _Optional[int] = ..., end_ticks: _Optional[int] = ..., window_count: _Optional[int] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class WriteHarmonyRequest(_message.Message):
    __slots__ = ("score", "labels", "format", "title", "analyst")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    ANALYST_FIELD_NUMBER: _ClassVar[int]
    score: ScoreInput
    labels: _containers.RepeatedCompositeFieldContainer[_harmony_pb2.HarmonyLabel]
    format: AnalysisFormat
    title: str
    analyst: str
    def __init__(self, score: _Optional[_Union[ScoreInput, _Mapping]] = ..., labels: _Optional[_Iterable[_Union[_harmony_pb2.HarmonyLabel, _Mapping]]] = ..., format: _Optional[_Union[AnalysisFormat, str]] = ..., title: _Optional[str] = ..., analyst: _Optional[str] = ...) -> None: ...

class WriteHarmonyResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class FindChordChangesRequest(_message.Message):
    __slots__ = ("model", "score")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    model: str
    score: ScoreInput
    def __init__(self, model: _Optional[str] = ..., score: _Optional[_Union[ScoreInput, _Mapping]] = ...) -> None: ...

class FindChordChangesResponse(_message.Message):
    __slots__ = ("probabilities", "onset_ticks", "model")
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    ONSET_TICKS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    onset_ticks: _containers.RepeatedScalarFieldContainer[int]
    model: _model_pb2.ModelInfo
    def __init__(self, probabilities: _Optional[_Iterable[float]] = ..., onset_ticks: _Optional[_Iterable[int]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class ClassifyChordsRequest(_message.Message):
    __slots__ = ("model", "score", "spans", "candidate_count")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    model: str
    score: ScoreInput
    spans: _containers.RepeatedCompositeFieldContainer[TickSpan]
    candidate_count: int
    def __init__(self, model: _Optional[str] = ..., score: _Optional[_Union[ScoreInput, _Mapping]] = ..., spans: _Optional[_Iterable[_Union[TickSpan, _Mapping]]] = ..., candidate_count: _Optional[int] = ...) -> None: ...

class TickSpan(_message.Message):
    __slots__ = ("start_ticks", "end_ticks")
    START_TICKS_FIELD_NUMBER: _ClassVar[int]
    END_TICKS_FIELD_NUMBER: _ClassVar[int]
    start_ticks: int
    end_ticks: int
    def __init__(self, start_ticks: _Optional[int] = ..., end_ticks: _Optional[int] = ...) -> None: ...

class ChordCandidate(_message.Message):
    __slots__ = ("root_fifths", "quality", "inversion", "probability")
    ROOT_FIFTHS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    INVERSION_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    root_fifths: int
    quality: _harmony_pb2.ChordQuality
    inversion: int
    probability: float
    def __init__(self, root_fifths: _Optional[int] = ..., quality: _Optional[_Union[_harmony_pb2.ChordQuality, str]] = ..., inversion: _Optional[int] = ..., probability: _Optional[float] = ...) -> None: ...

class ChordCandidates(_message.Message):
    __slots__ = ("chords",)
    CHORDS_FIELD_NUMBER: _ClassVar[int]
    chords: _containers.RepeatedCompositeFieldContainer[ChordCandidate]
    def __init__(self, chords: _Optional[_Iterable[_Union[ChordCandidate, _Mapping]]] = ...) -> None: ...

class ClassifyChordsResponse(_message.Message):
    __slots__ = ("spans", "model")
    SPANS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    spans: _containers.RepeatedCompositeFieldContainer[ChordCandidates]
    model: _model_pb2.ModelInfo
    def __init__(self, spans: _Optional[_Iterable[_Union[ChordCandidates, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class PredictChordRequest(_message.Message):
    __slots__ = ("model", "score", "labels", "candidate_count")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    model: str
    score: ScoreInput
    labels: _containers.RepeatedCompositeFieldContainer[_harmony_pb2.HarmonyLabel]
    candidate_count: int
    def __init__(self, model: _Optional[str] = ..., score: _Optional[_Union[ScoreInput, _Mapping]] = ..., labels: _Optional[_Iterable[_Union[_harmony_pb2.HarmonyLabel, _Mapping]]] = ..., candidate_count: _Optional[int] = ...) -> None: ...

class PredictChordResponse(_message.Message):
    __slots__ = ("next", "model")
    NEXT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    next: ChordCandidates
    model: _model_pb2.ModelInfo
    def __init__(self, next: _Optional[_Union[ChordCandidates, _Mapping]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class FindKeyChangesRequest(_message.Message):
    __slots__ = ("model", "score", "labels")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    model: str
    score: ScoreInput
    labels: _containers.RepeatedCompositeFieldContainer[_harmony_pb2.HarmonyLabel]
    def __init__(self, model: _Optional[str] = ..., score: _Optional[_Union[ScoreInput, _Mapping]] = ..., labels: _Optional[_Iterable[_Union[_harmony_pb2.HarmonyLabel, _Mapping]]] = ...) -> None: ...

class FindKeyChangesResponse(_message.Message):
    __slots__ = ("probabilities", "model")
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    model: _model_pb2.ModelInfo
    def __init__(self, probabilities: _Optional[_Iterable[float]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class PredictKeyRequest(_message.Message):
    __slots__ = ("model", "score", "labels", "candidate_count")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    model: str
    score: ScoreInput
    labels: _containers.RepeatedCompositeFieldContainer[_harmony_pb2.HarmonyLabel]
    candidate_count: int
    def __init__(self, model: _Optional[str] = ..., score: _Optional[_Union[ScoreInput, _Mapping]] = ..., labels: _Optional[_Iterable[_Union[_harmony_pb2.HarmonyLabel, _Mapping]]] = ..., candidate_count: _Optional[int] = ...) -> None: ...

class KeyCandidate(_message.Message):
    __slots__ = ("key", "probability")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    key: _harmony_pb2.HarmonyKey
    probability: float
    def __init__(self, key: _Optional[_Union[_harmony_pb2.HarmonyKey, _Mapping]] = ..., probability: _Optional[float] = ...) -> None: ...

class PredictKeyResponse(_message.Message):
    __slots__ = ("keys", "model")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[KeyCandidate]
    model: _model_pb2.ModelInfo
    def __init__(self, keys: _Optional[_Iterable[_Union[KeyCandidate, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class PredictFirstChordRequest(_message.Message):
    __slots__ = ("model", "key", "candidate_count")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    model: str
    key: _harmony_pb2.HarmonyKey
    candidate_count: int
    def __init__(self, model: _Optional[str] = ..., key: _Optional[_Union[_harmony_pb2.HarmonyKey, _Mapping]] = ..., candidate_count: _Optional[int] = ...) -> None: ...

class PredictFirstChordResponse(_message.Message):
    __slots__ = ("first", "model")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    first: ChordCandidates
    model: _model_pb2.ModelInfo
    def __init__(self, first: _Optional[_Union[ChordCandidates, _Mapping]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.ModelInfo, _Mapping]]] = ...) -> None: ...
