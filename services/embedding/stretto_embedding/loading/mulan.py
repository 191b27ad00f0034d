"""MuLan as a joint encoder, from this project's own layout; its text tower reads MiniLM's states.

Legend: S samples, D width of the space, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared import weights
from stretto_shared.dsp.log_mel import HOP_LENGTH, SAMPLE_RATE_HZ, log_mel
from stretto_shared.errors import NotReady
from stretto_shared.features import ModelInfo

from stretto_embedding.loading.text import TextEncoder
from stretto_embedding.models.mulan import DEFAULT_TAGS, MuLan, build_mulan


@dataclass(frozen=True, eq=False)
class MuLanEncoder:
    """A `JointEncoder`."""

    info: ModelInfo
    model: MuLan
    text: TextEncoder
    default_tags: tuple[str, ...] = DEFAULT_TAGS

    @property
    def sample_rate_hz(self) -> int:
        return SAMPLE_RATE_HZ

    @property
    def window_samples(self) -> int:
        return round(self.model.config.window_s * SAMPLE_RATE_HZ)

    @property
    def stride_samples(self) -> int:
        return round(self.model.config.stride_s * SAMPLE_RATE_HZ)

    @property
    def dimension(self) -> int:
        return self.model.config.embedding_dim

    @property
    def temperature(self) -> float:
        return self.model.temperature

    @property
    def max_tokens(self) -> int:
        return self.text.max_tokens

    def tokenize(self, text: str) -> list[int]:
        return self.text.tokenize(text)

    def embed_ids(self, ids: Sequence[int]) -> NDArray[np.float32]:
        states = torch.from_numpy(self.text.encode_ids(ids).states.copy())
        with torch.inference_mode():
            values: NDArray[np.float32] = self.model.embed_text(states[None])[0].numpy()
        return values

    def embed_window(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        whole = np.pad(samples, (0, -len(samples) % HOP_LENGTH))  # to the end of its last frame
        with torch.inference_mode():
            values: NDArray[np.float32] = self.model.embed_audio(log_mel(torch.from_numpy(whole)[None]))[0].numpy()
        return values

    def quantize(self, values: NDArray[np.float32]) -> tuple[int, ...]:
        with torch.inference_mode():
            return tuple(self.model.quantize(torch.from_numpy(np.array(values))[None])[0].tolist())


def build(
    resolved: weights.ResolvedWeights, *, is_default: bool, load_text_encoder: Callable[[], TextEncoder]
) -> MuLanEncoder:
    """The encoder of a folder that `weights.write` made.

    Raises:
        NotReady: If its tensors do not fit its config, or it reads another text encoder than is there.
    """
    try:
        model = build_mulan(resolved.config["config"], weights.load_tensors(resolved))
    except (KeyError, TypeError, ValueError) as error:
        raise NotReady(
            f"Source {resolved.source!r} is not a MuLan that is served here: {error}", reason="WEIGHTS_DAMAGED"
        ) from error
    text = load_text_encoder()
    if model.config.text_encoder != text.info.name:
        raise NotReady(
            f"Source {resolved.source!r} reads the states of {model.config.text_encoder!r}, got {text.info.name!r}. "
            "Train its text tower on the latter.",
            reason="WEIGHTS_DAMAGED",
        )
    config = model.config
    info = ModelInfo(
        name=resolved.name,
        service="embedding",
        digest_sha256=resolved.digest_sha256,
        licence=resolved.licence,
        score=resolved.score,
        parameter_count=sum(tensor.numel() for tensor in model.servable_state().values()),
        is_default=is_default,
        source=resolved.source,
        sample_rate_hz=SAMPLE_RATE_HZ,
        num_codebooks=config.num_codebooks,
    )
    return MuLanEncoder(info, model.requires_grad_(False), text)
