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

class EmbedTextRequest(_message.Message):
    __slots__ = ("model", "texts")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class EmbedTextResponse(_message.Message):
    __slots__ = ("states", "model", "embeddings")
    STATES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[_features_pb2.TextStates]
    model: _model_pb2.ModelInfo
    embeddings: _containers.RepeatedCompositeFieldContainer[_features_pb2.JointEmbedding]
    def __init__(self, states: _Optional[_Iterable[_Union[_features_pb2.TextStates, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ..., embeddings: _Optional[_Iterable[_Union[_features_pb2.JointEmbedding, _Mapping]]] = ...) -> None: ...

class EmbedAudioRequest(_message.Message):
    __slots__ = ("model", "waveform")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    model: str
    waveform: _audio_pb2.Waveform
    def __init__(self, model: _Optional[str] = ..., waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ...) -> None: ...

class EmbedAudioResponse(_message.Message):
    __slots__ = ("embedding", "windows", "window_s", "stride_s", "model")
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    STRIDE_S_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    embedding: _features_pb2.JointEmbedding
    windows: _containers.RepeatedCompositeFieldContainer[_features_pb2.JointEmbedding]
    window_s: float
    stride_s: float
    model: _model_pb2.ModelInfo
    def __init__(self, embedding: _Optional[_Union[_features_pb2.JointEmbedding, _Mapping]] = ..., windows: _Optional[_Iterable[_Union[_features_pb2.JointEmbedding, _Mapping]]] = ..., window_s: _Optional[float] = ..., stride_s: _Optional[float] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class RankAudioRequest(_message.Message):
    __slots__ = ("model", "text", "reference", "candidates")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    model: str
    text: str
    reference: _audio_pb2.Waveform
    candidates: _containers.RepeatedCompositeFieldContainer[_audio_pb2.Waveform]
    def __init__(self, model: _Optional[str] = ..., text: _Optional[str] = ..., reference: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[_audio_pb2.Waveform, _Mapping]]] = ...) -> None: ...

class RankAudioResponse(_message.Message):
    __slots__ = ("ranking", "model")
    RANKING_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ranking: _containers.RepeatedCompositeFieldContainer[RankedAudio]
    model: _model_pb2.ModelInfo
    def __init__(self, ranking: _Optional[_Iterable[_Union[RankedAudio, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class RankedAudio(_message.Message):
    __slots__ = ("candidate_index", "similarity")
    CANDIDATE_INDEX_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    candidate_index: int
    similarity: float
    def __init__(self, candidate_index: _Optional[int] = ..., similarity: _Optional[float] = ...) -> None: ...

class TagAudioRequest(_message.Message):
    __slots__ = ("model", "waveform", "tags")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    model: str
    waveform: _audio_pb2.Waveform
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class TagAudioResponse(_message.Message):
    __slots__ = ("tags", "model")
    TAGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    tags: _containers.RepeatedCompositeFieldContainer[AudioTag]
    model: _model_pb2.ModelInfo
    def __init__(self, tags: _Optional[_Iterable[_Union[AudioTag, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class AudioTag(_message.Message):
    __slots__ = ("tag", "similarity", "probability")
    TAG_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    tag: str
    similarity: float
    probability: float
    def __init__(self, tag: _Optional[str] = ..., similarity: _Optional[float] = ..., probability: _Optional[float] = ...) -> None: ...

class QuantizeEmbeddingsRequest(_message.Message):
    __slots__ = ("model", "embeddings")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    model: str
    embeddings: _containers.RepeatedCompositeFieldContainer[_features_pb2.JointEmbedding]
    def __init__(self, model: _Optional[str] = ..., embeddings: _Optional[_Iterable[_Union[_features_pb2.JointEmbedding, _Mapping]]] = ...) -> None: ...

class QuantizeEmbeddingsResponse(_message.Message):
    __slots__ = ("embeddings", "model")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[_features_pb2.JointEmbedding]
    model: _model_pb2.ModelInfo
    def __init__(self, embeddings: _Optional[_Iterable[_Union[_features_pb2.JointEmbedding, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class EmbedMelodyRequest(_message.Message):
    __slots__ = ("waveform", "model")
    WAVEFORM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    waveform: _audio_pb2.Waveform
    model: str
    def __init__(self, waveform: _Optional[_Union[_audio_pb2.Waveform, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class EmbedMelodyResponse(_message.Message):
    __slots__ = ("melody", "codes", "model")
    MELODY_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    melody: _features_pb2.Chromagram
    codes: _tokens_pb2.TokenMatrix
    model: _model_pb2.ModelInfo
    def __init__(self, melody: _Optional[_Union[_features_pb2.Chromagram, _Mapping]] = ..., codes: _Optional[_Union[_tokens_pb2.TokenMatrix, _Mapping]] = ..., model: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.ModelInfo, _Mapping]]] = ...) -> None: ...
