"""Weights to verified, built analyzers; an explicit registry. Knows nothing of requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from stretto_shared import weights
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.nn.heap import giving_memory_back

from stretto_harmony.models.analyzer import Analyzer, HarmonyModules, JointAnalyzer
from stretto_harmony.models.chordgnn.analyzer import ChordGnnAnalyzer
from stretto_harmony.models.chordgnn.weights import build_chordgnn
from stretto_harmony.models.modular.weights import build_modular
from stretto_harmony.scores.labels import Analysis
from stretto_harmony.scores.score import Score

WINDOW_MEASURES, CONTEXT_MEASURES = 32, 8


@dataclass(frozen=True)
class BuiltAnalyzer:
    """An analyzer, its modules where it has such, and on which grid of measures it is used.

    Args:
        analyzer: What labels a score.
        modules: What answers single questions; None where it has none.
        window_measures: Measures that one pass gives labels of.
        context_measures: Measures before and after them that it sees.
        joint: The analyzer again, where it labels some windows in fewer passes; None else.
    """

    analyzer: Analyzer
    modules: HarmonyModules | None = None
    window_measures: int = WINDOW_MEASURES
    context_measures: int = CONTEXT_MEASURES
    joint: JointAnalyzer | None = None


Build = Callable[[weights.ResolvedWeights], BuiltAnalyzer]
"""Verified weights to an analyzer; KeyError, RuntimeError, TypeError or ValueError where weights and config do not
fit."""


def _build_chordgnn(resolved: weights.ResolvedWeights) -> BuiltAnalyzer:
    analyzer = ChordGnnAnalyzer(build_chordgnn(resolved.config["config"], weights.load_tensors(resolved)))
    return BuiltAnalyzer(
        analyzer,
        window_measures=analyzer.window_measures,
        context_measures=analyzer.context_measures,
        joint=analyzer,
    )


def _build_modular(resolved: weights.ResolvedWeights) -> BuiltAnalyzer:
    analyzer = build_modular(resolved.config["config"], weights.load_tensors(resolved))
    return BuiltAnalyzer(analyzer, analyzer)


# By `architecture` of `config.json`.
ARCHITECTURES: Mapping[str, Build] = {"ChordGnn": _build_chordgnn, "ModularAnalyzer": _build_modular}


@dataclass(frozen=True, eq=False)
class LoadedAnalyzer:
    """An analyzer ready to run; its methods belong on its model thread.

    Args:
        info: What the service says of it.
        built: What runs.
    """

    info: ModelInfo
    built: BuiltAnalyzer

    @torch.inference_mode()
    def analyze(self, score: Score) -> Analysis:
        """The labels of a few measures, or of a whole score."""
        return self.built.analyzer.analyze(score)

    @property
    def num_together(self) -> int:
        """The most scores that are worth giving it at once."""
        return 1 if self.built.joint is None else self.built.joint.num_together

    @torch.inference_mode()
    def analyze_all(self, scores: Sequence[Score]) -> Sequence[Analysis]:
        """The labels of each of some scores, as `analyze` gives them."""
        if self.built.joint is None:
            return [self.built.analyzer.analyze(score) for score in scores]
        return self.built.joint.analyze_all(scores)


def list_names(weights_dir: Path) -> list[str]:
    """The analyzers that `default` finds in `weights_dir`, sorted; none where there is none."""
    return sorted(
        path.parent.name
        for path in weights_dir.glob(f"*/{weights.CONFIG_FILE}")
        if json.loads(path.read_text(encoding="utf-8")).get("architecture") in ARCHITECTURES
    )


def load_analyzer(name: str, source: str, *, weights_dir: Path, is_default: bool = False) -> LoadedAnalyzer:
    """Find, verify and build one analyzer.

    Args:
        name: The name that requests use.
        source: `default`, `hf://org/name@revision` or `file:///folder`.
        weights_dir: Where `default` looks.
        is_default: Whether an empty `model` field selects it.

    Raises:
        InvalidInput: If the name or the source is malformed, or the weights are pickled.
        NotFound: If the architecture is not in the registry.
        NotReady: If a file is missing or damaged, or its tensors do not fit its config.
    """
    with giving_memory_back():
        resolved = weights.resolve(source, name=name, default_dir=weights_dir)
        built = _built(resolved)
        return LoadedAnalyzer(_info(resolved, is_default=is_default), built)


def _built(resolved: weights.ResolvedWeights) -> BuiltAnalyzer:
    word = str(resolved.config.get("architecture"))
    if word not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES)) or "no architecture yet"
        raise NotFound(
            "model", f"expected a model of {known}, got {word!r} from {resolved.source!r}. Name another source."
        )
    try:
        return ARCHITECTURES[word](resolved)
    except (KeyError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise NotReady(
            f"Weights of {resolved.name!r} from {resolved.source!r} do not fit together: {error} Restore them.",
            reason="WEIGHTS_DAMAGED",
        ) from error


def _info(resolved: weights.ResolvedWeights, *, is_default: bool) -> ModelInfo:
    return ModelInfo(
        name=resolved.name,
        service="harmony",
        digest_sha256=resolved.digest_sha256,
        licence=resolved.licence,
        score=resolved.score,
        parameter_count=int(resolved.config.get("parameter_count", 0)),
        is_default=is_default,
        source=resolved.source,
    )
