"""Make a tokenizer of a trained w2v-BERT: `python services/semantic/recipes/fit_tokens.py --config w2vbert.toml ...`.

For each layer, and first for four frames of log-mel beside them: features of training windows are normalised, k-means
places the centroids, and linear probes read pitch class, beat position and instrument family off the tokens of the
validation split, fitted on its even clips and scored on its odd ones. The layer with the best mean is exported, cut off
after that layer, in half precision.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kmeans
import numpy as np
import torch
from mel_clips import MelClips
from numpy.typing import NDArray
from stretto_semantic.models.w2vbert.config import FRAME_RATE_HZ, FrameGrid, TokenizerConfig
from stretto_semantic.models.w2vbert.model import W2vBert, W2vBertTokenizer, cut_windows
from stretto_shared import weights
from stretto_shared.training import checkpoint
from stretto_shared.training.corpus.records import ClipRecord, read_records
from stretto_shared.training.token_probe import (
    NO_TRUTH,
    NUM_BEAT_POSITIONS,
    ProbeOptions,
    TokenProbe,
    beat_truth,
    family_truth,
    pitch_class_truth,
)
from torch import Tensor
from train_w2vbert import Learner, Recipe, read_recipe

FRAME_CONTEXT, BEAT_CONTEXT = 2, 12


@dataclass(frozen=True)
class Normalised:
    """Features [N, T, D] of clips, and what made them so."""

    mean: Tensor
    scale: Tensor
    train: Tensor
    valid: Tensor


@torch.inference_mode()
def hear_clips(model: W2vBert, mel: Tensor, grid: FrameGrid) -> list[Tensor]:
    """Outputs [N, T, D] of every layer for clips [N, 4 T, M], window by window."""
    parts: list[list[Tensor]] = []
    for clip in mel.split(4):
        windows = cut_windows(clip, grid)
        heard = model.hear(windows.flatten(0, 1))
        inner = [layer[:, grid.left : grid.left + grid.window] for layer in heard]
        parts.append([layer.reshape(len(clip), -1, layer.shape[-1])[:, : clip.shape[1] // 4] for layer in inner])
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def normalise(train: Tensor, valid: Tensor) -> Normalised:
    """Mean 0 and deviation 1 of each number over the training frames."""
    flat = train.flatten(0, 1)
    mean, scale = flat.mean(0), 1 / flat.std(0).clamp(min=1e-4)
    return Normalised(mean, scale, (train - mean) * scale, (valid - mean) * scale)


class ProbeScores:
    """The probes that choose the layer."""

    def __init__(self, records: Sequence[ClipRecord], chroma: NDArray[np.int8], num_frames: int) -> None:
        families = sorted({use.family for record in records for use in record.instruments})
        self._tasks = {
            "pitch": (pitch_class_truth(chroma, num_frames, FRAME_RATE_HZ), 12, FRAME_CONTEXT),
            "beat": (beat_truth(records, num_frames, FRAME_RATE_HZ), NUM_BEAT_POSITIONS, BEAT_CONTEXT),
            "family": (family_truth(records, families), len(families), None),
        }

    def of(self, tokens: NDArray[np.int64], num_tokens: int) -> dict[str, float]:
        """Accuracy on odd clips of probes fitted on even ones, for tokens [N, T]; tasks without truth are left out."""
        scores = {}
        for name, (truth, num_classes, context) in self._tasks.items():
            if any((truth[half::2] == NO_TRUTH).all() for half in (0, 1)):
                continue
            probe = TokenProbe(ProbeOptions(num_tokens, num_classes, context), tokens[::2], truth[::2])
            scores[name] = float(np.nanmean(probe.accuracies(tokens[1::2], truth[1::2])))
        return scores


def fit_layer(features: Normalised, recipe: Recipe) -> tuple[Tensor, NDArray[np.int64]]:
    """Centroids [K, D], and the tokens [N, T] that they make of the validation clips."""
    points = features.train.flatten(0, 1)
    generator = torch.Generator().manual_seed(recipe.seed)
    points = points[torch.randperm(len(points), generator=generator)[: recipe.num_kmeans_frames]]
    centroids = kmeans.fit(points, recipe.num_centroids, recipe.num_kmeans_rounds, recipe.seed)
    tokens = kmeans.assign(features.valid.flatten(0, 1), centroids).view(features.valid.shape[:2])
    return centroids, tokens.numpy()


def read_validation(features: Path, corpus: Path, most: int) -> tuple[Tensor, list[ClipRecord], NDArray[np.int8]]:
    """Log-mel, records and pitch classes of validation clips that have all three, evenly spread."""
    mel, records, chroma = [], [], []
    for path in sorted(features.glob("chroma_valid_*.npy")):
        shard = path.stem.removeprefix("chroma_valid_")
        own = read_records(corpus / f"clips_valid_{shard}.jsonl")
        heard, classes = np.load(features / f"mel_valid_{shard}.npy", mmap_mode="r"), np.load(path)
        mel += list(heard[: len(own)])
        chroma += list(classes[: len(own)])
        records += own[: min(len(heard), len(classes))]
    places = np.unique(np.linspace(0, len(records) - 1, min(len(records), most)).round().astype(int))
    kept = torch.from_numpy(np.stack([mel[place] for place in places]).astype(np.float32))
    return kept, [records[place] for place in places], np.stack([chroma[place] for place in places])


def load_learner(recipe: Recipe, config: TokenizerConfig, folder: Path) -> tuple[Learner, dict[str, float]]:
    """The trained model of a run's folder, and how long it was trained."""
    state = checkpoint.load(folder / "state.pt")
    if state is None:
        raise SystemExit(f"No state.pt in {folder}. Train first: train_w2vbert.py.")
    learner = Learner(recipe, config)
    learner.load_state_dict(state["learner"])
    return learner.eval(), {"minutes": round(state["elapsed_s"] / 60, 1), "steps": state["step"] + 1}


def export(
    recipe: Recipe, config: TokenizerConfig, model: W2vBert, fitted: tuple[Normalised, Tensor], out: Path, note: dict
) -> None:
    """Write the servable checkpoint."""
    tokenizer = W2vBertTokenizer(config)
    kept = tokenizer.encoder.state_dict()
    tokenizer.encoder.load_state_dict({name: value for name, value in model.state_dict().items() if name in kept})
    features, centroids = fitted
    tokenizer.mean, tokenizer.scale, tokenizer.centroids = features.mean, features.scale, centroids
    weights.write(
        out,
        {name: value.half() for name, value in tokenizer.state_dict().items()},
        name=recipe.name,
        architecture="W2vBertTokenizer",
        config=dataclasses.asdict(config),
        licence=recipe.licence,
        score="",
        training=note,
    )


def run(recipe: Recipe, folder: Path, features: Path, corpus: Path, out: Path, layers: Sequence[int]) -> None:
    """Try the layers, print what they score, export the best."""
    base = TokenizerConfig(**recipe.model, feature_layer=0, num_centroids=recipe.num_centroids)
    learner, note = load_learner(recipe, base, folder)
    train_mel = MelClips(features, "train", base.grid, 0).spread(recipe.num_probe_clips)
    valid_mel, records, chroma = read_validation(features, corpus, recipe.num_probe_clips)
    probes = ProbeScores(records, chroma, valid_mel.shape[1] // 4)
    if not layers:
        stacked = [mel.unfold(1, 4, 4).flatten(2) for mel in (train_mel, valid_mel)]
        scores = probes.of(fit_layer(normalise(*stacked), recipe)[1], recipe.num_centroids)
        print({"log-mel": 4, **scores, "mean": float(np.mean(list(scores.values())))}, flush=True)
    learner.model.layers = learner.model.layers[: max(layers, default=base.num_layers)]
    train, valid = (hear_clips(learner.model, mel, base.grid) for mel in (train_mel, valid_mel))
    best, best_score = None, -1.0
    for layer in layers or range(1, base.num_layers + 1):
        heard = normalise(train[layer], valid[layer])
        centroids, tokens = fit_layer(heard, recipe)
        scores = probes.of(tokens, recipe.num_centroids)
        mean = float(np.mean(list(scores.values())))
        print({"layer": layer, **scores, "mean": mean, "used": len(np.unique(tokens))}, flush=True)
        if mean > best_score:
            best, best_score = (layer, heard, centroids, scores), mean
    assert best is not None
    layer, heard, centroids, scores = best
    config = dataclasses.replace(base, feature_layer=layer)
    note = {**note, **{f"valid_{name}": round(score, 4) for name, score in scores.items()}}
    export(recipe, config, learner.model, (heard, centroids), out, note)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe, the TOML file of the training")
    parser.add_argument("--features", type=Path, required=True, help="folder of mel_ and chroma_{split}_{shard}.npy")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of clips_{split}_{shard}.jsonl")
    parser.add_argument("--run", type=Path, required=True, help="folder of the training's state")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tokenizer")
    parser.add_argument("--layers", type=int, nargs="*", default=(), help="layers to try; by default all, and log-mel")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run(read_recipe(args.config), args.run, args.features, args.corpus, args.out, args.layers)


if __name__ == "__main__":
    main()
