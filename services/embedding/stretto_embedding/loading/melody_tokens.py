"""The melody encoder as the engine asks for it. Legend: S samples, K codebooks, U columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stretto_shared import weights
from stretto_shared.errors import NotReady
from stretto_shared.features import ModelInfo

from stretto_embedding.models import melody
from stretto_embedding.models.melody_weights import ARCHITECTURE, build_melody_encoder

__all__ = ["ARCHITECTURE", "MelodyTokens", "build"]


@dataclass(frozen=True, eq=False)
class MelodyTokens:
    """A `loading.encoders.MelodyEncoder`."""

    info: ModelInfo
    model: melody.MelodyEncoder
    sample_rate_hz: int = melody.SAMPLE_RATE_HZ

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.int64]:
        return self.model.encode(samples)


def build(resolved: weights.ResolvedWeights) -> MelodyTokens:
    """The encoder of a checkpoint.

    Raises:
        NotReady: If the tensors do not fit the config.
    """
    try:
        model = build_melody_encoder(resolved.config["config"], weights.load_tensors(resolved))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise NotReady(
            f"The weights of {resolved.name!r} do not fit their config.json: {error}", reason="WEIGHTS_DAMAGED"
        ) from error
    info = ModelInfo(
        name=resolved.name,
        service="embedding",
        digest_sha256=resolved.digest_sha256,
        licence=resolved.licence,
        score=resolved.score,
        parameter_count=sum(tensor.numel() for tensor in model.state_dict().values()),
        source=resolved.source,
        sample_rate_hz=melody.SAMPLE_RATE_HZ,
        frame_rate_hz=float(melody.COLUMN_RATE_HZ),
        num_codebooks=model.config.num_codebooks,
    )
    return MelodyTokens(info, model)
