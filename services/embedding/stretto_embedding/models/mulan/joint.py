"""MuLan: an audio tower and a text tower that meet in one space, and codes for its points.

"MuLan" (Huang et al. 2022, https://arxiv.org/abs/2208.12415); codes by residual quantisation as in "MusicLM"
(Agostinelli et al. 2023, https://arxiv.org/abs/2301.11325).

Departures: the text tower is a trained head on frozen MiniLM states rather than a BERT fine-tuned whole; the decoupled
contrastive loss (Yeh et al. 2021), in the recipe. The modality gap: contrastive towers keep texts and recordings in two
separate cones (Liang et al. 2022), so that a quantizer of the one mis-codes the other. Each modality's own mean over
the training set is kept in a buffer and taken out before the vector is brought to unit length (again): every embedding
that leaves this module is such a centred one, and the quantizer, which is fitted to those of audio, serves both.

Legend: B batch, T frames, M mel bands, L tokens, S width of text states, D of the space, K codebooks. Knows nothing of
tokenizers, files, windows and requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from stretto_shared.nn.rvq import ResidualVectorQuantizer
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_embedding.models.mulan.audio_tower import AudioTower
from stretto_embedding.models.mulan.config import MuLanConfig
from stretto_embedding.models.mulan.text_tower import TextTower

# What a quantizer needs while it learns, and no longer afterwards.
_LEARNING_ONLY = ("cluster_size", "embed_sum", "initialised")
_START_TEMPERATURE = 0.07


class MuLan(nn.Module):
    """Both towers, the means of their modalities, and the quantizer of their common space."""

    audio_mean: Tensor
    text_mean: Tensor

    def __init__(self, config: MuLanConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.audio = AudioTower(config, dropout)
        self.text = TextTower(config, dropout)
        self.log_temperature = nn.Parameter(torch.tensor(_START_TEMPERATURE).log())
        self.register_buffer("audio_mean", torch.zeros(config.embedding_dim))
        self.register_buffer("text_mean", torch.zeros(config.embedding_dim))
        self.quantizer = ResidualVectorQuantizer(config.embedding_dim, config.num_codebooks, config.cardinality)

    @property
    def temperature(self) -> float:
        """What similarities are divided by before a softmax."""
        return float(self.log_temperature.detach().exp())

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Points [B, D] of log-mel spectrograms [B, T, M] of `stretto_shared.dsp.log_mel`; any T from 1 to a window."""
        return F.normalize(self.raw_audio(mel) - self.audio_mean, dim=-1)

    def embed_text(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Points [B, D] of token states [B, L, S]; `mask` [B, L] is true where there is a token, None if everywhere."""
        return F.normalize(self.raw_text(states, mask) - self.text_mean, dim=-1)

    def raw_audio(self, mel: Tensor) -> Tensor:
        """As `embed_audio`, of unit length, with the mean of its modality still in it."""
        return F.normalize(self.audio(mel).float(), dim=-1)

    def raw_text(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `embed_text`, of unit length, with the mean of its modality still in it."""
        return F.normalize(self.text(states, mask).float(), dim=-1)

    def quantize(self, embeddings: Tensor) -> Tensor:
        """Codes [B, K], coarsest first, of points [B, D] of either modality, which are brought to unit length."""
        return self.quantizer.encode(F.normalize(embeddings, dim=-1)[:, None])[..., 0]

    def dequantize(self, codes: Tensor) -> Tensor:
        """Points [B, D] of unit length that codes [B, k] stand for, for any k up to K."""
        return F.normalize(self.quantizer.decode(codes[..., None])[:, 0], dim=-1)

    def servable_state(self) -> dict[str, Tensor]:
        """The state without what only a quantizer that learns needs."""
        return {name: value for name, value in self.state_dict().items() if not name.endswith(_LEARNING_ONLY)}


def build_mulan(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MuLan:
    """A MuLan from its own `config.json`'s `config` and its servable tensors, in single precision, for inference.

    Raises:
        ValueError: If the tensors are not those of the config.
    """
    model = MuLan(MuLanConfig(**config))
    own = model.servable_state()
    state = {name: value.float() for name, value in tensors.items()}
    wrong = sorted(
        n for n in own.keys() | state.keys() if n not in own or n not in state or own[n].shape != state[n].shape
    )
    if wrong:
        raise ValueError(f"expected the tensors of a MuLan of this config, got others at {', '.join(wrong[:5])}.")
    model.load_state_dict(state, strict=False)
    return model.eval()
