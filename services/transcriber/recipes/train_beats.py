"""Train a beat tracker: `services/transcriber/recipes/train_beats.py --config beats.toml --excerpts DIR --run DIR`.

The excerpts are those of `prepare_beats.py`, as they are or packed by `pack_beats.py`. Each row of a batch is a stretch
of one, its spectrum moved and masked. Beats, downbeats and onsets have a binary cross-entropy each that tolerates a
shift, as in Beat This!: at a beat the highest logit within a few frames counts, and just beside it none. The budget is
wall time; a run resumes from its folder; the step that decodes the validation excerpts best is exported.
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
from pack_beats import BEAT, DOWNBEAT, ONSET, read_shards, spectra
from stretto_shared import weights
from stretto_shared.training import checkpoint
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from stretto_transcriber.models.beat_tracker.config import BeatTrackerConfig
from stretto_transcriber.models.beat_tracker.decoding import detect_onsets, track_beats
from stretto_transcriber.models.beat_tracker.features import LOG_SCALE
from stretto_transcriber.models.beat_tracker.network import BeatTracker, Spectra
from stretto_transcriber.models.beat_tracker.weights import ARCHITECTURE
from torch import Tensor, nn
from torch.nn import functional as F

FLAGS = (BEAT, DOWNBEAT, ONSET)
TOLERANCES = (2, 2, 1)  # frames
POSITIVE_WEIGHTS = (2.0, 4.0, 1.5)
HEAD_WEIGHTS = (1.0, 2.0, 0.5)
BEAT_WINDOW_S, ONSET_WINDOW_S = 0.07, 0.05
SCORES = ("beat_f", "downbeat_f", "onset_f", "numerator")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One TOML file."""

    name: str
    licence: str
    minutes: float
    model: dict[str, Any]
    max_steps: int = 0
    batch_size: int = 8
    num_frames: int = 1_500
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    validate_every_s: float = 240.0
    log_every: int = 50
    bf16: bool = True
    seed: int = 0


class Excerpts:
    """All excerpts of one split, in the memory of the device that learns."""

    def __init__(self, folder: Path, split: str, device: str = "cpu") -> None:
        shards = read_shards(folder, split)
        self.mel = torch.from_numpy(np.concatenate([shard["mel"] for shard in shards])).to(device)  # [N, T, M]
        self.pitches = torch.from_numpy(np.concatenate([shard["pitches"] for shard in shards])).to(device)  # [N, C, P]
        self.pitch_frames = -(-self.mel.shape[1] // self.pitches.shape[1])
        self.targets = torch.from_numpy(np.concatenate([shard["targets"] for shard in shards])).to(device)
        self.beats = []
        self.sources = [str(name) for shard in shards for name in shard.get("sources", ["?"] * len(shard["mel"]))]
        for shard in shards:
            rows = shard["beats"]
            self.beats += [rows[rows[:, 0] == n, 1:] for n in range(len(shard["mel"]))]

    def __len__(self) -> int:
        return len(self.mel)

    def spectra(self, row: int) -> Spectra:
        """One excerpt as it was heard, in a batch of one."""
        return Spectra(spectra(self.mel[row])[None], spectra(self.pitches[row])[None])

    def draw(self, size: int, num_frames: int, random: torch.Generator) -> tuple[Spectra, Tensor]:
        """Stretches of spectra [B, T, M] and [B, C, P], varied, and their flags [B, T]."""
        rows = torch.randint(len(self), (size, 1), generator=random, device=random.device)
        num_columns = num_frames // self.pitch_frames
        last = self.pitches.shape[1] - num_columns
        first = torch.randint(last + 1, (size, 1), generator=random, device=random.device)
        columns = first + torch.arange(num_columns, device=random.device)
        frames = first * self.pitch_frames + torch.arange(num_columns * self.pitch_frames, device=random.device)
        mel, pitches = spectra(self.mel[rows, frames]), spectra(self.pitches[rows, columns])
        return Spectra(varied(mel, random), transposed(coloured(pitches, random), random)), self.targets[rows, frames]


def coloured(stored: Tensor, random: torch.Generator) -> Tensor:
    """Spectrograms [B, T, M] with another colour and level, over noise."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((len(stored), 1, 1), generator=random, device=stored.device)

    magnitude = torch.expm1(stored) / LOG_SCALE
    knots_db = 5 * torch.randn((len(stored), 1, 6), generator=random, device=stored.device)
    colour_db = F.interpolate(knots_db, stored.shape[2], mode="linear", align_corners=True)
    magnitude = magnitude * 10 ** ((colour_db + uniform(-12, 12)) / 20)
    noise = 10 ** (uniform(-100, -60) / 20)
    magnitude = magnitude + noise * torch.rand(stored.shape, generator=random, device=stored.device)
    return torch.log1p(LOG_SCALE * magnitude)


def transposed(pitches: Tensor, random: torch.Generator) -> Tensor:
    """Semitones [B, C, P] moved by up to six; what comes in from beyond is silent."""
    batch, _, num_pitches = pitches.shape
    moves = torch.randint(-6, 7, (batch, 1, 1), generator=random, device=pitches.device)
    source = torch.arange(num_pitches, device=pitches.device) - moves
    moved = pitches.gather(2, source.clamp(0, num_pitches - 1).expand_as(pitches))
    return moved.masked_fill((source < 0) | (source >= num_pitches), 0.0)


def varied(mel: Tensor, random: torch.Generator) -> Tensor:
    """Spectrograms [B, T, M] with another colour and level, over noise, moved by bands, with stretches masked."""
    batch, num_frames, num_bands = mel.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((batch, 1, 1), generator=random, device=mel.device)

    varied_mel = coloured(mel, random)
    band = torch.arange(num_bands, device=mel.device)
    source = band - uniform(-2.5, 2.5).round().long()  # [B, 1, M]
    varied_mel = varied_mel.gather(2, source.clamp(0, num_bands - 1).expand_as(mel))
    first = uniform(-num_bands, num_bands)  # below 0 in half of the rows: nothing is masked
    is_hidden = (source < 0) | (source >= num_bands) | ((first >= 0) & (band >= first) & (band < first + uniform(1, 9)))
    frame = torch.arange(num_frames, device=mel.device)[:, None]
    for _ in range(2):
        first = uniform(-num_frames, num_frames)
        is_hidden = is_hidden | ((first >= 0) & (frame >= first) & (frame < first + uniform(5, 60)))
    return varied_mel.masked_fill(is_hidden, 0.0)


def shift_tolerant_loss(logits: Tensor, flagged: Tensor, tolerance: int, positive_weight: float) -> Tensor:
    """Cross-entropy of logits [B, T] with bool flags [B, T] in which the highest within `tolerance` frames counts.

    Frames nearer to a flag than twice the tolerance, and not flagged, do not count: their highest is the flag's own.
    """

    def highest(values: Tensor, reach: int) -> Tensor:
        return F.max_pool1d(values[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]

    target = flagged.float()
    counts = target + (1 - highest(target, 2 * tolerance))
    loss = F.binary_cross_entropy_with_logits(
        highest(logits, tolerance),
        target,
        weight=counts,
        pos_weight=target.new_tensor(positive_weight),
        reduction="sum",
    )
    return loss / counts.sum()


def losses(model: BeatTracker, batch: Spectra, targets: Tensor, recipe: Recipe) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and its parts."""
    with torch.autocast(targets.device.type, torch.bfloat16, enabled=recipe.bf16):
        heard = model.logits(batch)
    heads = (heard.beat.float(), heard.downbeat.float(), heard.onset.float())
    parts = [
        shift_tolerant_loss(logits, (targets & flag) > 0, tolerance, weight)
        for logits, flag, tolerance, weight in zip(heads, FLAGS, TOLERANCES, POSITIVE_WEIGHTS)
    ]
    total = torch.stack([weight * part for weight, part in zip(HEAD_WEIGHTS, parts)]).sum()
    return total, {name: part.detach() for name, part in zip(("beat", "downbeat", "onset"), parts)}


def f_measure(found_s: np.ndarray, true_s: np.ndarray, window_s: float) -> float:
    """Both sorted, each matched once at most; 0 where either is empty."""
    if not len(found_s) or not len(true_s):
        return 0.0
    found = true = hits = 0
    while found < len(found_s) and true < len(true_s):
        distance_s = found_s[found] - true_s[true]
        if abs(distance_s) <= window_s:
            hits, found, true = hits + 1, found + 1, true + 1
        elif distance_s < 0:
            found += 1
        else:
            true += 1
    return 2 * hits / (len(found_s) + len(true_s))


@torch.inference_mode()
def excerpt_scores(model: BeatTracker, excerpts: Excerpts) -> np.ndarray:
    """F-measures of each decoded excerpt, and whether its metre is named [N, 4], in the order of `SCORES`."""
    model.eval()
    rate_hz = model.config.frame_rate_hz
    scores = []
    for row, (targets, beats) in enumerate(zip(excerpts.targets, excerpts.beats)):
        heard = model(excerpts.spectra(row))
        beat, downbeat, onset = (x[0].cpu().numpy() for x in (heard.beat, heard.downbeat, heard.onset))
        found = track_beats(beat, downbeat, rate_hz)
        onset_s = np.flatnonzero(targets.cpu().numpy() & ONSET) / rate_hz
        scores.append(
            (
                f_measure(found.beat_s, beats[:, 0], BEAT_WINDOW_S),
                f_measure(found.downbeat_s, beats[beats[:, 1] == 1, 0], BEAT_WINDOW_S),
                f_measure(detect_onsets(onset, rate_hz), onset_s, ONSET_WINDOW_S),
                float(found.numerator == beats[:, 1].max()),
            )
        )
    return np.array(scores)


def validate(model: BeatTracker, excerpts: Excerpts) -> dict[str, float]:
    """Means over excerpts of `SCORES`."""
    means = excerpt_scores(model, excerpts).mean(0)
    model.train()
    return dict(zip(SCORES, (float(mean) for mean in means)))


def export(model: BeatTracker, recipe: Recipe, run: Path, training: dict[str, Any], score: str) -> None:
    """Write the tracker in half precision."""
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


def train(recipe: Recipe, folder: Path, run: Path, device: str = "cpu") -> None:
    """Train, and export the best step."""
    torch.manual_seed(recipe.seed)
    random = torch.Generator(device).manual_seed(recipe.seed)
    excerpts, valid = Excerpts(folder, "train", device), Excerpts(folder, "valid", device)
    model = BeatTracker(BeatTrackerConfig(**recipe.model)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    state = checkpoint.load(run / "state.pt")
    best: dict[str, Any] = {"score": -1.0}
    budget = Budget(recipe.minutes, max_steps=recipe.max_steps)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        best = state["best"]
        budget = Budget(recipe.minutes, max_steps=recipe.max_steps, elapsed_s=state["elapsed_s"], step=state["step"])
        random.manual_seed(recipe.seed + budget.step)
    log, averages, validated = RunLog(run), Averages(), time.monotonic()
    log.write({"excerpts": len(excerpts), "parameters": sum(p.numel() for p in model.parameters())})
    for step in budget.steps():
        rate = learning_rate(recipe.learning_rate, step, budget.progress, warmup_steps=recipe.warmup_steps)
        batch = excerpts.draw(recipe.batch_size, recipe.num_frames, random)
        averages.add(_step(model, optimizer, *batch, recipe, rate))
        if (step + 1) % recipe.log_every == 0:
            log.write({"step": step + 1, "elapsed_s": budget.elapsed_s, **averages.take()})
        if time.monotonic() - validated >= recipe.validate_every_s:
            best = _keep_best(model, valid, best, step + 1, log)
            _save(run, model, optimizer, best, budget)
            validated = time.monotonic()
    best = _keep_best(model, valid, best, budget.step, log)
    model.load_state_dict(best["model"])
    training = {"recipe": "train_beats.py", "steps": best["step"], "minutes": recipe.minutes, "excerpts": len(excerpts)}
    words = ", ".join(f"{name} {best[name]:.3f}" for name in SCORES)
    export(model, recipe, run, training, f"{words} on {len(valid)} validation excerpts")


def _step(
    model: BeatTracker, optimizer: torch.optim.Optimizer, batch: Spectra, targets: Tensor, recipe: Recipe, rate: float
) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss, parts = losses(model, batch, targets, recipe)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return parts


def _keep_best(model: BeatTracker, valid: Excerpts, best: dict[str, Any], step: int, log: RunLog) -> dict[str, Any]:
    found = validate(model, valid)
    log.write({"step": step, **{f"valid_{name}": value for name, value in found.items()}})
    score = found["beat_f"] + found["downbeat_f"] + 0.5 * found["onset_f"]
    if score < best["score"]:
        return best
    kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return {**found, "score": score, "step": step, "model": kept}


def _save(
    run: Path, model: BeatTracker, optimizer: torch.optim.Optimizer, best: dict[str, Any], budget: Budget
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
    parser.add_argument("--excerpts", type=Path, required=True, help="folder of prepare_beats.py")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="in place of the configuration's")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    recipe = Recipe(**tomllib.loads(args.config.read_text()))
    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1) + "\n")
    if args.minutes is not None:
        recipe = dataclasses.replace(recipe, minutes=args.minutes)
    train(recipe, args.excerpts, args.run, args.device)


if __name__ == "__main__":
    main()
