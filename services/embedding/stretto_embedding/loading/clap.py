"""CLAP as a joint encoder, from the published layout.

CLAP has no quantiser, and nothing in its checkpoint says how far texts and recordings lie apart (the modality gap), so
its points are as published. Windows of longer audio follow one another without overlap, but for the last, which ends
with the recording.

Legend: S samples, D width of the space.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared import weights
from stretto_shared.errors import NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.nn.unfilled import unfilled
from tokenizers import Tokenizer

from stretto_embedding.loading.files import read_tokenizer, with_state
from stretto_embedding.loading.text import TextEncoder
from stretto_embedding.models.clap import Clap, FrontEnd, config_from_hf, front_end_from_hf, state_from_hf
from stretto_embedding.models.mulan import DEFAULT_TAGS

FRONT_END_FILE = "preprocessor_config.json"


@dataclass(frozen=True, eq=False)
class ClapEncoder:
    """A `JointEncoder`."""

    info: ModelInfo
    model: Clap
    front_end: FrontEnd
    tokenizer: Tokenizer
    default_tags: tuple[str, ...] = DEFAULT_TAGS

    @property
    def sample_rate_hz(self) -> int:
        return self.front_end.config.sample_rate_hz

    @property
    def window_samples(self) -> int:
        return self.front_end.config.num_samples

    @property
    def stride_samples(self) -> int:
        return self.window_samples

    @property
    def dimension(self) -> int:
        return self.model.config.embedding_dim

    @property
    def temperature(self) -> float:
        return self.model.temperature

    @property
    def max_tokens(self) -> int:
        return self.model.config.text.max_tokens

    def tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)

    def embed_ids(self, ids: Sequence[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            values: NDArray[np.float32] = self.model.embed_text(torch.tensor([list(ids)]))[0].numpy()
        return values

    def embed_window(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            mel = self.front_end(torch.from_numpy(np.array(samples)))
            values: NDArray[np.float32] = self.model.embed_audio(mel[None])[0].numpy()
        return values

    def quantize(self, values: NDArray[np.float32]) -> tuple[int, ...]:
        return ()


def build(
    resolved: weights.ResolvedWeights, *, is_default: bool, load_text_encoder: Callable[[], TextEncoder]
) -> ClapEncoder:
    """The encoder of a Hugging Face folder: weights, `config.json`, `preprocessor_config.json` and `tokenizer.json`.

    Raises:
        NotReady: If a file is missing, or it is a CLAP of another kind.
    """
    tokenizer = read_tokenizer(resolved)
    path = resolved.folder / FRONT_END_FILE
    if not path.is_file():
        raise NotReady(
            f"Source {resolved.source!r} has no {FRONT_END_FILE} beside its weights. Add it.", reason="WEIGHTS_MISSING"
        )
    try:
        config = config_from_hf(resolved.config)
        front_end = front_end_from_hf(json.loads(path.read_text(encoding="utf-8")))
        state = state_from_hf(weights.load_tensors(resolved))
    except (KeyError, TypeError, ValueError) as error:
        raise NotReady(
            f"Source {resolved.source!r} is not a CLAP that is served here: {error}", reason="WEIGHTS_DAMAGED"
        ) from error
    with unfilled():  # no memory for weights that are about to be replaced
        model = Clap(config)
    with_state(model, state)
    info = ModelInfo(
        name=resolved.name,
        service="embedding",
        digest_sha256=resolved.digest_sha256,
        licence="as published",
        parameter_count=sum(parameter.numel() for parameter in model.parameters()),
        is_default=is_default,
        source=resolved.source,
        sample_rate_hz=front_end.sample_rate_hz,
    )
    return ClapEncoder(info, model, FrontEnd(front_end), tokenizer)
