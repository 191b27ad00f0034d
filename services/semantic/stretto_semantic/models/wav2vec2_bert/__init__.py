"""Wav2Vec2-BERT, the architecture of the published w2v-BERT 2.0, as a listener."""

from stretto_semantic.models.wav2vec2_bert.config import Wav2Vec2BertConfig, from_hugging_face
from stretto_semantic.models.wav2vec2_bert.features import SAMPLE_RATE_HZ, stacked_features
from stretto_semantic.models.wav2vec2_bert.listener import GRID, Wav2Vec2BertListener
from stretto_semantic.models.wav2vec2_bert.model import Wav2Vec2Bert, layers_read

__all__ = [
    "GRID",
    "SAMPLE_RATE_HZ",
    "Wav2Vec2Bert",
    "Wav2Vec2BertConfig",
    "Wav2Vec2BertListener",
    "from_hugging_face",
    "layers_read",
    "stacked_features",
]
