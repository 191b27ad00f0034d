from stretto.common.v1 import audio_pb2 as _audio_pb2
from stretto.common.v1 import model_pb2 as _model_pb2
from stretto.common.v1 import tokens_pb2 as _tokens_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EncodeAudioRequest(_message.Message):
    __slots__ = ("model", "waveform", "codebook_count")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_COUNT_FIELD_NUMBER: _ClassVar[int]
    model: str
    waveform: _audio_pb2.Waveform
    codebook_count: int
    def __init__(self, model: _Optional[str] = ..., waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ..., codebook_count: _Optional[int] = ...) -> None: ...

class EncodeAudioResponse(_message.Message):
    __slots__ = ("tokens", "model", "sample_count")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    tokens: _tokens_pb2.TokenMatrix
    model: _model_pb2.ModelInfo
    sample_count: int
    def __init__(self, tokens: _Optional[_Union[_tokens_pb2.TokenMatrix, _Mapping]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ..., sample_count: _Optional[int] = ...) -> None: ...

class DecodeTokensRequest(_message.Message):
    __slots__ = ("config", "tokens")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    config: DecodeConfig
    tokens: _tokens_pb2.TokenMatrix
    def __init__(self, config: _Optional[_Union[DecodeConfig, _Mapping]] = ..., tokens: _Optional[_Union[_tokens_pb2.TokenMatrix, _Mapping]] = ...) -> None: ...

class DecodeConfig(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class DecodeTokensResponse(_message.Message):
    __slots__ = ("waveform", "first_sample_index", "model")
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    FIRST_SAMPLE_INDEX_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    waveform: _audio_pb2.Waveform
    first_sample_index: int
    model: _model_pb2.ModelInfo
    def __init__(self, waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ..., first_sample_index: _Optional[int] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.ModelInfo, _Mapping]]] = ...) -> None: ...
