from stretto.common.v1 import audio_pb2 as _audio_pb2
from stretto.common.v1 import features_pb2 as _features_pb2
from stretto.common.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmbedTextRequest(_message.Message):
    __slots__ = ("model", "texts")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class EmbedTextResponse(_message.Message):
    __slots__ = ("states", "model")
    STATES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[_features_pb2.TextStates]
    model: _model_pb2.ModelInfo
    def __init__(self, states: _Optional[_Iterable[_Union[_features_pb2.TextStates, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class EmbedMelodyRequest(_message.Message):
    __slots__ = ("waveform",)
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    waveform: _audio_pb2.Waveform
    def __init__(self, waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ...) -> None: ...

class EmbedMelodyResponse(_message.Message):
    __slots__ = ("melody",)
    MELODY_FIELD_NUMBER: _ClassVar[int]
    melody: _features_pb2.Chromagram
    def __init__(self, melody: _Optional[_Union[_features_pb2.Chromagram, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.ModelInfo, _Mapping]]] = ...) -> None: ...
