"""Train w2v-BERT on cached log-mel: `python services/semantic/recipes/train_w2vbert.py --config w2vbert.toml ...`.

Crops are as long as what a window of the tokenizer hears. Frames are masked after the subsampling; the quantizer hears
their mel. The contrastive module's output finds the quantised vector of each masked frame among those of the other
masked frames of its crop; the masked-prediction module's output names its codes. Loss: contrastive + diversity_weight *
diversity + masked prediction. The budget is wall time; a run resumes from its folder, and shards that are added to the
features while it runs are taken up. `fit_tokens.py` then makes the tokenizer.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from losses import contrastive_loss, draw_spans, masked_prediction_loss
from mel_clips import MelClips
from quantizers import QUANTIZERS, Targets, usage
from stretto_semantic.models.w2vbert.config import MEL_FRAMES_PER_TOKEN, W2vBertConfig
from stretto_semantic.models.w2vbert.model import W2vBert, cut_windows
from stretto_shared.training import checkpoint
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One TOML file; the last four fields are those of `fit_tokens.py`."""

    name: str
    licence: str
    minutes: float
    model: dict[str, Any]
    max_steps: int = 0
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01
    quantizer: str = "gumbel"  # or "random", BEST-RQ's
    num_groups: int = 2
    num_codes: int = 256
    code_dim: int = 96
    highest_temperature: float = 2.0  # of the Gumbel noise; falls with the budget
    lowest_temperature: float = 0.5
    contrastive_temperature: float = 0.1
    diversity_weight: float = 0.1
    targets_rate: float = 0.1  # learning rate of the quantizer's choices, as a share: what runs away is hard to name
    span: int = 10  # frames that are masked together
    span_share: float = 0.065  # of the frames, those that start a span
    loudest_change: float = 0.35  # 6 dB
    num_validation_clips: int = 64
    validate_every_s: float = 120.0
    log_every: int = 25
    bf16: bool = True
    seed: int = 0
    num_centroids: int = 512
    num_kmeans_frames: int = 120_000
    num_kmeans_rounds: int = 25
    num_probe_clips: int = 600


def read_recipe(path: Path) -> Recipe:
    """Read a TOML file; an unknown key is an error."""
    with path.open("rb") as file:
        return Recipe(**tomllib.load(file))


def frames_of(mel: Tensor) -> Tensor:
    """Log-mel [B, 4 T, M] as frames [B, T, 4 M]."""
    return mel.unflatten(1, (-1, MEL_FRAMES_PER_TOKEN)).flatten(2)


class Learner(nn.Module):
    """The model with what only training needs."""

    def __init__(self, recipe: Recipe, config: W2vBertConfig) -> None:
        super().__init__()
        self.recipe, self.config = recipe, config
        self.model = W2vBert(config)
        self.mask_vector = nn.Parameter(torch.randn(config.dim) * 0.1)
        sizes = (MEL_FRAMES_PER_TOKEN * config.num_mel_bands, recipe.num_groups, recipe.num_codes, recipe.code_dim)
        self.quantizer = QUANTIZERS[recipe.quantizer](*sizes)
        self.find = nn.Linear(config.dim, recipe.code_dim)
        self.name_codes = nn.Linear(config.dim, recipe.num_groups * recipe.num_codes)

    def forward(self, mel: Tensor, mask: Tensor, temperature: float) -> tuple[Tensor, dict[str, Tensor], Targets]:
        """The loss of mel [B, 4 T, M] with mask [B, T], its parts, and the targets."""
        recipe = self.recipe
        features = self.model.subsample(mel)
        frames = frames_of(mel)[mask].view(len(mel), -1, MEL_FRAMES_PER_TOKEN * self.config.num_mel_bands)
        targets: Targets = self.quantizer(frames, temperature)
        masked = torch.where(mask[..., None], self.mask_vector, features)
        states = list(self.model.contextualise(masked))
        rows, last = len(mel), self.config.num_contrastive_layers - 1
        found = self.find(states[last][mask]).float().view(rows, -1, recipe.code_dim)
        contrastive, found_share = contrastive_loss(
            found, targets.vectors.float(), targets.ids, recipe.contrastive_temperature
        )
        logits = self.name_codes(states[-1][mask]).float().view(rows, -1, recipe.num_groups, recipe.num_codes)
        prediction, named_share = masked_prediction_loss(logits, targets.ids)
        loss = contrastive + recipe.diversity_weight * targets.diversity_loss + prediction
        parts = {
            "contrastive": contrastive,
            "found": found_share,
            "prediction": prediction,
            "named": named_share,
            "diversity": targets.diversity_loss,
        }
        return loss, parts, targets


class Trainer:
    """Model, optimiser and data of one run."""

    def __init__(self, recipe: Recipe, folder: Path, features: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        self.config = W2vBertConfig(**recipe.model)
        self.learner = Learner(recipe, self.config)
        grid = self.config.grid
        self.clips = MelClips(features, "train", grid, recipe.seed + 1)
        held_out = cut_windows(MelClips(features, "valid", grid, 0).spread(recipe.num_validation_clips), grid)
        self.validation = held_out[:, held_out.shape[1] // 2]
        self.random = np.random.default_rng(recipe.seed + 2)
        self.num_spans = max(1, round(recipe.span_share * grid.reach))
        self.validation_mask = self._mask(np.random.default_rng(0), len(self.validation))
        self.optimizer = torch.optim.AdamW(
            self._groups(), recipe.learning_rate, (0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
        )
        self.log = RunLog(folder)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters by their share of the learning rate."""
        prefix = "quantizer.logits."
        named = list(self.learner.named_parameters())
        choices = [value for name, value in named if name.startswith(prefix)]
        rest = [value for name, value in named if not name.startswith(prefix)]
        return [{"params": rest, "share": 1.0}, {"params": choices, "share": self.recipe.targets_rate}]

    def _mask(self, random: np.random.Generator, rows: int) -> Tensor:
        span = min(self.recipe.span, self.config.grid.reach // 2)
        return draw_spans(random, rows, self.config.grid.reach, self.num_spans, span)

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One step of the optimiser."""
        recipe = self.recipe
        rate = learning_rate(recipe.learning_rate, step, progress, warmup_steps=recipe.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        falling = (recipe.lowest_temperature / recipe.highest_temperature) ** progress
        mel = self.clips.batch(recipe.batch_size, recipe.loudest_change)
        mask = self._mask(self.random, recipe.batch_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            loss, parts, targets = self.learner(mel, mask, recipe.highest_temperature * falling)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parts["grad"] = nn.utils.clip_grad_norm_(self.learner.parameters(), 5.0)
        self.optimizer.step()
        values = {name: float(value.detach()) for name, value in parts.items()}
        return {**values, "usage": usage(targets.ids, recipe.num_codes)}

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """The losses on fixed windows and masks, and how evenly the codes are used there."""
        self.learner.eval()
        _, parts, targets = self.learner(self.validation, self.validation_mask, 1.0)
        self.learner.train()
        values = {f"valid_{name}": float(value) for name, value in parts.items()}
        return {**values, "valid_usage": usage(targets.ids, self.recipe.num_codes)}

    def save(self, budget: Budget) -> None:
        """Write the resumable state."""
        state = {
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "elapsed_s": budget.elapsed_s,
            "step": budget.step,
        }
        checkpoint.save(self.folder / "state.pt", state)

    def resume(self) -> Budget:
        """The budget as the folder's state leaves it, after loading that state; without one the quantizer is placed."""
        minutes, most = self.recipe.minutes, self.recipe.max_steps
        state = checkpoint.load(self.folder / "state.pt")
        if state is None:
            with torch.no_grad():
                self.learner.quantizer.start(frames_of(self.clips.batch(256)).flatten(0, 1), self.recipe.seed)
            return Budget(minutes, max_steps=most)
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random = np.random.default_rng([self.recipe.seed + 2, state["step"]])
        return Budget(minutes, max_steps=most, elapsed_s=state["elapsed_s"], step=state["step"] + 1)


def run(recipe: Recipe, folder: Path, features: Path) -> None:
    """Train until the budget is used."""
    trainer = Trainer(recipe, folder, features)
    budget = trainer.resume()
    averages, validated = Averages(), time.monotonic()
    for step in budget.steps():
        averages.add(trainer.step(step, budget.progress))
        last = budget.progress >= 1.0 or bool(recipe.max_steps and step + 1 >= recipe.max_steps)
        if step % recipe.log_every == 0 or last:
            trainer.log.write({"step": step, "minutes": budget.elapsed_s / 60, **averages.take()})
        if last or time.monotonic() - validated > recipe.validate_every_s:
            trainer.log.write({"step": step, "clips": len(trainer.clips), **trainer.validate()})
            trainer.save(budget)
            trainer.clips.refresh()
            validated = time.monotonic()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file beside this one")
    parser.add_argument("--features", type=Path, required=True, help="folder of mel_{split}_{shard}.npy")
    parser.add_argument("--run", type=Path, required=True, help="folder for the log and the state")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run(read_recipe(arguments.config), arguments.run, arguments.features)


if __name__ == "__main__":
    main()
