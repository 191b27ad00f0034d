"""Train one stage of a token cascade: `train_stage.py --config TOML --features DIR --tokens DIR ... --run DIR`.

Cross-entropy of every codebook of a window's stream after its true past, with the style and the melody left out at
random, which is what guidance needs. As in MusicLM, windows are the shorter the finer the stage, and a style is the
codes of the clip's AUDIO embedding, moved by noise, since it will be a text's when the stage serves. The budget is wall
time; the running average of the weights with the best validation is exported.

Departure from the papers: Muon (Jordan et al. 2024) for the layers' matrices beside AdamW for the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_shared import weights
from stretto_shared.nn.stage_lm import StageConfig, StageLM
from stretto_shared.training import checkpoint
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from stretto_shared.training.stages.attention import causal_attention
from stretto_shared.training.stages.dataset import StageFeatures, Windows, random_windows, wrong_in_part
from stretto_shared.training.stages.recipe import Recipe, read_recipe
from stretto_shared.training.stages.start import (
    code_vectors,
    id_of,
    quantizer_of,
    start_frequencies,
    start_nearness,
    start_table,
)

VALIDATION_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Makers:
    """Folders of the exported models that speak a stage's tokens; None for what it does not hear."""

    tokens: Path
    source: Path | None = None
    style: Path | None = None
    melody: Path | None = None


def config_of(recipe: Recipe, makers: Makers) -> StageConfig:
    """The recipe's sizes, and whose tokens they are.

    Raises:
        SystemExit: If a maker is missing that the stage hears.
    """
    config = StageConfig(**recipe.model)
    needed = (
        (config.hears_source, makers.source, "--source"),
        (config.hears_style, makers.style, "--style"),
        (config.hears_melody, makers.melody, "--melody"),
    )
    for is_heard, folder, option in needed:
        if is_heard and folder is None:
            raise SystemExit(f"{recipe.name} needs {option}: the exported model whose tokens it hears.")
    source, style, melody = ("" if folder is None or not is_heard else id_of(folder) for is_heard, folder, _ in needed)
    return dataclasses.replace(
        config, tokens=id_of(makers.tokens), source_tokens=source, style_encoder=style, melody_encoder=melody
    )


def cross_entropies(model: StageLM, windows: Windows, heard: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of each window and codebook, nats a token [B, K], after the true past or `heard` [B, S]."""
    stream = windows.stream if heard is None else heard
    hidden = model.hidden(stream, windows.style, windows.melody, windows.source, causal_attention)
    logits = model.predict_by_codebook(hidden).float()  # [K, B * T, V]
    num_codebooks = model.config.num_codebooks
    targets = windows.stream.view(-1, num_codebooks).T
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view(num_codebooks, len(stream), -1).mean(2).T


def make_optimizers(model: StageLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, its steps scaled to AdamW's size; AdamW for the rest."""
    hidden = [p for p in model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not h for h in hidden)]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [
        torch.optim.AdamW(groups, recipe.learning_rate, (0.9, 0.95), fused=True),
        torch.optim.Muon(
            hidden, recipe.learning_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
    ]


class Trainer:
    """Model, its running average, optimisers and data of one run."""

    def __init__(self, recipe: Recipe, features: Path, makers: Makers, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        self.config = config_of(recipe, makers)
        quantizer = None
        if self.config.hears_style and makers.style is not None:
            quantizer = quantizer_of(makers.style, self.config.num_style_codes)
        self.train = StageFeatures(features, "train", recipe, self.config, quantizer)
        self.valid = StageFeatures(features, "valid", recipe, self.config, quantizer)
        self.model = StageLM(self.config)
        self._start(makers)
        self.averaged = StageLM(self.config)
        self.averaged.load_state_dict(self.model.state_dict())
        self.optimizers = make_optimizers(self.model, recipe)
        weights_of = torch.tensor(recipe.codebook_weights or (1.0,) * self.config.num_codebooks)
        if len(weights_of) != self.config.num_codebooks:
            raise SystemExit(f"codebook_weights needs {self.config.num_codebooks} numbers, got {len(weights_of)}.")
        self.codebook_weights = weights_of / weights_of.mean()
        self.log = RunLog(folder)
        self.best = float("inf")
        self.reseed(0)

    def _start(self, makers: Makers) -> None:
        recipe, config, model = self.recipe, self.config, self.model
        start_table(model.stream, code_vectors(makers.tokens, recipe.first_codebook, config.num_codebooks))
        for table, maker in ((model.source, makers.source), (model.style, makers.style), (model.melody, makers.melody)):
            if table is not None and maker is not None:
                start_table(table, code_vectors(maker, 0, table.num_codebooks))
        start_frequencies(model, self.train.own[: recipe.num_start_clips])
        start_nearness(model)

    def reseed(self, step: int) -> None:
        """Begin the random choices that follow `step`; a restart must not see the first clips again."""
        self.order: list[int] = []
        self.random = np.random.default_rng((self.recipe.seed, step))

    def next_windows(self) -> Windows:
        """Windows of the next clips of a random order of the whole corpus."""
        size = self.recipe.batch_size
        if len(self.order) < size:
            self.order = self.random.permutation(len(self.train)).tolist()
        chosen, self.order = self.order[:size], self.order[size:]
        return random_windows(self.train, chosen, self.recipe, self.random)

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One optimiser step."""
        recipe, windows = self.recipe, self.next_windows()
        rate = learning_rate(recipe.learning_rate, step, progress, warmup_steps=recipe.warmup_steps)
        frames = windows.stream.view(len(windows.stream), -1, self.config.num_codebooks).transpose(1, 2)
        heard = wrong_in_part(frames, recipe.token_noise, self.random)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            losses = cross_entropies(self.model, windows, heard.transpose(1, 2).flatten(1))
        (losses * self.codebook_weights).mean().backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._average(step)
        return {"ce": float(losses.detach().mean()), "grad": float(norm)}

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Move the running average; it forgets faster while there is little to remember."""
        kept = min(self.recipe.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - kept)

    @torch.inference_mode()
    def scores(self) -> dict[str, float]:
        """Cross-entropy on fixed whole windows of the valid split: of each codebook, and told another clip's."""
        count = min(self.recipe.num_validation_windows, len(self.valid))
        # Over all shards alike, in an order that has nothing to do with them: those of another are half a batch away.
        clips = np.random.default_rng(0).permutation(np.linspace(0, len(self.valid) - 1, count).round().astype(int))
        num_frames = min(self.config.window_frames, self.valid.num_clip_frames)
        room = self.valid.num_clip_frames - num_frames
        firsts = np.random.default_rng(1).integers(0, room + 1, count)
        true, other = [], []
        for at in range(0, count, VALIDATION_BATCH):
            some = slice(at, at + VALIDATION_BATCH)
            windows = self.valid.windows(clips[some].tolist(), firsts[some].tolist(), num_frames)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16):
                true.append(cross_entropies(self.averaged, windows))
                other.append(cross_entropies(self.averaged, windows.rolled()))
        by_codebook = torch.cat(true).mean(0)
        found = {"valid_ce": float(by_codebook.mean()), "valid_ce_of_another": float(torch.cat(other).mean())}
        return found | {f"valid_ce_{k}": float(value) for k, value in enumerate(by_codebook)}

    def validate(self, budget: Budget) -> None:
        """Export the averaged model if it is the best so far."""
        scores = self.scores()
        self.log.write({"step": budget.step, "minutes": budget.elapsed_s / 60, **scores})
        if scores["valid_ce"] < self.best:
            self.best = scores["valid_ce"]
            self.export(budget, scores)

    def export(self, budget: Budget, scores: Mapping[str, float]) -> None:
        """Write the servable checkpoint, in half precision."""
        weights.write(
            self.folder / "export" / self.recipe.name,
            {name: value.half() for name, value in self.averaged.state_dict().items()},
            name=self.recipe.name,
            architecture="StageLM",
            config=dataclasses.asdict(self.config),
            licence=self.recipe.licence,
            score="",
            training={
                "minutes": round(budget.elapsed_s / 60, 1),
                "steps": budget.step,
                "windows": budget.step * self.recipe.batch_size,
                "clips": len(self.train),
                **{name: round(value, 4) for name, value in scores.items()},
            },
        )

    @property
    def state_path(self) -> Path:
        return self.folder / "state.pt"

    def save(self, budget: Budget, num_steps: int) -> None:
        """Keep what a restart needs, after so many steps."""
        checkpoint.save(
            self.state_path,
            {
                "model": self.model.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "elapsed_s": budget.elapsed_s,
                "step": num_steps,
                "best": self.best,
            },
        )

    def resume(self) -> Budget:
        """The budget of a new run, or what is left of the one that was saved."""
        recipe, state = self.recipe, checkpoint.load(self.state_path)
        if state is None:
            return Budget(recipe.minutes, max_steps=recipe.max_steps)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.best = state["best"]
        self.reseed(state["step"])
        return Budget(recipe.minutes, max_steps=recipe.max_steps, elapsed_s=state["elapsed_s"], step=state["step"])


def run(trainer: Trainer) -> None:
    """Train until the budget is used."""
    recipe, budget = trainer.recipe, trainer.resume()
    averages, validated = Averages(), time.monotonic()
    for step in budget.steps():
        progress = budget.progress
        averages.add(trainer.step(step, progress))
        if step % recipe.log_every == 0:
            trainer.log.write({"step": step, "minutes": budget.elapsed_s / 60, **averages.take()})
        if time.monotonic() - validated > recipe.validate_every_s:
            trainer.validate(budget)
            trainer.save(budget, step + 1)
            validated = time.monotonic()
    trainer.validate(budget)
    trainer.save(budget, budget.step)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file")
    parser.add_argument("--features", type=Path, required=True, help="folder of codes_, semantic_, style_ and melody_")
    parser.add_argument("--tokens", type=Path, required=True, help="exported model whose tokens the stage makes")
    parser.add_argument("--source", type=Path, help="exported model whose tokens are the source")
    parser.add_argument("--style", type=Path, help="exported joint encoder")
    parser.add_argument("--melody", type=Path, help="exported melody encoder")
    parser.add_argument("--run", type=Path, required=True, help="folder for the log, the state and the export")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    makers = Makers(args.tokens, args.source, args.style, args.melody)
    run(Trainer(read_recipe(args.config), args.features, makers, args.run))
