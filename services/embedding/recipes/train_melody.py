"""Train a melody encoder: `services/embedding/recipes/train_melody.py --config melody.toml --pairs DIR --run DIR`.

Each row of a batch is a clip and its melody alone, performed anew (`prepare_melody.py pairs`), both transposed by the
same interval. Two losses: the second of one is to find its counterpart among all seconds of the other side, and the
melody's pitch class is to be named in each frame of both. Seconds whose melodies are nearly the same notes are not held
against each other, and seconds that are mostly rest are left out. The quantizer is placed by k-means after the last
step. The budget is wall time; a run resumes from its folder; the step that retrieves best on validation is exported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stretto_embedding.models.melody import (
    BINS_PER_OCTAVE,
    FRAME_RATE_HZ,
    NO_MELODY,
    NUM_PITCH_CLASSES,
    MelodyEncoder,
    MelodyEncoderConfig,
    shift_pitch,
)
from stretto_embedding.models.melody_weights import ARCHITECTURE
from stretto_shared import weights
from stretto_shared.training import checkpoint
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from torch import Tensor, nn
from torch.nn import functional as F

MAX_TRANSPOSITION = 5  # semitones
SAME_TUNE = 0.7  # share of a window's frames
MIN_MELODY = 0.3


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One TOML file."""

    name: str
    licence: str
    minutes: float
    model: dict[str, Any]
    max_steps: int = 0
    batch_size: int = 24
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 60
    temperature: float = 0.08
    pitch_weight: float = 0.5
    validate_every_s: float = 150.0
    log_every: int = 20
    bf16: bool = True
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Batch:
    """Clips, their melodies performed anew, and the notes of both."""

    mixes: Tensor  # [B, T, P]
    covers: Tensor  # [B, T, P]
    classes: Tensor  # [B, T], -1 for none


class Pairs:
    """All pairs of one split, in memory; clips without a melody are left out."""

    def __init__(self, folder: Path, split: str) -> None:
        paths = sorted(folder.glob(f"pairs_{split}_*.npz"))
        if not paths:
            raise SystemExit(f"No pairs_{split}_*.npz in {folder}. Run prepare_melody.py pairs first.")
        shards = [np.load(path) for path in paths]
        classes = np.concatenate([shard["classes"] for shard in shards])
        kept = (classes >= 0).mean(1) >= MIN_MELODY
        self.classes = classes[kept]
        self.mixes = np.concatenate([shard["mixes"] for shard in shards])[kept]
        self.covers = np.concatenate([shard["covers"] for shard in shards])[kept]

    def __len__(self) -> int:
        return len(self.mixes)

    def draw(self, size: int, random: np.random.Generator) -> Batch:
        """Clips at a common offset of less than a second, each transposed by its own interval."""
        rows = random.choice(len(self), size, replace=size > len(self))
        num_frames = (self.mixes.shape[1] // FRAME_RATE_HZ - 1) * FRAME_RATE_HZ
        at = slice(start := int(random.integers(FRAME_RATE_HZ)), start + num_frames)
        which = random.integers(self.covers.shape[1], size=size)
        moves = random.integers(-MAX_TRANSPOSITION, MAX_TRANSPOSITION + 1, size)
        classes = self.classes[rows, at].astype(np.int64)
        classes = np.where(classes >= 0, (classes + moves[:, None]) % NUM_PITCH_CLASSES, -1)
        mixes, covers = (_transposed(s, moves) for s in (self.mixes[rows, at], self.covers[rows, which, at]))
        return Batch(mixes, covers, torch.from_numpy(classes))

    def first(self, size: int) -> Batch:
        """The first clips as they are."""
        mixes, covers = (torch.from_numpy(s[:size].astype(np.float32) / 255) for s in (self.mixes, self.covers[:, 0]))
        return Batch(mixes, covers, torch.from_numpy(self.classes[:size].astype(np.int64)))


def _transposed(spectra: np.ndarray, moves: np.ndarray) -> Tensor:
    rows = torch.from_numpy(spectra).float() / 255
    step = BINS_PER_OCTAVE // NUM_PITCH_CLASSES
    return torch.stack([shift_pitch(row, step * int(move)) for row, move in zip(rows, moves, strict=True)])


def windows_of(classes: Tensor) -> Tensor:
    """What sounds in the window of each second: [B, T] to [B, U, 2 * 16], -1 outside."""
    half = FRAME_RATE_HZ // 2
    return F.pad(classes, (half, half), value=-1).unfold(1, 2 * FRAME_RATE_HZ, FRAME_RATE_HZ)


def contrast(mixes: Tensor, covers: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """How hard it is to find each second [B, U, D] of one side among all of the other, both ways; nats."""
    windows = windows_of(classes).flatten(0, 1)  # [B * U, 32]
    heard = (windows >= 0).float().mean(1) >= MIN_MELODY
    windows = windows[heard]
    same = (windows[:, None] == windows).float().mean(2) >= SAME_TUNE
    same.fill_diagonal_(False)
    logits = mixes.flatten(0, 1)[heard] @ covers.flatten(0, 1)[heard].T / temperature
    logits = logits.masked_fill(same, -torch.inf)
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def losses(model: MelodyEncoder, batch: Batch, recipe: Recipe) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and its parts."""
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
        heard = model(torch.cat([batch.mixes, batch.covers]))
    mixes, covers = heard.embeddings.float().chunk(2)
    found = contrast(mixes, covers, batch.classes, recipe.temperature)
    target = torch.where(batch.classes >= 0, batch.classes, NO_MELODY)
    named = F.cross_entropy(heard.pitch_logits.float().flatten(0, 1), torch.cat([target, target]).flatten())
    return found + recipe.pitch_weight * named, {"contrast": found.item(), "pitch": named.item()}


@torch.inference_mode()
def embed_all(model: MelodyEncoder, spectra: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors [B, U, D] and pitch logits [B, T, 13] of many spectra."""
    parts = [model(spectra[start : start + 16]) for start in range(0, len(spectra), 16)]
    return torch.cat([p.embeddings for p in parts]), torch.cat([p.pitch_logits for p in parts])


def retrieval(queries: Tensor, items: Tensor) -> float:
    """Share of queries [B, U, D] whose own item is the nearest over all seconds together."""
    similarity = queries.flatten(1) @ items.flatten(1).T
    return float((similarity.argmax(1) == torch.arange(len(similarity))).float().mean())


def validate(model: MelodyEncoder, batch: Batch) -> dict[str, float]:
    """Retrieval of clips by their covers, and how often the melody's pitch class is named in the clip."""
    model.eval()
    mixes, logits = embed_all(model, batch.mixes)
    covers, _ = embed_all(model, batch.covers)
    model.train()
    sounding = batch.classes >= 0
    named = logits[..., :NUM_PITCH_CLASSES].argmax(-1)[sounding] == batch.classes[sounding]
    return {
        "recall_at_1": retrieval(covers, mixes),
        "pitch_accuracy": float(named.float().mean()),
        "same_second": float((mixes * covers).sum(-1).mean()),
    }


def place_codes(model: MelodyEncoder, pairs: Pairs) -> None:
    """k-means on both sides of the training pairs."""
    model.eval()
    spectra = np.concatenate([pairs.mixes, pairs.covers[:, 0]])
    vectors = torch.cat(
        [
            embed_all(model, torch.from_numpy(spectra[start : start + 64].astype(np.float32) / 255))[0].flatten(0, 1)
            for start in range(0, len(spectra), 64)
        ]
    )
    model.quantizer.initialise(vectors[None])


def export(model: MelodyEncoder, recipe: Recipe, run: Path, training: dict[str, Any], score: str) -> None:
    """Write the encoder in half precision."""
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    weights.write(
        run / "export" / recipe.name,
        tensors,
        name=recipe.name,
        architecture=ARCHITECTURE,
        config=dataclasses.asdict(model.config),
        licence=recipe.licence,
        score=score,
        training=training,
    )


def train(recipe: Recipe, pairs_folder: Path, run: Path) -> None:
    """Train, place the codes of the best step, export."""
    torch.manual_seed(recipe.seed)
    random = np.random.default_rng(recipe.seed)
    pairs, valid = Pairs(pairs_folder, "train"), Pairs(pairs_folder, "valid").first(200)
    model = MelodyEncoder(MelodyEncoderConfig(**recipe.model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    state = checkpoint.load(run / "state.pt")
    best: dict[str, Any] = {"recall_at_1": -1.0}
    budget = Budget(recipe.minutes, max_steps=recipe.max_steps)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        best = state["best"]
        budget = Budget(recipe.minutes, max_steps=recipe.max_steps, elapsed_s=state["elapsed_s"], step=state["step"])
        random = np.random.default_rng([recipe.seed, budget.step])
    log, averages, validated = RunLog(run), Averages(), time.monotonic()
    log.write({"clips": len(pairs), "parameters": sum(p.numel() for p in model.parameters())})
    for step in budget.steps():
        rate = learning_rate(recipe.learning_rate, step, budget.progress, warmup_steps=recipe.warmup_steps)
        averages.add(_step(model, optimizer, pairs.draw(recipe.batch_size, random), recipe, rate))
        if (step + 1) % recipe.log_every == 0:
            log.write({"step": step + 1, "elapsed_s": budget.elapsed_s, **averages.take()})
        if time.monotonic() - validated >= recipe.validate_every_s:
            best = _keep_best(model, valid, best, step + 1, log)
            _save(run, model, optimizer, best, budget)
            validated = time.monotonic()
    best = _keep_best(model, valid, best, budget.step, log)
    model.load_state_dict(best["model"])
    place_codes(model, pairs)
    training = {"recipe": "train_melody.py", "steps": best["step"], "minutes": recipe.minutes, "clips": len(pairs)}
    export(model, recipe, run, training, f"{best['recall_at_1']:.3f} recall at 1 of {len(valid.mixes)} valid clips")


def _step(
    model: MelodyEncoder, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe, rate: float
) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss, parts = losses(model, batch, recipe)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return parts


def _keep_best(model: MelodyEncoder, valid: Batch, best: dict[str, Any], step: int, log: RunLog) -> dict[str, Any]:
    found = validate(model, valid)
    log.write({"step": step, **{f"valid_{name}": value for name, value in found.items()}})
    if found["recall_at_1"] < best["recall_at_1"]:
        return best
    return {**found, "step": step, "model": {k: v.detach().clone() for k, v in model.state_dict().items()}}


def _save(
    run: Path, model: MelodyEncoder, optimizer: torch.optim.Optimizer, best: dict[str, Any], budget: Budget
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": best,
        "elapsed_s": budget.elapsed_s,
        "step": budget.step,
    }
    checkpoint.save(run / "state.pt", state)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    recipe = Recipe(**tomllib.loads(args.config.read_text()))
    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1) + "\n")
    train(recipe, args.pairs, args.run)


if __name__ == "__main__":
    main()
