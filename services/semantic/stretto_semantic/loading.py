"""Weights to verified, built models; an explicit registry by architecture. Knows nothing of requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from stretto_shared import weights
from stretto_shared.dsp.window_grid import Silence, WindowGrid
from stretto_shared.engine.stage_engine import LoadedStage
from stretto_shared.engine.stage_loading import ARCHITECTURE as STAGE_ARCHITECTURE
from stretto_shared.engine.stage_loading import architecture_of
from stretto_shared.engine.stage_loading import load_stage as load_any_stage
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.nn.heap import as_single, giving_memory_back
from stretto_shared.nn.unfilled import unfilled
from torch import Tensor, nn

from stretto_semantic.models.centroids import CENTROIDS_FILE, CentroidTokenizer
from stretto_semantic.models.tokenizer import Listener, Tokenizer
from stretto_semantic.models.w2vbert.config import TokenizerConfig
from stretto_semantic.models.w2vbert.model import W2vBertTokenizer
from stretto_semantic.models.w2vbert.windows import WindowedW2vBert
from stretto_semantic.models.wav2vec2_bert import (
    Wav2Vec2Bert,
    Wav2Vec2BertListener,
    from_hugging_face,
    layers_read,
)

DEFAULT_TOKENIZER = "w2vbert"
DEFAULT_STAGE = "musiclm_semantic"
_SEED = 20_017


@dataclass(frozen=True)
class TokenizerArchitecture:
    """How to build one kind of tokenizer; one of the two functions is there.

    They raise RuntimeError, TypeError or ValueError where weights and config do not fit each other.

    Args:
        build: From verified weights that hold all that there is to it.
        listen: From verified weights and a number of layers to what hears with them; its tokens need centroids.
        can_join: Whether windows may be tried in company: not worth it where one keeps the processor busy for seconds.
    """

    build: Callable[[weights.ResolvedWeights], Tokenizer] | None = None
    listen: Callable[[weights.ResolvedWeights, int], Listener] | None = None
    can_join: bool = True


def _listen_wav2vec2_bert(resolved: weights.ResolvedWeights, num_layers: int) -> Listener:
    with unfilled():  # no memory for weights that are about to be replaced
        model = Wav2Vec2Bert(from_hugging_face(resolved.config), num_layers)
    model.load_state_dict(as_single(layers_read(weights.open_tensors(resolved), num_layers)), assign=True)
    return Wav2Vec2BertListener(model.eval().requires_grad_(False))


def _build_w2vbert(resolved: weights.ResolvedWeights) -> Tokenizer:
    config = TokenizerConfig(**resolved.config["config"])
    with unfilled():
        tokenizer = W2vBertTokenizer(config)
    tokenizer.load_state_dict(as_single(weights.load_tensors(resolved)), assign=True)
    return WindowedW2vBert(tokenizer)


# By `architecture` of our own `config.json`.
TOKENIZERS: Mapping[str, TokenizerArchitecture] = {
    "W2vBertTokenizer": TokenizerArchitecture(_build_w2vbert),
}

# By `model_type` of a Hugging Face `config.json`.
HUGGING_FACE_TOKENIZERS: Mapping[str, TokenizerArchitecture] = {
    "wav2vec2-bert": TokenizerArchitecture(listen=_listen_wav2vec2_bert, can_join=False),
}


@dataclass(frozen=True, eq=False)
class LoadedTokenizer:
    """A tokenizer ready to run; `tokenize` belongs on its model thread.

    Args:
        info: What the service says of it.
        tokenizer: What hears.
        max_joined: Windows that may share a pass: so many were tried at load.
    """

    info: ModelInfo
    tokenizer: Tokenizer
    max_joined: int = 1

    @property
    def grid(self) -> WindowGrid:
        return self.tokenizer.grid

    @property
    def sample_rate_hz(self) -> int:
        return self.tokenizer.sample_rate_hz

    @property
    def frame_rate_hz(self) -> float:
        return self.tokenizer.frame_rate_hz

    @torch.inference_mode()
    def tokenize(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        """Mono audio [N, T * hop + 2 * margin], with the silence of each window, to ids [N, T].

        Raises:
            RuntimeError: If the tokenizer gives NaN: it is broken, which is nobody's input.
        """
        scores = self.tokenizer.scores(samples, silences)  # [N, T, V]
        if bool(scores.isnan().any()):
            raise RuntimeError(f"tokenizer {self.info.model_id} gave scores that are no numbers")
        return scores.argmax(-1)


def list_tokenizer_names(weights_dir: Path) -> list[str]:
    """The tokenizers that `default` finds in `weights_dir`, `w2vbert` first; none where there is none."""
    found = sorted(
        path.parent.name
        for path in weights_dir.glob(f"*/{weights.CONFIG_FILE}")
        if json.loads(path.read_text(encoding="utf-8")).get("architecture") in TOKENIZERS
    )
    return sorted(found, key=lambda name: name != DEFAULT_TOKENIZER)


def list_stage_names(weights_dir: Path) -> list[str]:
    """The language models that `default` finds in `weights_dir`, `musiclm_semantic` first; none where there is none."""
    names = sorted(path.parent.name for path in weights_dir.glob(f"*/{weights.CONFIG_FILE}"))
    return sorted((name for name in names if is_stage(name, "default", weights_dir)), key=lambda n: n != DEFAULT_STAGE)


def is_stage(name: str, source: str, weights_dir: Path) -> bool:
    """Whether a model is a language model, as `load_stage` loads them; one that is not there is none."""
    return architecture_of(name, source, weights_dir) == STAGE_ARCHITECTURE


def load_stage(
    name: str, source: str, *, weights_dir: Path, is_default: bool = False, num_threads: int = 0
) -> LoadedStage:
    """Find, verify and build one language model.

    Raises:
        StrettoError: What `stretto_shared.engine.stage_loading.load_stage` raises.
    """
    return load_any_stage(
        name,
        source,
        weights_dir=weights_dir,
        service="semantic",
        hears_source=False,
        is_default=is_default,
        num_threads=num_threads,
    )


def load_tokenizer(
    name: str, source: str, *, weights_dir: Path, is_default: bool = False, max_joined: int = 1
) -> LoadedTokenizer:
    """Find, verify and build one tokenizer.

    Args:
        name: The name that requests use.
        source: `default`, `hf://org/name@revision` or `file:///folder`.
        weights_dir: Where `default` looks, and where, in the folder of that name, centroids may lie that are not beside
            the weights.
        is_default: Whether an empty `model` field selects it.
        max_joined: Windows that may share a pass where a trial finds that they stay as alone.

    Raises:
        InvalidInput: If the name or the source is malformed, or the weights are pickled.
        NotFound: If the architecture is not in the registry.
        NotReady: If a file is missing or damaged, or its tensors do not fit its config.
    """
    with giving_memory_back():
        resolved = weights.resolve(source, name=name, default_dir=weights_dir)
        architecture = _architecture_of(resolved)
        try:
            tokenizer, digest_sha256 = _build(resolved, architecture, weights_dir)
        except (KeyError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
            raise NotReady(
                f"Weights of {name!r} from {source!r} do not fit together: {error} Restore them.",
                reason="WEIGHTS_DAMAGED",
            ) from error
        return make_loaded(
            name,
            tokenizer,
            digest_sha256=digest_sha256,
            licence=resolved.licence,
            score=resolved.score,
            is_default=is_default,
            source=source,
            max_joined=max_joined if architecture.can_join else 1,
        )


def make_loaded(
    name: str,
    tokenizer: Tokenizer,
    *,
    digest_sha256: str,
    licence: str = weights.NO_LICENCE_STATED,
    score: str = "",
    is_default: bool = False,
    source: str = "default",
    max_joined: int = 1,
) -> LoadedTokenizer:
    """Try how many windows may share a pass, and write down what the service says of the tokenizer."""
    parameter_count = 0
    if isinstance(tokenizer, nn.Module):
        tokenizer.eval().requires_grad_(False)
        parameter_count = sum(tensor.numel() for tensor in tokenizer.state_dict().values())
    info = ModelInfo(
        name=name,
        service="semantic",
        digest_sha256=digest_sha256,
        licence=licence,
        score=score,
        parameter_count=parameter_count,
        is_default=is_default,
        source=source,
        sample_rate_hz=tokenizer.sample_rate_hz,
        frame_rate_hz=tokenizer.frame_rate_hz,
        num_codebooks=1,
        num_channels=1,
    )
    return LoadedTokenizer(info, tokenizer, find_max_joined(tokenizer, max_joined))


@torch.inference_mode()
def find_max_joined(tokenizer: Tokenizer, limit: int) -> int:
    """The most windows, at most `limit`, that get the same scores in company as alone; so do all lesser numbers.

    A kernel may sum a row in another order when more rows stand beside it, and then a stream's tokens would depend on
    its company (`docs/adr/0008`): tried, not believed.
    """
    if limit == 1:
        return 1
    generator = torch.Generator().manual_seed(_SEED)
    levels = torch.logspace(-3, 0, limit)[:, None]  # neighbours of very different loudness
    samples = torch.randn(limit, tokenizer.grid.num_samples, generator=generator) * levels
    silences = [(min(index, tokenizer.grid.left_frames), 0) for index in range(limit)]
    alone = torch.cat([tokenizer.scores(samples[each, None], [silences[each]]) for each in range(limit)])
    for count in range(2, limit + 1):
        chosen = list(range(limit))[: -count - 1 : -1]  # the last ones, in reverse order
        together = tokenizer.scores(samples[chosen], [silences[each] for each in chosen])
        if not torch.equal(together, alone[chosen]):
            return count - 1
    return limit


def load_listener(name: str, source: str, *, weights_dir: Path, num_layers: int) -> Listener:
    """A model up to a layer, to whose output centroids are fitted. For recipes.

    Raises:
        InvalidInput: If the name or the source is malformed, or the weights are pickled.
        NotFound: If the architecture is not in the registry, or has tokens without centroids.
        NotReady: If a file is missing or damaged.
        RuntimeError, ValueError: If its tensors do not fit its config, or it has fewer layers.
    """
    resolved = weights.resolve(source, name=name, default_dir=weights_dir)
    architecture = _architecture_of(resolved)
    if architecture.listen is None:
        raise NotFound("model", f"expected a model without tokens of its own, got {name!r}, which needs no centroids.")
    return architecture.listen(resolved, num_layers)


def _build(
    resolved: weights.ResolvedWeights, architecture: TokenizerArchitecture, weights_dir: Path
) -> tuple[Tokenizer, str]:
    """The tokenizer and its digest, into which the centroids go where they are a file of their own."""
    if architecture.build is not None:
        return architecture.build(resolved), resolved.digest_sha256
    assert architecture.listen is not None
    places = [folder / CENTROIDS_FILE for folder in (resolved.folder, weights_dir / resolved.name)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise NotReady(
            f"Model {resolved.name!r} from {resolved.source!r} has no tokens of its own: it needs {CENTROIDS_FILE} in "
            f"{places[0].parent} or {places[1].parent}. Fit it with services/semantic/recipes/fit_kmeans.py.",
            reason="WEIGHTS_MISSING",
        )
    tensors = as_single(load_file(path))
    tokenizer = CentroidTokenizer(architecture.listen(resolved, int(tensors["layer"])), tensors)
    digests = f"{resolved.digest_sha256} {weights.sha256_of(path)}"
    return tokenizer, hashlib.sha256(digests.encode()).hexdigest()


def _architecture_of(resolved: weights.ResolvedWeights) -> TokenizerArchitecture:
    """What `config.json` names, in our layout or in that of Hugging Face."""
    is_foreign = resolved.is_hugging_face_layout
    registry = HUGGING_FACE_TOKENIZERS if is_foreign else TOKENIZERS
    word = str(resolved.config.get("model_type" if is_foreign else "architecture"))
    if word not in registry:
        raise NotFound(
            "model",
            f"expected a tokenizer of {', '.join(registry) or 'no architecture yet'}, got {word!r} from "
            f"{resolved.source!r}. Name another source.",
        )
    return registry[word]
