"""Train `OnsetsFrames` on the piano corpus and export the best checkpoint by validation.

`python services/transcriber/recipes/train_transcriber.py --config services/transcriber/recipes/onsets_frames.toml
--corpus corpus/piano --run runs/onsets_frames`

A step: B windows of clips drawn by their length, each recorded anew (`piano_clips.py`), and the sum of the binary
cross-entropies of onsets, offsets and frames, and of velocities where a note begins. The weights that are validated and
exported are a running average. Validation: the beginnings of all files of the held-out piano of MAPS and of renders of
held-out compositions, by note F1 at 50 ms. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from note_scores import NoteScore, score_notes
from piano_clips import Clip, Targets, list_clips, notes_within, read_window, recorded, retuned, targets_of
from stretto_shared import weights
from stretto_shared.training import checkpoint
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from stretto_transcriber.models.notes import Notes
from stretto_transcriber.models.onsets_frames import Heads, NoteDecoder, OnsetsFrames, OnsetsFramesConfig
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Recipe:
    """One training run, as its TOML file states it."""

    name: str
    licence: str
    minutes: float
    batch_size: int
    window_s: float
    learning_rate: float
    max_steps: int = 0
    warmup_steps: int = 50
    weight_decay: float = 0.01
    offset_weight: float = 0.5
    frame_weight: float = 0.5
    velocity_weight: float = 0.1
    maps_share: float = 0.35
    augmented_share: float = 0.85
    retuned_semitones: float = 0.3
    average_decay: float = 0.998
    validate_every_s: float = 600.0
    valid_s: float = 30.0
    num_valid_clips: int = 30
    log_every: int = 25
    bf16: bool = True
    seed: int = 0
    model: dict[str, Any] = field(default_factory=dict)


def losses(heads: Heads, targets: Targets) -> dict[str, Tensor]:
    """Means over all cells, of velocity over those where a note begins."""
    bce = F.binary_cross_entropy_with_logits
    found = {
        "onset": bce(heads.onset.float(), targets.onset),
        "frame": bce(heads.frame.float(), targets.frame),
        "velocity": bce(heads.velocity.float()[targets.is_struck], targets.velocity[targets.is_struck])
        if targets.is_struck.any()
        else heads.velocity.float().sum() * 0.0,
    }
    if heads.offset is not None:
        found["offset"] = bce(heads.offset.float(), targets.offset)
    return found


class Batches:
    """Windows of the training clips, recorded anew."""

    def __init__(self, folder: Path, recipe: Recipe, config: OnsetsFramesConfig, step: int) -> None:
        self.recipe, self.config = recipe, config
        self.clips = list_clips(folder)
        if not self.clips:
            raise ValueError(f"{folder}: expected clips (NAME.wav with NAME.npy). Run render_piano.py first.")
        self.random = np.random.default_rng((recipe.seed, step))
        is_maps = np.array([clip.path.stem.startswith("MAPS") for clip in self.clips])
        lengths = np.array([clip.num_samples for clip in self.clips], np.float64)
        share = np.where(is_maps, recipe.maps_share, 1 - recipe.maps_share) if is_maps.any() else np.ones(len(lengths))
        for kind in (is_maps, ~is_maps):
            lengths[kind] *= share[kind] / max(1.0, lengths[kind].sum())
        self.chances = lengths / lengths.sum()
        self.num_frames = round(recipe.window_s * config.frame_rate_hz)

    def draw(self) -> tuple[Tensor, Targets]:
        """Audio [B, S] and what its heads should say [B, T, 88]."""
        chosen = self.random.choice(len(self.clips), self.recipe.batch_size, p=self.chances)
        windows = [self._window(self.clips[index]) for index in chosen]
        stacked = [
            torch.stack([getattr(targets, f.name) for _, targets in windows]) for f in dataclasses.fields(Targets)
        ]
        return torch.from_numpy(np.stack([audio for audio, _ in windows])), Targets(*stacked)

    def _window(self, clip: Clip) -> tuple[np.ndarray, Targets]:
        random, recipe, config = self.random, self.recipe, self.config
        length = self.num_frames * config.hop_length
        start = int(random.integers(-config.sample_rate_hz, max(1, clip.num_samples - length // 2)))
        audio = read_window(clip, start, length)
        notes = notes_within(clip, start / config.sample_rate_hz, length / config.sample_rate_hz)
        if random.random() < recipe.augmented_share:
            if random.random() < 0.5 and recipe.retuned_semitones:
                audio = retuned(audio, notes, random, recipe.retuned_semitones)
            audio = recorded(audio, random)
        return audio, targets_of(notes, self.num_frames, config)


@torch.inference_mode()
def heard_notes(model: OnsetsFrames, audio: np.ndarray, config: OnsetsFramesConfig) -> Notes:
    """Notes of samples [S], all in one window."""
    hop = config.hop_length
    padded = torch.from_numpy(np.pad(audio, (0, -len(audio) % hop)))[None]
    with torch.autocast("cpu", torch.bfloat16):
        heads = model(model.features(padded))
    decoder = NoteDecoder(config)
    return Notes.joined([decoder.push(heads.stacked()[0].numpy()), decoder.flush()])


def beginnings(folder: Path, seconds: float, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The beginnings of up to `count` clips, every so many of all, with the notes that begin in them."""
    clips = list_clips(folder)
    chosen = [clips[index] for index in np.linspace(0, len(clips) - 1, min(count, len(clips))).astype(int)]
    found = []
    for clip in chosen:
        audio = read_window(clip, 0, round(seconds * 16_000))
        found.append((audio, clip.notes[clip.notes[:, 0] < seconds - 0.1].astype(np.float64)))
    return found


class Trainer:
    """Model, running average, optimiser and data of one run."""

    def __init__(self, recipe: Recipe, corpus: Path, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.corpus, self.folder = recipe, corpus, folder
        self.config = OnsetsFramesConfig(**recipe.model)
        self.model = OnsetsFrames(self.config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, recipe.learning_rate, (0.9, 0.98))
        self.valid = beginnings(corpus / "valid", recipe.valid_s, recipe.num_valid_clips)
        self.log, self.best = RunLog(folder), -1.0
        self.reread(0)

    def reread(self, step: int) -> None:
        """Begin the random choices that follow `step`, from what the corpus has by now."""
        self.batches = Batches(self.corpus / "train", self.recipe, self.config, step)
        hours = sum(clip.num_samples for clip in self.batches.clips) / 16_000 / 3600
        print(f"{len(self.batches.clips)} training clips, {hours:.2f} h; {len(self.valid)} for validation", flush=True)

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One optimiser step."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe.learning_rate, step, progress, warmup_steps=recipe.warmup_steps)
        audio, targets = self.batches.draw()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            with torch.no_grad():
                features = self.model.features(audio)
            heads = self.model.logits(features)
        found = losses(heads, targets)
        shares = {"onset": 1.0, "offset": recipe.offset_weight, "frame": recipe.frame_weight}
        shares["velocity"] = recipe.velocity_weight
        loss = torch.stack([shares[name] * value for name, value in found.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._follow(min(recipe.average_decay, (step + 1) / (step + 10)))
        return {**{name: float(value.detach()) for name, value in found.items()}, "grad": float(norm)}

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        for kept, new in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)

    def validate(self, budget: Budget) -> None:
        """Score the running average, and export it if it is the best so far."""
        scores = [score_notes(heard_notes(self.average, audio, self.config), notes) for audio, notes in self.valid]
        means = summary(scores)
        self.log.write({"step": budget.step, "minutes": budget.elapsed_s / 60, **means})
        if means["valid_f1"] > self.best:
            self.best = means["valid_f1"]
            training = {"minutes": round(budget.elapsed_s / 60, 1), "steps": budget.step}
            training |= {name: round(value, 4) for name, value in means.items()}
            write(self.average, self.folder / "export" / self.recipe.name, self.recipe, training)

    def save(self, budget: Budget) -> None:
        """Keep what a restart needs."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "elapsed_s": budget.elapsed_s,
            "step": budget.step,
            "best": self.best,
        }
        checkpoint.save(self.folder / "state.pt", state)

    def resume(self) -> Budget:
        """The budget that is left, after reading back what `save` kept, if anything."""
        recipe, state = self.recipe, checkpoint.load(self.folder / "state.pt")
        if state is None:
            return Budget(recipe.minutes, max_steps=recipe.max_steps)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        self.reread(state["step"] + 1)
        return Budget(recipe.minutes, max_steps=recipe.max_steps, elapsed_s=state["elapsed_s"], step=state["step"] + 1)


def summary(scores: list[NoteScore]) -> dict[str, float]:
    """Means over clips, and the middle of the onsets' errors."""
    errors = np.concatenate([score.onset_errors_s for score in scores] or [np.zeros(0)])
    means = {
        f"valid_{name}": float(np.mean([getattr(score, name) for score in scores]))
        for name in ("f1", "precision", "recall", "offset_f1", "velocity_error")
    }
    return {**means, "valid_bias_ms": float(1000 * np.median(errors)) if len(errors) else 0.0}


def write(model: OnsetsFrames, folder: Path, recipe: Recipe, training: dict[str, Any]) -> str:
    """Write the servable checkpoint, in half precision."""
    tensors = {name: value.half() for name, value in model.state_dict().items() if value.dtype.is_floating_point}
    return weights.write(
        folder,
        tensors,
        name=recipe.name,
        architecture="OnsetsFrames",
        config=dataclasses.asdict(model.config),
        licence=recipe.licence,
        score="",
        training=training,
    )


def run(trainer: Trainer) -> None:
    """Train until the budget is used."""
    recipe, budget = trainer.recipe, trainer.resume()
    averages, validated, last = Averages(), time.monotonic(), False
    trainer.model.train()
    while not last:
        step, progress = budget.step, budget.progress
        last = progress >= 1.0 or bool(recipe.max_steps and step + 1 >= recipe.max_steps)
        averages.add(trainer.step(step, progress))
        if step % recipe.log_every == 0 or last:
            trainer.log.write({"step": step, "minutes": budget.elapsed_s / 60, **averages.take()})
        if last or time.monotonic() - validated > recipe.validate_every_s:
            trainer.save(budget)
            trainer.validate(budget)
            trainer.reread(step + 1)
            validated = time.monotonic()
        budget.step += 1


def read_recipe(path: Path) -> Recipe:
    """Read a TOML file; an unknown key is an error."""
    with path.open("rb") as file:
        return Recipe(**tomllib.load(file))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file beside this one")
    parser.add_argument("--corpus", type=Path, required=True, help="what render_piano.py wrote")
    parser.add_argument("--run", type=Path, required=True, help="folder for the log, the state and the export")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run(Trainer(read_recipe(args.config), args.corpus, args.run))


if __name__ == "__main__":
    main()
