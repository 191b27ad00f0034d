import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from stretto.common.v1 import audio_pb2 as _audio_pb2
from stretto.common.v1 import harmony_pb2 as _harmony_pb2
from stretto.common.v1 import model_pb2 as _model_pb2
from stretto.common.v1 import score_pb2 as _score_pb2
from stretto.transcriber.v1 import transcriber_pb2 as _transcriber_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnalysisSection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANALYSIS_SECTION_UNSPECIFIED: _ClassVar[AnalysisSection]
    ANALYSIS_SECTION_NOTES: _ClassVar[AnalysisSection]
    ANALYSIS_SECTION_BEATS: _ClassVar[AnalysisSection]
    ANALYSIS_SECTION_SCORE: _ClassVar[AnalysisSection]
    ANALYSIS_SECTION_HARMONY: _ClassVar[AnalysisSection]
ANALYSIS_SECTION_UNSPECIFIED: AnalysisSection
ANALYSIS_SECTION_NOTES: AnalysisSection
ANALYSIS_SECTION_BEATS: AnalysisSection
ANALYSIS_SECTION_SCORE: AnalysisSection
ANALYSIS_SECTION_HARMONY: AnalysisSection

class GenerateMusicRequest(_message.Message):
    __slots__ = ("cascade", "prompt", "duration_s", "seed", "sampling", "melody", "pace", "priority", "story", "candidate_count")
    CASCADE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    MELODY_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STORY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    cascade: str
    prompt: str
    duration_s: float
    seed: int
    sampling: _model_pb2.SamplingOptions
    melody: _audio_pb2.Waveform
    pace: _model_pb2.Pace
    priority: int
    story: _containers.RepeatedCompositeFieldContainer[PromptSpan]
    candidate_count: int
    def __init__(self, cascade: _Optional[str] = ..., prompt: _Optional[str] = ..., duration_s: _Optional[float] = ..., seed: _Optional[int] = ..., sampling: _Optional[_Union[_model_pb2.SamplingOptions, _Mapping]] = ..., melody: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ..., pace: _Optional[_Union[_model_pb2.Pace, str]] = ..., priority: _Optional[int] = ..., story: _Optional[_Iterable[_Union[PromptSpan, _Mapping]]] = ..., candidate_count: _Optional[int] = ...) -> None: ...

class PromptSpan(_message.Message):
    __slots__ = ("start_s", "prompt", "blend_s")
    START_S_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    BLEND_S_FIELD_NUMBER: _ClassVar[int]
    start_s: float
    prompt: str
    blend_s: float
    def __init__(self, start_s: _Optional[float] = ..., prompt: _Optional[str] = ..., blend_s: _Optional[float] = ...) -> None: ...

class GenerateMusicResponse(_message.Message):
    __slots__ = ("progress", "chunk", "receipt")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    chunk: AudioChunk
    receipt: Receipt
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., chunk: _Optional[_Union[AudioChunk, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class ContinueMusicRequest(_message.Message):
    __slots__ = ("cascade", "audio", "prompt", "duration_s", "seed", "sampling", "include_recording", "pace", "priority")
    CASCADE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_RECORDING_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    cascade: str
    audio: _audio_pb2.Waveform
    prompt: str
    duration_s: float
    seed: int
    sampling: _model_pb2.SamplingOptions
    include_recording: bool
    pace: _model_pb2.Pace
    priority: int
    def __init__(self, cascade: _Optional[str] = ..., audio: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ..., prompt: _Optional[str] = ..., duration_s: _Optional[float] = ..., seed: _Optional[int] = ..., sampling: _Optional[_Union[_model_pb2.SamplingOptions, _Mapping]] = ..., include_recording: _Optional[bool] = ..., pace: _Optional[_Union[_model_pb2.Pace, str]] = ..., priority: _Optional[int] = ...) -> None: ...

class ContinueMusicResponse(_message.Message):
    __slots__ = ("progress", "chunk", "receipt")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    chunk: AudioChunk
    receipt: Receipt
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., chunk: _Optional[_Union[AudioChunk, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("stage", "done_frame_count", "total_frame_count")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FRAME_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FRAME_COUNT_FIELD_NUMBER: _ClassVar[int]
    stage: str
    done_frame_count: int
    total_frame_count: int
    def __init__(self, stage: _Optional[str] = ..., done_frame_count: _Optional[int] = ..., total_frame_count: _Optional[int] = ...) -> None: ...

class AudioChunk(_message.Message):
    __slots__ = ("waveform", "first_sample_index")
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    FIRST_SAMPLE_INDEX_FIELD_NUMBER: _ClassVar[int]
    waveform: _audio_pb2.Waveform
    first_sample_index: int
    def __init__(self, waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ..., first_sample_index: _Optional[int] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("cascade", "prompt", "seed", "duration_s", "sampling", "models", "stretto_version", "input_sha256", "output_sha256", "first_audio_latency", "total_latency", "resume_count", "story", "candidate_count", "similarity")
    CASCADE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    STRETTO_VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    FIRST_AUDIO_LATENCY_FIELD_NUMBER: _ClassVar[int]
    TOTAL_LATENCY_FIELD_NUMBER: _ClassVar[int]
    RESUME_COUNT_FIELD_NUMBER: _ClassVar[int]
    STORY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    cascade: str
    prompt: str
    seed: int
    duration_s: float
    sampling: _model_pb2.SamplingOptions
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelInfo]
    stretto_version: str
    input_sha256: str
    output_sha256: str
    first_audio_latency: _duration_pb2.Duration
    total_latency: _duration_pb2.Duration
    resume_count: int
    story: _containers.RepeatedCompositeFieldContainer[PromptSpan]
    candidate_count: int
    similarity: float
    def __init__(self, cascade: _Optional[str] = ..., prompt: _Optional[str] = ..., seed: _Optional[int] = ..., duration_s: _Optional[float] = ..., sampling: _Optional[_Union[_model_pb2.SamplingOptions, _Mapping]] = ..., models: _Optional[_Iterable[_Union[_model_pb2.ModelInfo, _Mapping]]] = ..., stretto_version: _Optional[str] = ..., input_sha256: _Optional[str] = ..., output_sha256: _Optional[str] = ..., first_audio_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., resume_count: _Optional[int] = ..., story: _Optional[_Iterable[_Union[PromptSpan, _Mapping]]] = ..., candidate_count: _Optional[int] = ..., similarity: _Optional[float] = ...) -> None: ...

class AnalyzeMusicRequest(_message.Message):
    __slots__ = ("config", "waveform")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    config: AnalyzeConfig
    waveform: _audio_pb2.Waveform
    def __init__(self, config: _Optional[_Union[AnalyzeConfig, _Mapping]] = ..., waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ...) -> None: ...

class AnalyzeConfig(_message.Message):
    __slots__ = ("sections", "note_model", "beat_model", "title", "harmony_model", "note_ends")
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    NOTE_MODEL_FIELD_NUMBER: _ClassVar[int]
    BEAT_MODEL_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    HARMONY_MODEL_FIELD_NUMBER: _ClassVar[int]
    NOTE_ENDS_FIELD_NUMBER: _ClassVar[int]
    sections: _containers.RepeatedScalarFieldContainer[AnalysisSection]
    note_model: str
    beat_model: str
    title: str
    harmony_model: str
    note_ends: _transcriber_pb2.NoteEnds
    def __init__(self, sections: _Optional[_Iterable[_Union[AnalysisSection, str]]] = ..., note_model: _Optional[str] = ..., beat_model: _Optional[str] = ..., title: _Optional[str] = ..., harmony_model: _Optional[str] = ..., note_ends: _Optional[_Union[_transcriber_pb2.NoteEnds, str]] = ...) -> None: ...

class AnalyzeMusicResponse(_message.Message):
    __slots__ = ("progress", "notes", "beats", "score", "receipt", "harmony")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    BEATS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    HARMONY_FIELD_NUMBER: _ClassVar[int]
    progress: AnalysisProgress
    notes: AnalyzedNotes
    beats: AnalyzedBeats
    score: AnalyzedScore
    receipt: AnalysisReceipt
    harmony: AnalyzedHarmony
    def __init__(self, progress: _Optional[_Union[AnalysisProgress, _Mapping]] = ..., notes: _Optional[_Union[AnalyzedNotes, _Mapping]] = ..., beats: _Optional[_Union[AnalyzedBeats, _Mapping]] = ..., score: _Optional[_Union[AnalyzedScore, _Mapping]] = ..., receipt: _Optional[_Union[AnalysisReceipt, _Mapping]] = ..., harmony: _Optional[_Union[AnalyzedHarmony, _Mapping]] = ...) -> None: ...

class AnalysisProgress(_message.Message):
    __slots__ = ("stage", "done_s")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_S_FIELD_NUMBER: _ClassVar[int]
    stage: str
    done_s: float
    def __init__(self, stage: _Optional[str] = ..., done_s: _Optional[float] = ...) -> None: ...

class AnalyzedNotes(_message.Message):
    __slots__ = ("notes", "complete_s")
    NOTES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_S_FIELD_NUMBER: _ClassVar[int]
    notes: _score_pb2.Score
    complete_s: float
    def __init__(self, notes: _Optional[_Union[_score_pb2.Score, _Mapping]] = ..., complete_s: _Optional[float] = ...) -> None: ...

class AnalyzedBeats(_message.Message):
    __slots__ = ("beat_s", "beat_in_bar", "tempo_bpm", "time_signature_numerator", "onset_s")
    BEAT_S_FIELD_NUMBER: _ClassVar[int]
    BEAT_IN_BAR_FIELD_NUMBER: _ClassVar[int]
    TEMPO_BPM_FIELD_NUMBER: _ClassVar[int]
    TIME_SIGNATURE_NUMERATOR_FIELD_NUMBER: _ClassVar[int]
    ONSET_S_FIELD_NUMBER: _ClassVar[int]
    beat_s: _containers.RepeatedScalarFieldContainer[float]
    beat_in_bar: _containers.RepeatedScalarFieldContainer[int]
    tempo_bpm: _containers.RepeatedScalarFieldContainer[float]
    time_signature_numerator: int
    onset_s: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, beat_s: _Optional[_Iterable[float]] = ..., beat_in_bar: _Optional[_Iterable[int]] = ..., tempo_bpm: _Optional[_Iterable[float]] = ..., time_signature_numerator: _Optional[int] = ..., onset_s: _Optional[_Iterable[float]] = ...) -> None: ...

class AnalyzedScore(_message.Message):
    __slots__ = ("score", "musicxml")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    MUSICXML_FIELD_NUMBER: _ClassVar[int]
    score: _score_pb2.Score
    musicxml: bytes
    def __init__(self, score: _Optional[_Union[_score_pb2.Score, _Mapping]] = ..., musicxml: _Optional[bytes] = ...) -> None: ...

class AnalyzedHarmony(_message.Message):
    __slots__ = ("labels", "musicxml")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MUSICXML_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[_harmony_pb2.HarmonyLabel]
    musicxml: bytes
    def __init__(self, labels: _Optional[_Iterable[_Union[_harmony_pb2.HarmonyLabel, _Mapping]]] = ..., musicxml: _Optional[bytes] = ...) -> None: ...

class AnalysisReceipt(_message.Message):
    __slots__ = ("sections", "models", "duration_s", "input_sha256", "stretto_version", "total_latency")
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    STRETTO_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_LATENCY_FIELD_NUMBER: _ClassVar[int]
    sections: _containers.RepeatedScalarFieldContainer[AnalysisSection]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelInfo]
    duration_s: float
    input_sha256: str
    stretto_version: str
    total_latency: _duration_pb2.Duration
    def __init__(self, sections: _Optional[_Iterable[_Union[AnalysisSection, str]]] = ..., models: _Optional[_Iterable[_Union[_model_pb2.ModelInfo, _Mapping]]] = ..., duration_s: _Optional[float] = ..., input_sha256: _Optional[str] = ..., stretto_version: _Optional[str] = ..., total_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "unreachable_services")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_SERVICES_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelInfo]
    unreachable_services: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.ModelInfo, _Mapping]]] = ..., unreachable_services: _Optional[_Iterable[str]] = ...) -> None: ...
