"""Train MuLan's towers, then take the means of both modalities and fit the quantizer; write the checkpoint.

`python services/embedding/recipes/train_mulan.py --config mulan.toml --features DIR [--real DIR] --run DIR`

`--features` is what `prepare_features.py` wrote, with `mel_` beside it (`prepare_mel.py`); `--real` what
`tag_recordings.py` wrote. A step: B clips, cut to half their length in most steps and perturbed, `captions_per_clip`
of each one's captions, and the decoupled contrastive loss (Yeh et al. 2021, https://arxiv.org/abs/2110.06848) in both
directions, in which captions that say nearly the same are not held against each other.

The servable checkpoint is `RUN/export/NAME`: the best on the validation split, by the mean reciprocal rank of the right
clip among all for the longest caption of training templates. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joint_features import Captions, JointFeatures, perturbed
from stretto_embedding.models.mulan import MuLan, MuLanConfig, build_mulan
from stretto_shared import weights
from stretto_shared.training import checkpoint
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Recipe:
    """One training run, as its TOML file states it."""

    name: str
    licence: str
    minutes: float
    batch_size: int
    learning_rate: float
    max_steps: int = 0
    warmup_steps: int = 100
    weight_decay: float = 0.05
    dropout: float = 0.1
    captions_per_clip: int = 1
    crop_frames: int = 320
    crop_share: float = 0.8
    real_repeats: int = 2
    gain_db: float = 6.0
    eq_db: float = 3.0
    max_masked: int = 48
    states_noise: float = 0.0
    same_caption_cosine: float = 0.98
    min_temperature: float = 0.03
    num_fit_clips: int = 1500
    validate_every_s: float = 240.0
    log_every: int = 25
    bf16: bool = True
    seed: int = 0
    model: dict[str, Any] = field(default_factory=dict)


def contrastive_loss(audio: Tensor, text: Tensor, temperature: Tensor, same: Tensor) -> Tensor:
    """Decoupled contrastive loss of unit vectors [B, D], in both directions.

    `same` [B, B], with a true diagonal: pairs that are no negatives of each other.
    """
    logits = audio @ text.t() / temperature
    negatives = logits.masked_fill(same, -math.inf)
    right = 2 * logits.diagonal()
    return (torch.logsumexp(negatives, 0) + torch.logsumexp(negatives, 1) - right).mean() / 2


def saying_the_same(captions: Captions, threshold: float) -> Tensor:
    """Which captions [B, B] say nearly the same: the cosine of their mean states is above `threshold`."""
    sums = (captions.states * captions.mask[..., None]).sum(1)
    unit = F.normalize(sums, dim=1)
    return (unit @ unit.t() > threshold) | torch.eye(len(unit), dtype=torch.bool)


def text_by_length(model: MuLan, captions: Captions, noise: float, group_size: int = 32) -> Tensor:
    """Uncentred points [B, D] of noisy states; like lengths go together, since padding costs as tokens do."""
    lengths = captions.mask.sum(1)
    order = lengths.argsort()
    points = []
    for group in order.split(group_size):
        states = captions.states[group, : int(lengths[group].max())]
        noisy = states + noise * torch.randn_like(states)
        points.append(model.raw_text(noisy, captions.mask[group, : states.shape[1]]))
    return torch.cat(points)[order.argsort()]


@torch.inference_mode()
def raw_audio(model: MuLan, features: JointFeatures, indices: Sequence[int], batch_size: int = 64) -> Tensor:
    """Uncentred points [N, D] of whole clips."""
    parts = [indices[first : first + batch_size] for first in range(0, len(indices), batch_size)]
    return torch.cat([model.raw_audio(features.mel(part)) for part in parts])


@torch.inference_mode()
def raw_text(
    model: MuLan, features: JointFeatures, indices: Sequence[int], which: Sequence[int], batch_size: int = 128
) -> Tensor:
    """Uncentred points [N, D] of one caption of each clip."""
    points = []
    for first in range(0, len(indices), batch_size):
        captions = features.captions(indices[first : first + batch_size], which[first : first + batch_size])
        points.append(model.raw_text(captions.states, captions.mask))
    return torch.cat(points)


def retrieval(text: Tensor, audio: Tensor) -> dict[str, float]:
    """How early the right one of all clips comes for each text: unit vectors [N, D] both."""
    scores = text @ audio.t()
    ranks = (scores > scores.diagonal()[:, None]).sum(1) + 1
    return {
        "mrr": float((1.0 / ranks).mean()),
        "r1": float((ranks <= 1).float().mean()),
        "r10": float((ranks <= 10).float().mean()),
    }


@torch.inference_mode()
def finish(model: MuLan, train: JointFeatures, valid: JointFeatures, num_clips: int) -> MuLan:
    """The model as it is served: in half precision, with its means, temperature and quantizer, from some clips."""
    served = build_mulan(
        dataclasses.asdict(model.config), {name: value.half() for name, value in model.servable_state().items()}
    )
    indices, which = text_sample(train, num_clips)
    centre_and_fit(served, raw_audio(served, train, indices), raw_text(served, train, indices, which), valid)
    return served


def text_sample(features: JointFeatures, num_clips: int) -> tuple[list[int], list[int]]:
    """Some clips, and one caption of each, by seed."""
    random = np.random.default_rng(0)
    indices = random.permutation(len(features))[:num_clips].tolist()
    return indices, [int(random.integers(features.num_captions(index))) for index in indices]


@torch.inference_mode()
def centre_and_fit(model: MuLan, audio: Tensor, text: Tensor, valid: JointFeatures) -> None:
    """Means, quantizer and temperature from uncentred points [N, D] of training clips, as half precision holds them."""
    model.audio_mean.copy_(audio.mean(0).half())
    model.text_mean.copy_(text.mean(0).half())
    torch.manual_seed(0)
    model.quantizer.initialise(F.normalize(audio - model.audio_mean, dim=1)[:, None])
    for name, value in model.quantizer.named_buffers():
        if name.endswith(".embed"):
            value.copy_(value.half())
    model.log_temperature.copy_(fitted_temperature(model, valid).log().half())


def fitted_temperature(model: MuLan, valid: JointFeatures, pool: int = 100) -> Tensor:
    """The temperature at which a softmax over `pool` validation clips fits best: centring changed all cosines."""
    indices = np.random.default_rng(0).permutation(len(valid))[: 5 * pool].tolist()
    audio = F.normalize(raw_audio(model, valid, indices) - model.audio_mean, dim=1)
    which = [valid.num_captions(index) - 1 for index in indices]
    text = F.normalize(raw_text(model, valid, indices, which) - model.text_mean, dim=1)
    candidates = torch.logspace(math.log10(0.02), 0.0, 60)
    losses = []
    for temperature in candidates:
        pools = zip(text.split(pool), audio.split(pool), strict=True)
        losses.append(sum(float(F.cross_entropy(t @ a.t() / temperature, torch.arange(len(t)))) for t, a in pools))
    return candidates[int(np.argmin(losses))]


def write(model: MuLan, folder: Path, recipe: Recipe, training: dict[str, Any]) -> str:
    """Write the servable checkpoint."""
    return weights.write(
        folder,
        {name: value.half() for name, value in model.servable_state().items()},
        name=recipe.name,
        architecture="MuLan",
        config=dataclasses.asdict(model.config),
        licence=recipe.licence,
        score="",
        training=training,
    )


def make_optimizers(model: MuLan, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the transformers' matrices, AdamW for the rest; Muon's steps scaled to AdamW's size."""
    hidden = [p for tower in (model.audio, model.text) for p in tower.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not h for h in hidden)]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    return [
        torch.optim.AdamW(groups, rate, (0.9, 0.98)),
        torch.optim.Muon(hidden, rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
    ]


class Trainer:
    """Model, optimisers and data of one run."""

    def __init__(self, recipe: Recipe, features: Path, real: Path | None, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        self.model = MuLan(MuLanConfig(**recipe.model), recipe.dropout)
        self.optimizers = make_optimizers(self.model, recipe)
        self.train = JointFeatures([(features, "train"), *([(real, "real")] if real else [])])
        num_real = len(JointFeatures([(real, "real")])) if real else 0
        whole = list(range(len(self.train)))
        self.pool = whole + whole[len(whole) - num_real :] * (recipe.real_repeats - 1)
        self.valid = JointFeatures([(features, "valid")])
        self.log = RunLog(folder)
        self.best = -1.0
        self.reseed(0)
        print(
            f"{len(whole)} training clips, {num_real} of them recordings; {len(self.valid)} for validation", flush=True
        )

    def reseed(self, step: int) -> None:
        """Begin the random choices that follow `step`."""
        self.order: list[int] = []
        self.random = np.random.default_rng((self.recipe.seed, step))

    def next_indices(self) -> list[int]:
        """The next clips of a random order of all."""
        size = min(self.recipe.batch_size, len(self.pool))
        if len(self.order) < size:
            self.order = self.random.permutation(self.pool).tolist()
        chosen, self.order = self.order[:size], self.order[size:]
        return chosen

    def heard(self, indices: list[int]) -> Tensor:
        """Perturbed spectrograms [B, T, M], in most steps of a stretch of each clip."""
        recipe, frames = self.recipe, self.train.num_frames
        cropped = self.random.random() < recipe.crop_share
        length = min(recipe.crop_frames, frames) if cropped else frames
        starts = self.random.integers(frames - length + 1, size=len(indices)).tolist()
        mel = self.train.mel(indices, starts, length)
        return perturbed(mel, self.random, gain_db=recipe.gain_db, eq_db=recipe.eq_db, max_masked=recipe.max_masked)

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One optimiser step."""
        recipe, model = self.recipe, self.model
        rate = learning_rate(recipe.learning_rate, step, progress, warmup_steps=recipe.warmup_steps)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate
        indices = self.next_indices()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            audio = model.raw_audio(self.heard(indices))
        orders = [self.random.permutation(self.train.num_captions(index)) for index in indices]
        temperature = model.log_temperature.exp().clamp(min=recipe.min_temperature)
        losses = []
        for number in range(recipe.captions_per_clip):
            captions = self.train.captions(indices, [int(order[number % len(order)]) for order in orders])
            same = saying_the_same(captions, recipe.same_caption_cosine)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
                text = text_by_length(model, captions, recipe.states_noise)
            losses.append(contrastive_loss(audio, text, temperature, same))
        loss = torch.stack(losses).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        return {"loss": float(loss.detach()), "temperature": float(temperature.detach()), "grad": float(norm)}

    def validate(self, budget: Budget) -> None:
        """Score the model on the validation split, and export it if it is the best so far."""
        self.model.eval()
        indices = list(range(len(self.valid)))
        which = [self.valid.num_captions(index) - 1 for index in indices]
        scores = retrieval(raw_text(self.model, self.valid, indices, which), raw_audio(self.model, self.valid, indices))
        self.log.write(
            {"step": budget.step, "minutes": budget.elapsed_s / 60, **{f"valid_{k}": v for k, v in scores.items()}}
        )
        if scores["mrr"] > self.best:
            self.best = scores["mrr"]
            training = {
                "minutes": round(budget.elapsed_s / 60, 1),
                "steps": budget.step,
                "clips": len(self.train),
                **{f"valid_{name}": round(value, 4) for name, value in scores.items()},
            }
            finished = finish(self.model, self.train, self.valid, self.recipe.num_fit_clips)
            write(finished, self.folder / "export" / self.recipe.name, self.recipe, training)
        self.model.train()

    def save(self, budget: Budget) -> None:
        """Keep what a restart needs."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
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
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.best = state["best"]
        self.reseed(state["step"] + 1)
        return Budget(recipe.minutes, max_steps=recipe.max_steps, elapsed_s=state["elapsed_s"], step=state["step"] + 1)


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
            trainer.validate(budget)
            trainer.save(budget)  # afterwards, so that a restart knows the best score
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
    parser.add_argument("--features", type=Path, required=True, help="folder with mel_ and text_ of the corpus")
    parser.add_argument("--real", type=Path, help="folder with mel_ and text_ of tagged recordings")
    parser.add_argument("--run", type=Path, required=True, help="folder for the log, the state and the export")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run(Trainer(read_recipe(args.config), args.features, args.real, args.run))


if __name__ == "__main__":
    main()
