"""Train the `ReleaseNetwork` of a trained transcriber, and write its checkpoint anew with it.

`python services/transcriber/recipes/train_releases.py --config services/transcriber/recipes/releases.toml --weights
services/transcriber/weights/onsets_frames --heard corpus/piano_heard --run runs/releases`

It learns from what the transcriber heard of the corpus (`hear_piano.py`): of each note that was found, when its key and
its sound end by the labels. A step: B notes, those of MAPS and of piano-midi.de, from which MAPS plays, drawn more or
less often, some of them faded sooner than they were heard to, all of them slowed down or sped up; the sum of the losses
of both hazards. The kept weights are a running average, of the step with the least mean loss of both kinds of
validation clips, notated and played: a mean over all notes hides what is forgotten of one kind while the other is
learned. No title of MAPS and piano-midi.de among those clips is in the training, in whatever edition; a work that
ASAP has, too, may be there as somebody else plays it. `choose_levels.py` then chooses the levels. A run that was
stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import re
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from heard_notes import NoteDeck, is_of_maps, read_clips
from stretto_shared import weights
from stretto_shared.training import checkpoint
from stretto_shared.training.loop import Budget, RunLog, learning_rate
from stretto_transcriber.models.onsets_frames import OnsetsFramesConfig
from stretto_transcriber.models.onsets_frames.releases import (
    BEFORE,
    KEY,
    LASTS,
    OWN_FRAME,
    OWN_KEY,
    SOUND,
    STRIDE,
    ReleaseNetwork,
    hazard_loss,
)
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """One training run, as its TOML file states it."""

    channels: int
    minutes: float
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    average_decay: float = 0.998
    maps_weight: float = 1.0
    faded_share: float = 0.0
    most_slower: float = 1.0
    validate_every_s: float = 300.0
    num_valid_notes: int = 6000
    log_every: int = 200
    seed: int = 0


def title_of(name: str) -> str:
    """The title of a clip of MAPS or piano-midi.de, its edition left out; or its whole name."""
    stem = name.removesuffix("_room")
    found = re.fullmatch(r"MAPS_MUS-(.*)_[A-Za-z]+", stem) or re.fullmatch(r".*pianomidi_(.*)", stem)
    return re.sub(r"[-_]format\d|^god_", "", found.group(1)) if found else stem


def paths_of(heard: Path) -> tuple[list[Path], list[Path]]:
    """The clips to learn from and those to validate on; no title is in both.

    Raises:
        ValueError: If there are none.
    """
    train, valid = (sorted(heard.glob(f"{split}/*.npz")) for split in ("train", "valid"))
    held_out = {title_of(path.stem) for path in valid}
    train = [path for path in train if title_of(path.stem) not in held_out]
    if not train or not valid:
        raise ValueError(f"{heard}: expected train/NAME.npz and valid/NAME.npz. Run hear_piano.py first.")
    return train, valid


def faded(given: Tensor, ends: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """Notes as they are told [N, T, C], some of them faded before their keys are up.

    A sampled piano is heard to the last, a grand piano in a hall often is not. From some moment before its key's end,
    by `ends` [N, 2], at most half of what was heard of a note is left.
    """
    count, device = len(given), given.device
    chosen, place, left = (torch.from_numpy(random.random(count)).float().to(device) for _ in range(3))
    since = torch.arange(given.shape[1], device=device) - BEFORE // STRIDE  # steps after the onset
    fades = place * ends[:, KEY]
    rest = torch.where((chosen < share)[:, None] & (since[None] >= fades[:, None]), 0.5 * left[:, None], 1.0)  # [N, T]
    told = given.clone()
    told[..., [OWN_KEY, OWN_FRAME]] *= rest[..., None]
    told[..., LASTS] = torch.where(rest < 1.0, 0.0, told[..., LASTS])
    return told


def losses(network: ReleaseNetwork, given: Tensor, ends: Tensor) -> Tensor:
    """Of keys and of sounds [2]."""
    with torch.autocast(given.device.type, torch.bfloat16, enabled=network.training):
        logits = network(given).float()
    return torch.stack([hazard_loss(logits[..., column], ends[:, column]) for column in (KEY, SOUND)])


class Trainer:
    """Network, running average, optimiser and data of one run."""

    def __init__(
        self, recipe: Recipe, config: OnsetsFramesConfig, heard: Path, folder: Path, device: torch.device, jobs: int
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        started = time.monotonic()
        train, valid = (read_clips(paths, config, jobs) for paths in paths_of(heard))
        self.network = ReleaseNetwork(recipe.channels).to(device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.deck, self.valid = NoteDeck(train, recipe.maps_weight, device), {}
        for kind, is_notated in (("notated", True), ("played", False)):
            if some := [clip for clip in valid if is_of_maps(clip.name) == is_notated]:
                places = (np.arange(recipe.num_valid_notes) + 0.5) / recipe.num_valid_notes
                parts = np.array_split(places, max(1, len(places) // 250))
                watched = NoteDeck(some, 1.0, device)
                self.valid[kind] = [watched.batch(part) for part in parts]
        print(f"{len(train)} clips, {len(self.deck)} notes, {time.monotonic() - started:.0f} s", flush=True)
        self.log, self.best = RunLog(folder), float("inf")

    def step(self, step: int, progress: float) -> Tensor:
        """One optimiser step; both losses."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe.learning_rate, step, progress, warmup_steps=recipe.warmup_steps)
        random = np.random.default_rng((recipe.seed, step))
        places, slower = random.random(recipe.batch_size), random.uniform(-1.0, 1.0, recipe.batch_size)
        given, ends = self.deck.batch(places, recipe.most_slower**slower if recipe.most_slower > 1.0 else None)
        found = losses(self.network, faded(given, ends, recipe.faded_share, random), ends)
        self.optimizer.zero_grad(set_to_none=True)
        found.sum().backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        decay = min(recipe.average_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for kept, new in pairs:
                kept.lerp_(new, 1 - decay)
        return found.detach()

    @torch.inference_mode()
    def validate(self, budget: Budget) -> None:
        """The average's losses on the validation notes of each kind; the best is kept."""
        of_kinds = {
            kind: torch.stack([losses(self.average, *batch) for batch in batches]).mean(0)
            for kind, batches in self.valid.items()
        }
        found = torch.stack([*of_kinds.values()]).mean(0)
        means = {"valid_key": float(found[KEY]), "valid_sound": float(found[SOUND])}
        for kind, of_kind in of_kinds.items():
            means |= {f"valid_{kind}_key": float(of_kind[KEY]), f"valid_{kind}_sound": float(of_kind[SOUND])}
        self.log.write({"step": budget.step, "minutes": budget.elapsed_s / 60, **means})
        state: dict[str, Any] = {"network": self.network.state_dict(), "average": self.average.state_dict()}
        if (reached := float(found.sum())) < self.best:
            self.best = reached
            checkpoint.save(self.folder / "best.pt", {"average": state["average"], "step": budget.step})
        state |= {"optimizer": self.optimizer.state_dict(), "best": self.best}
        checkpoint.save(self.folder / "state.pt", state | {"elapsed_s": budget.elapsed_s, "step": budget.step})

    def resume(self) -> Budget:
        """The budget that is left, after reading back what `validate` kept, if anything."""
        state = checkpoint.load(self.folder / "state.pt")
        if state is None:
            return Budget(self.recipe.minutes)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        return Budget(self.recipe.minutes, elapsed_s=state["elapsed_s"], step=state["step"] + 1)

    def run(self) -> None:
        """Train until the budget is used."""
        budget, sums, validated, last = self.resume(), [], time.monotonic(), False
        while not last:
            step, progress = budget.step, budget.progress
            last = progress >= 1.0
            sums.append(self.step(step, progress))
            if (step + 1) % self.recipe.log_every == 0:
                key, sound = torch.stack(sums).mean(0).tolist()
                self.log.write({"step": step, "minutes": budget.elapsed_s / 60, "key": key, "sound": sound})
                sums = []
            if last or time.monotonic() - validated > self.recipe.validate_every_s:
                self.validate(budget)
                validated = time.monotonic()
            budget.step += 1


def write(base: Path, folder: Path, out: Path, channels: int) -> None:
    """The checkpoint `base` with the best network of a run, in half precision."""
    resolved = weights.resolve("default", name=base.name, default_dir=base.parent)
    best = checkpoint.load(folder / "best.pt")
    if best is None:
        raise ValueError(f"{folder}: expected best.pt. Train first.")
    kept = {k: v for k, v in weights.load_tensors(resolved).items() if not k.startswith("releases.")}
    learned = {f"releases.{name}": value.half().cpu() for name, value in best["average"].items()}
    stored = resolved.config
    weights.write(
        out,
        kept | learned,
        name=base.name,
        architecture=stored["architecture"],
        config={**stored["config"], "release_channels": channels},
        licence=stored["licence"],
        score=stored["score"],
        training={**stored["training"], "release_steps": best["step"]},
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file beside this one")
    parser.add_argument("--weights", type=Path, required=True, help="the transcriber's folder")
    parser.add_argument("--heard", type=Path, required=True, help="what hear_piano.py wrote with those weights")
    parser.add_argument("--run", type=Path, required=True, help="folder for the log, the state and the export")
    parser.add_argument("--minutes", type=float, help="another budget than the recipe's")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--jobs", type=int, default=1, help="processes that read what was heard")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe(**tomllib.loads(args.config.read_text()))
    if args.minutes is not None:
        recipe = dataclasses.replace(recipe, minutes=args.minutes)
    if recipe.most_slower < 1.0:
        parser.error(f"{args.config}: most_slower: expected 1 or more, got {recipe.most_slower:g}.")
    resolved = weights.resolve("default", name=args.weights.name, default_dir=args.weights.parent)
    config, device = OnsetsFramesConfig(**resolved.config["config"]), torch.device(args.device)
    Trainer(recipe, config, args.heard, args.run, device, args.jobs).run()
    write(args.weights, args.run, args.run / "export" / args.weights.name, recipe.channels)


if __name__ == "__main__":
    main()
