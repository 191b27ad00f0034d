"""What the language model has learnt: held-out cross-entropy, beside baselines, and with and without its conditions.

Features are those that `services/acoustic/recipes/prepare_features.py` writes for a rendered corpus. On clips of the
test split, with captions of held-out templates: cross-entropy per codebook beside a unigram and a previous-token model
fitted on the train split; with a caption of another clip, with none, with the clip's melody and with another's.

    python evals/quality/musicgen_loss.py --features corpus/features [--model musicgen=file:///DIR] [--limit 16]

The baselines need the codes of the train split; `--without-baselines` asks for the model's own numbers alone, as one
does to compare weight formats. `STRETTO_ACOUSTIC_WEIGHT_FORMAT=fp32` before the command measures that format.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import MISSING_STATUS, Outcome, Table, need, parser, publish, surely_above
from served import load_lm, report_name, step_through, stepper_of
from stretto_acoustic.engine import Stepper
from stretto_acoustic.models.musicgen import MusicGenCondition, MusicGenConfig
from stretto_shared.engine.delay import apply_delay, target_mask
from stretto_shared.metrics.bootstrap import Interval, bootstrap_mean

DEFAULT_CLIPS = 96
BATCH_SIZE = 8
BASELINES = ("unigram", "previous token")

PROTOCOL = (
    "Nats per token, teacher forced column by column through the service's stepper, mean over clips; each clip of the "
    "test split with one caption of a held-out template, chosen by seed. Baselines are fitted on all codes of the "
    "train split: unigram with add-one smoothing; previous token of the same codebook, Witten-Bell interpolated with "
    "the unigram. `shuffled` gives each clip the caption (or the melody) of another, by a seeded random order. "
    "Intervals: 95 % bootstrap over clips, paired."
)


@dataclass(frozen=True, eq=False)
class Split:
    """The features of one split; `captions`: states of each clip's held-out captions, or of all where none is."""

    codes: NDArray[np.int16]  # [N, K, T]
    chroma: NDArray[np.int8]  # [N, P]
    captions: list[list[NDArray[np.float16]]]


@dataclass(frozen=True)
class Condition:
    """How the clips are presented to the model: whose caption and whose melody, own, other's or none."""

    name: str
    text: str
    melody: str


CONDITIONS = (
    Condition("true caption", "own", "none"),
    Condition("shuffled caption", "other", "none"),
    Condition("no caption", "none", "none"),
    Condition("true caption and melody", "own", "own"),
    Condition("true caption, shuffled melody", "own", "other"),
)


def read_codes(folder: Path, split: str, num_codebooks: int) -> NDArray[np.int16]:
    """All codes [N, K, T] of a split."""
    paths = sorted(folder.glob(f"codes_{split}_*.npy"))
    if not paths:
        print(f"missing: no codes_{split}_*.npy in {folder}. Make them with prepare_features.py.", file=sys.stderr)
        raise SystemExit(MISSING_STATUS)
    return np.concatenate([np.load(path)[:, :num_codebooks] for path in paths])


def read_split(folder: Path, split: str, num_codebooks: int) -> Split:
    """Everything of a split."""
    captions: list[list[NDArray[np.float16]]] = []
    names = [path.stem.removeprefix("codes_") for path in sorted(folder.glob(f"codes_{split}_*.npy"))]
    for name in names:
        with np.load(folder / f"text_{name}.npz") as text:
            states = text["states"]
            for edges, num_heldout in zip(text["offsets"], text["heldout"], strict=True):
                own = [states[a:b] for a, b in pairwise(edges) if b > a]
                captions.append(own[len(own) - num_heldout :] if num_heldout else own)
    chroma = [np.load(folder / f"chroma_{name}.npy") for name in names]
    return Split(read_codes(folder, split, num_codebooks), np.concatenate(chroma), captions)


def unigram_loss(train: NDArray[np.int16], test: NDArray[np.int16], cardinality: int) -> NDArray[np.float64]:
    """Cross-entropy [N, K] of the add-one unigram model."""
    losses = np.empty(test.shape[:2])
    for k in range(test.shape[1]):
        losses[:, k] = -np.log(_unigram(train[:, k], cardinality))[test[:, k]].mean(axis=1)
    return losses


def previous_token_loss(train: NDArray[np.int16], test: NDArray[np.int16], cardinality: int) -> NDArray[np.float64]:
    """Cross-entropy [N, K] of p(code | code before it in its codebook), Witten-Bell interpolated."""
    losses = np.empty(test.shape[:2])
    for k in range(test.shape[1]):
        unigram = _unigram(train[:, k], cardinality)
        pairs = train[:, k, :-1].astype(np.int64) * cardinality + train[:, k, 1:]
        counts = np.bincount(pairs.ravel(), minlength=cardinality**2).reshape(cardinality, cardinality)
        followers = (counts > 0).sum(axis=1, keepdims=True)
        seen = counts.sum(axis=1, keepdims=True)
        interpolated = (counts + np.maximum(followers, 1) * unigram) / (seen + np.maximum(followers, 1))
        before, after = test[:, k, :-1].astype(np.int64), test[:, k, 1:].astype(np.int64)
        total = -np.log(interpolated[before, after]).sum(axis=1) - np.log(unigram[test[:, k, 0]])
        losses[:, k] = total / test.shape[2]
    return losses


def _unigram(codes: NDArray[np.int16], cardinality: int) -> NDArray[np.float64]:
    counts = np.bincount(codes.ravel().astype(np.int64), minlength=cardinality) + 1.0
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def another_of_each(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of the clips [N] another one, each once: the next in a random order, whatever shards they lie in."""
    order = np.random.default_rng(0).permutation(len(chosen))
    others = np.empty_like(chosen)
    others[order] = chosen[np.roll(order, 1)]
    return others


def model_loss(
    stepper: Stepper, config: MusicGenConfig, split: Split, indices: Sequence[int], condition: Condition
) -> NDArray[np.float64]:
    """Cross-entropy [N, K] of the model on clips, presented as the condition says."""
    chosen = np.asarray(indices)
    others = another_of_each(chosen)
    losses = []
    for start in range(0, len(chosen), BATCH_SIZE):
        own, other = chosen[start : start + BATCH_SIZE], others[start : start + BATCH_SIZE]
        codes = torch.from_numpy(split.codes[own].astype(np.int64))
        delayed = apply_delay(codes, config.delays, config.special_token)
        logits = step_through(stepper, told(split, own, other, condition), delayed[..., :-1], guidance_scale=1.0)
        targets = delayed[..., 1:].masked_fill(~target_mask(codes.shape[-1], config.delays), -100)
        loss = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none", ignore_index=-100)
        losses.append((loss.view(targets.shape).sum(-1) / codes.shape[-1]).numpy())
    return np.concatenate(losses).astype(np.float64)


def told(
    split: Split, own: NDArray[np.int64], other: NDArray[np.int64], condition: Condition
) -> list[MusicGenCondition]:
    """What the model is told of each clip: the caption and melody of its own, of the other clip, or none."""
    told: list[MusicGenCondition] = []
    for mine, theirs in zip(own, other, strict=True):
        whose = {"own": mine, "other": theirs}
        text = None if condition.text == "none" else caption_of(split, whose[condition.text]).astype(np.float32)
        melody = None if condition.melody == "none" else split.chroma[whose[condition.melody]].astype(np.int32)
        told.append(MusicGenCondition(text, melody))
    return told


def caption_of(split: Split, index: int) -> NDArray[np.float16]:
    """States [L, D] of one caption of a clip, chosen by seed."""
    return split.captions[index][int(np.random.default_rng(index).integers(len(split.captions[index])))]


def captions_of(split: Split, indices: NDArray[np.int64], dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One caption of each clip, padded: states [B, L, D] and mask [B, L]."""
    texts = [caption_of(split, index) for index in indices]
    longest = max(len(text) for text in texts)
    states, mask = np.zeros((len(texts), longest, dim), np.float32), np.zeros((len(texts), longest), np.int64)
    for row, text in enumerate(texts):
        states[row, : len(text)], mask[row, : len(text)] = text, 1
    return torch.from_numpy(states), torch.from_numpy(mask)


def baseline_losses(
    train: NDArray[np.int16], test: NDArray[np.int16], config: MusicGenConfig
) -> dict[str, NDArray[np.float64]]:
    """Cross-entropy [N, K] of each baseline."""
    return {
        "unigram": unigram_loss(train, test, config.cardinality),
        "previous token": previous_token_loss(train, test, config.cardinality),
    }


def gaps_of(losses: Mapping[str, NDArray[np.float64]]) -> dict[str, Interval]:
    """The gaps between what was measured, paired by clip."""
    pairs = (
        ("shuffled minus true caption", "shuffled caption", "true caption"),
        ("no caption minus true caption", "no caption", "true caption"),
        ("previous token minus model", "previous token", "true caption"),
        ("no melody minus melody", "true caption", "true caption and melody"),
        ("shuffled minus true melody", "true caption, shuffled melody", "true caption and melody"),
    )
    return {
        gap: bootstrap_mean(losses[worse].mean(1) - losses[better].mean(1))
        for gap, worse, better in pairs
        if worse in losses and better in losses
    }


def claims_of(losses: Mapping[str, NDArray[np.float64]], gaps: Mapping[str, Interval]) -> dict[str, bool]:
    """What must hold of the model, and of the baselines where they were measured."""
    claims = {f"gap_above_zero: {label}": surely_above(gap) for label, gap in gaps.items()}
    baselines = [losses[name].mean(0) for name in BASELINES if name in losses]
    if not baselines:
        return claims
    own = losses["true caption"].mean(0)
    return {"better_than_both_baselines_in_every_codebook": all(bool((own < b).all()) for b in baselines), **claims}


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--features", type=Path, default=Path("corpus/features"), help="from prepare_features.py")
    options.add_argument("--model", default="", help="name, or name=file:///DIR, of the language model")
    options.add_argument("--without-baselines", action="store_true", help="do without the codes of the train split")
    args = options.parse_args()
    loaded = load_lm(args.model, num_threads=args.threads)
    config = loaded.config
    test = read_split(need(args.features, "The features"), "test", config.num_codebooks)
    count = min(args.limit or DEFAULT_CLIPS, len(test.codes))
    indices = np.unique(np.linspace(0, len(test.codes) - 1, count).round().astype(int))  # over all shards alike
    stepper = stepper_of(loaded)
    losses: dict[str, NDArray[np.float64]] = {}
    data = f"{len(indices)} clips of the rendered corpus' test split (held-out pieces and caption templates)"
    if not args.without_baselines:
        train = read_codes(args.features, "train", config.num_codebooks)
        losses |= baseline_losses(train, test.codes[indices], config)
        data += f", {len(train)} train clips for the baselines"
    asked = CONDITIONS if config.melody_conditioning != "none" else CONDITIONS[:3]
    for condition in asked:
        losses[condition.name] = model_loss(stepper, config, test, indices.tolist(), condition)
        print(f"{condition.name}: {losses[condition.name].mean():.4f}", flush=True)
    gaps = gaps_of(losses)
    head = ("", "mean", *(f"codebook {k}" for k in range(config.num_codebooks)))
    rows = [(label, float(loss.mean()), *map(float, loss.mean(0))) for label, loss in losses.items()]
    gap_rows = [(label, f"{g.mean:+.4f}", f"[{g.low:+.4f}, {g.high:+.4f}]") for label, g in gaps.items()]
    publish(
        Outcome(
            report_name("musicgen_loss", [loaded.info]),
            PROTOCOL,
            f"{data}; model {loaded.info.model_id}",
            [
                Table("Cross-entropy, nats per token", [head, *rows]),
                Table("Gaps, nats per token", [("", "mean", "95 %"), *gap_rows]),
            ],
            {
                "model_id": loaded.info.model_id,
                "cross_entropy": {label: loss.mean(0) for label, loss in losses.items()},
                "gaps": {label: {"mean": g.mean, "low": g.low, "high": g.high} for label, g in gaps.items()},
            },
            claims_of(losses, gaps),
        ),
        args,
    )


if __name__ == "__main__":
    main()
