"""EnCodec (Défossez et al., High Fidelity Neural Audio Compression, 2022, https://arxiv.org/abs/2210.13438)."""

from stretto_codec.models.encodec.config import GEOMETRIES, EncodecConfig
from stretto_codec.models.encodec.model import Encodec

__all__ = ["GEOMETRIES", "Encodec", "EncodecConfig"]
