"""Train `OnsetsFrames` on the piano corpus and export the best checkpoint by validation.

`python services/transcriber/recipes/train_transcriber.py --config services/transcriber/recipes/onsets_frames.toml
--corpus corpus/piano --run runs/onsets_frames [--device cuda] [--minutes 6] [--start EXPORT]`

A step: B windows of clips drawn by their length, each recorded anew (`piano_recording.py`), and the sum of the binary
cross-entropies of onsets, offsets, frames and keys, and of velocities where a note begins. The corpus lies in the
device's memory, and what is done for each step is done there for the whole batch. The weights that are validated and
exported are a running average. Validation: the beginnings of files of the held-out piano of MAPS and of renders of
held-out compositions, each as it is and recorded in a room, by note F1 at 50 ms and, at a third of its weight each, F1
with the ends of sounds and of keys and F1 of frames by either. A run that was stopped goes on where it was; one that is
given an export to start from goes on from its weights, and a recipe may say which of them alone are trained.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from note_scores import NoteScore, score_notes
from numpy.typing import NDArray
from piano_clips import SAMPLE_RATE_HZ, ClipMemory, Targets, list_clips, read_beginning, targets_of
from piano_recording import Dice, recorded
from stretto_shared import weights
from stretto_shared.training import checkpoint
from stretto_shared.training.loop import Budget, RunLog, learning_rate
from stretto_transcriber.models.notes import NoteEnds, Notes
from stretto_transcriber.models.onsets_frames import (
    Heads,
    OnsetsFrames,
    OnsetsFramesConfig,
    build_onsets_frames,
    decoder_of,
)
from stretto_transcriber.models.onsets_frames.release_decoding import Reader
from torch import Tensor, nn
from torch.nn import functional as F

END_SHARE = 1 / 3
"""What F1 with ends, of sounds or of keys, and F1 of frames by either count beside note F1."""

OF_RELEASES = ("release_channels", "key_level", "sound_level")
"""What a run that starts from an export keeps of its configuration: `train_releases.py` is who changes it."""

ENDS = ("valid_offset_f1", "valid_key_f1", "valid_frame_f1", "valid_key_frame_f1")


@dataclass(frozen=True)
class Recipe:
    """One training run, as its TOML file states it.

    `trained`: prefixes of the parts that are trained, as "network.sustain_branch"; the others stay as they are, their
    batch norms included. None for all.
    """

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
    key_weight: float = 0.5
    velocity_weight: float = 0.1
    maps_share: float = 0.35
    augmented_share: float = 0.85
    retuned_semitones: float = 0.3
    retuned_share: float = 0.4
    average_decay: float = 0.998
    validate_every_s: float = 600.0
    valid_s: float = 30.0
    num_valid_clips: int = 30
    log_every: int = 25
    bf16: bool = True
    seed: int = 0
    trained: tuple[str, ...] = ()
    model: dict[str, Any] = field(default_factory=dict)


def losses(heads: Heads, targets: Targets) -> dict[str, Tensor]:
    """Means over all cells, of velocity over those where a note begins."""
    bce = F.binary_cross_entropy_with_logits
    struck = targets.is_struck.float()
    velocity = bce(heads.velocity.float(), targets.velocity, weight=struck, reduction="sum")
    found = {
        "onset": bce(heads.onset.float(), targets.onset),
        "frame": bce(heads.frame.float(), targets.frame),
        "velocity": velocity / struck.sum().clamp(min=1.0),
    }
    if heads.offset is not None:
        found["offset"] = bce(heads.offset.float(), targets.offset)
    if heads.key is not None:
        found["key"] = bce(heads.key.float(), targets.key)
    return found


class Batches:
    """Windows of the training clips, recorded anew, on their device."""

    def __init__(self, folder: Path, recipe: Recipe, config: OnsetsFramesConfig, device: torch.device) -> None:
        self.recipe, self.config = recipe, config
        clips = list_clips(folder)
        if not clips:
            raise ValueError(f"{folder}: expected clips (NAME.wav with NAME.npy). Run render_piano.py first.")
        started = time.monotonic()
        self.memory = ClipMemory(clips, device, num_threads=len(os.sched_getaffinity(0)))
        chances = _chances([clip.path.stem for clip in clips], self.memory, recipe)
        self.reached = torch.from_numpy(np.cumsum(chances)[:-1]).to(device)  # of a number from 0 to 1, by each clip
        self.num_frames = round(recipe.window_s * config.frame_rate_hz)
        self.generator = torch.Generator(device)
        hours = float(self.memory.lengths.sum()) / SAMPLE_RATE_HZ / 3600
        print(f"{len(clips)} training clips, {hours:.2f} h, read in {time.monotonic() - started:.0f} s", flush=True)

    def draw(self, step: int) -> tuple[Tensor, Targets]:
        """Audio [B, S] and what its heads should say [B, T, 88], of step `step`."""
        recipe, config, memory = self.recipe, self.config, self.memory
        self.generator.manual_seed(recipe.seed + 1_000_003 * step)
        dice = Dice(recipe.batch_size, self.generator)
        chosen = torch.searchsorted(self.reached, dice.between(0.0, 1.0).double())
        length = self.num_frames * config.hop_length
        latest = (memory.lengths[chosen] - length // 2).clamp(min=1)
        first = dice.between(0.0, 1.0) * (latest + config.sample_rate_hz) - config.sample_rate_hz
        is_heard_anew = dice.happens(recipe.augmented_share)
        semitones = dice.between(-recipe.retuned_semitones, recipe.retuned_semitones)
        semitones = torch.where(dice.happens(recipe.retuned_share)[:, 0], semitones, 0.0)
        speed, first = 2.0 ** (semitones / 12), first.long().double()
        audio = memory.windows(chosen, first, speed, length)
        audio = torch.where(is_heard_anew, recorded(audio, self.generator), audio)
        return audio, targets_of(memory.notes_within(chosen, first, speed), self.num_frames, config)


def _chances(names: list[str], memory: ClipMemory, recipe: Recipe) -> NDArray[np.float64]:
    """How often each clip is drawn [C]: as long as it is, and MAPS altogether as often as the recipe says."""
    chances = memory.lengths.cpu().numpy().astype(np.float64)
    is_maps = np.array([name.startswith("MAPS") for name in names])
    if is_maps.any() and not is_maps.all():
        for kind, share in ((is_maps, recipe.maps_share), (~is_maps, 1 - recipe.maps_share)):
            chances[kind] *= share / chances[kind].sum()
    return np.asarray(chances / chances.sum())


@torch.inference_mode()
def heard_frames(model: OnsetsFrames, audio: Tensor) -> NDArray[np.float32]:
    """What is heard of clips [B, S] of one length, each in one window [B, T, P]."""
    padded = F.pad(audio, (0, -audio.shape[1] % model.config.hop_length))
    found: NDArray[np.float32] = model(model.features(padded)).stacked().cpu().numpy()
    return found


def decoded(
    heard: NDArray[np.float32],
    notes: NDArray[np.float64],
    config: OnsetsFramesConfig,
    reader: Reader | None = None,
) -> tuple[NoteScore, ...]:
    """Scores of frames [T, P] against notes [N, 5]: by the ends of sounds and, if they are heard, of keys."""
    scores = []
    columns: dict[NoteEnds, int] = {"sound": 1, "key": 4}
    for ends, column in columns.items():
        if ends == "sound" or config.has_key_head:
            decoder = decoder_of(config, reader, ends)
            found = Notes.joined([decoder.push(heard), decoder.flush()])
            scores.append(score_notes(found, notes[:, [0, column, 2, 3]]))
    return tuple(scores)


def beginnings(folder: Path, seconds: float, count: int) -> tuple[Tensor, list[NDArray[np.float64]]]:
    """The beginnings of `count` clips at most, spread over all, and the same in rooms: audio [2 * count, S], notes."""
    clips = list_clips(folder)
    if not clips:
        raise ValueError(f"{folder}: expected clips (NAME.wav with NAME.npy). Run render_piano.py first.")
    chosen = [clips[index] for index in np.linspace(0, len(clips) - 1, min(count, len(clips))).astype(int)]
    audio = torch.from_numpy(np.stack([read_beginning(clip, round(seconds * SAMPLE_RATE_HZ)) for clip in chosen]))
    notes = [clip.notes[clip.notes[:, 0] < seconds - 0.1].astype(np.float64) for clip in chosen]
    return torch.cat([audio, recorded(audio, torch.Generator().manual_seed(0))]), notes + notes


def started(export: Path, config: OnsetsFramesConfig) -> OnsetsFrames:
    """The network of `config` with the weights of an export, and its network of releases as it is, if it has one.

    Raises:
        ValueError: If the export is of another size; its thresholds and its grid of windows do not matter.
    """
    resolved = weights.resolve("default", name=export.name, default_dir=export.parent)
    kept = {name: value for name, value in resolved.config["config"].items() if name in OF_RELEASES}
    return build_onsets_frames(dataclasses.asdict(config) | kept, weights.load_tensors(resolved))


def train_only(model: OnsetsFrames, prefixes: Sequence[str]) -> None:
    """Put in training mode what the recipe trains, and freeze the rest: its norms keep their statistics.

    Raises:
        ValueError: On a prefix that names nothing.
    """
    model.train()
    if not prefixes:
        return
    for name, module in model.named_modules():
        is_trained = any(_lies_in(name, prefix) or _lies_in(prefix, name) for prefix in prefixes)
        module.training = is_trained
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(_lies_in(name, prefix) for name in names):
            raise ValueError(f"trained: expected names of parts, got {prefix!r}. There is network.sustain_branch.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(_lies_in(name, prefix) for prefix in prefixes))


def _lies_in(name: str, prefix: str) -> bool:
    return not prefix or not name or name == prefix or name.startswith(f"{prefix}.")


class Trainer:
    """Model, running average, optimiser and data of one run."""

    def __init__(
        self, recipe: Recipe, corpus: Path, folder: Path, device: torch.device, start: Path | None = None
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder, self.device = recipe, folder, device
        config = OnsetsFramesConfig(**recipe.model)
        model = OnsetsFrames(config) if start is None else started(start, config)
        self.config = model.config
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: OnsetsFrames = model
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        train_only(self.model, recipe.trained)
        learned = [p for p in self.model.parameters() if p.requires_grad]
        matrices = [p for p in learned if p.ndim > 1]
        others = [p for p in learned if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, recipe.learning_rate, (0.9, 0.98))
        self.batches = Batches(corpus / "train", recipe, self.config, device)
        self.valid = beginnings(corpus / "valid", recipe.valid_s, recipe.num_valid_clips)
        self.log, self.best = RunLog(folder), -1.0
        if device.type != "cpu":
            self.log.write({"device": torch.cuda.get_device_name(device), "features_gap": self.features_gap()})

    def features_gap(self) -> float:
        """How far the features of eight clips are on this device from those on the CPU, at most."""
        audio = self.valid[0][:8]
        there = self.average.features(audio.to(self.device)).cpu()
        return float((there - OnsetsFrames(self.config).features(audio)).abs().max())

    def step(self, step: int, progress: float) -> dict[str, Tensor]:
        """One optimiser step; its losses stay on the device."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe.learning_rate, step, progress, warmup_steps=recipe.warmup_steps)
        with torch.no_grad():
            audio, targets = self.batches.draw(step)
            features = self.model.features(audio)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bf16):
            heads = self.model.logits(features)
        found = losses(heads, targets)
        shares = {
            "onset": 1.0,
            "offset": recipe.offset_weight,
            "frame": recipe.frame_weight,
            "key": recipe.key_weight,
            "velocity": recipe.velocity_weight,
        }
        loss = torch.stack([shares[name] * value for name, value in found.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._follow(min(recipe.average_decay, (step + 1) / (step + 10)))
        return {name: value.detach() for name, value in found.items()} | {"grad": norm.detach()}

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        pairs = list(zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True))
        floating = [(kept, new) for kept, new in pairs if kept.dtype.is_floating_point]
        torch._foreach_lerp_([kept for kept, _ in floating], [new for _, new in floating], 1 - decay)
        for kept, new in pairs:
            if not kept.dtype.is_floating_point:
                kept.copy_(new)

    def validate(self, budget: Budget) -> None:
        """Score the running average, and export it if it is the best so far."""
        audio, notes = self.valid
        heard = [heard_frames(self.average, part.to(self.device)) for part in audio.split(8)]
        pairs = zip(np.concatenate(heard), notes, strict=True)
        means = summary([decoded(frames, reference, self.config) for frames, reference in pairs])
        self.log.write({"step": budget.step, "minutes": budget.elapsed_s / 60, **means})
        if (reached := worth(means)) > self.best:
            self.best = reached
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
        return Budget(recipe.minutes, max_steps=recipe.max_steps, elapsed_s=state["elapsed_s"], step=state["step"] + 1)


def summary(scores: Sequence[tuple[NoteScore, ...]]) -> dict[str, float]:
    """Means over clips, and the middle of the onsets' errors."""
    errors = np.concatenate([score[0].onset_errors_s for score in scores] or [np.zeros(0)])
    means = {
        f"valid_{name}": float(np.mean([getattr(score[0], name) for score in scores]))
        for name in ("f1", "precision", "recall", "offset_f1", "frame_f1", "velocity_error")
    }
    if len(scores[0]) > 1:
        means["valid_key_f1"] = float(np.mean([score[1].offset_f1 for score in scores]))
        means["valid_key_frame_f1"] = float(np.mean([score[1].frame_f1 for score in scores]))
    return {**means, "valid_bias_ms": float(1000 * np.median(errors)) if len(errors) else 0.0}


def worth(means: Mapping[str, float]) -> float:
    """What a checkpoint and its thresholds are chosen by."""
    return means["valid_f1"] + END_SHARE * sum(means.get(name, 0.0) for name in ENDS)


def write(model: OnsetsFrames, folder: Path, recipe: Recipe, training: dict[str, Any]) -> str:
    """Write the servable checkpoint, in half precision."""
    state = {name: value.cpu() for name, value in model.state_dict().items() if value.dtype.is_floating_point}
    return weights.write(
        folder,
        {name: value.half().contiguous() for name, value in state.items()},
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
    sums: dict[str, Tensor] = {}
    validated, last, count = time.monotonic(), False, 0
    while not last:
        step, progress = budget.step, budget.progress
        last = progress >= 1.0 or bool(recipe.max_steps and step + 1 >= recipe.max_steps)
        for name, value in trainer.step(step, progress).items():
            sums[name] = sums.get(name, 0.0) + value
        count += 1
        if step % recipe.log_every == 0 or last:
            means = {name: float(value) / count for name, value in sums.items()}
            trainer.log.write({"step": step, "minutes": budget.elapsed_s / 60, **means})
            sums, count = {}, 0
        if last or time.monotonic() - validated > recipe.validate_every_s:
            trainer.save(budget)
            trainer.validate(budget)
            validated = time.monotonic()
        budget.step += 1


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a TOML file, and lines that take the place of its own; an unknown key is an error."""
    return Recipe(**tomllib.loads(path.read_text()) | tomllib.loads("\n".join(changes)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file beside this one")
    parser.add_argument("--corpus", type=Path, required=True, help="what render_piano.py wrote, packed or not")
    parser.add_argument("--run", type=Path, required=True, help="folder for the log, the state and the export")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--minutes", type=float, help="another budget than the recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another line of the recipe")
    parser.add_argument("--threads", type=int, default=1, help="of operations on the CPU")
    parser.add_argument("--start", type=Path, help="an export of the same size to go on from")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = read_recipe(args.config, args.set)
    if args.minutes is not None:
        recipe = dataclasses.replace(recipe, minutes=args.minutes)
    run(Trainer(recipe, args.corpus, args.run, torch.device(args.device), args.start))


if __name__ == "__main__":
    main()
