from stretto.common.v1 import audio_pb2 as _audio_pb2
from stretto.common.v1 import features_pb2 as _features_pb2
from stretto.common.v1 import model_pb2 as _model_pb2
from stretto.common.v1 import tokens_pb2 as _tokens_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TokenizeAudioRequest(_message.Message):
    __slots__ = ("config", "waveform")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    config: TokenizeConfig
    waveform: _audio_pb2.Waveform
    def __init__(self, config: _Optional[_Union[TokenizeConfig, _Mapping]] = ..., waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ...) -> None: ...

class TokenizeConfig(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class TokenizeAudioResponse(_message.Message):
    __slots__ = ("tokens", "first_frame_index", "model")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    tokens: _tokens_pb2.TokenMatrix
    first_frame_index: int
    model: _model_pb2.ModelInfo
    def __init__(self, tokens: _Optional[_Union[_tokens_pb2.TokenMatrix, _Mapping]] = ..., first_frame_index: _Optional[int] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class GenerateTokensRequest(_message.Message):
    __slots__ = ("model", "styles", "melody", "prompt", "resume_from", "duration_s", "seed", "sampling", "pace", "priority")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    MELODY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    styles: _containers.RepeatedCompositeFieldContainer[_features_pb2.StyleSpan]
    melody: _tokens_pb2.TokenMatrix
    prompt: _tokens_pb2.TokenMatrix
    resume_from: _tokens_pb2.TokenMatrix
    duration_s: float
    seed: int
    sampling: _model_pb2.SamplingOptions
    pace: _model_pb2.Pace
    priority: int
    def __init__(self, model: _Optional[str] = ..., styles: _Optional[_Iterable[_Union[_features_pb2.StyleSpan, _Mapping]]] = ..., melody: _Optional[_Union[_tokens_pb2.TokenMatrix, _Mapping]] = ..., prompt: _Optional[_Union[_tokens_pb2.TokenMatrix, _Mapping]] = ..., resume_from: _Optional[_Union[_tokens_pb2.TokenMatrix, _Mapping]] = ..., duration_s: _Optional[float] = ..., seed: _Optional[int] = ..., sampling: _Optional[_Union[_model_pb2.SamplingOptions, _Mapping]] = ..., pace: _Optional[_Union[_model_pb2.Pace, str]] = ..., priority: _Optional[int] = ...) -> None: ...

class GenerateTokensResponse(_message.Message):
    __slots__ = ("tokens", "first_frame_index", "total_frame_count", "model", "sampling")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FRAME_COUNT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    tokens: _tokens_pb2.TokenMatrix
    first_frame_index: int
    total_frame_count: int
    model: _model_pb2.ModelInfo
    sampling: _model_pb2.SamplingOptions
    def __init__(self, tokens: _Optional[_Union[_tokens_pb2.TokenMatrix, _Mapping]] = ..., first_frame_index: _Optional[int] = ..., total_frame_count: _Optional[int] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ..., sampling: _Optional[_Union[_model_pb2.SamplingOptions, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.ModelInfo, _Mapping]]] = ...) -> None: ...
