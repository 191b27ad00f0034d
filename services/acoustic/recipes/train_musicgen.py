"""Train MusicGen's language model: `train_musicgen.py --config musicgen.toml --features DIR --codec DIR --run DIR`.

`--workers 2 --threads 1` trains on two cores, one batch each.

Delayed codec tokens given text states and, in a share of the batches, a melody; each condition is dropped at random,
which is what classifier-free guidance needs. Cross-entropy averaged over the codebooks; a departure from the paper:
the mean may be weighted, since what little of it is music is in the coarse codebooks. The budget is wall time. The
best checkpoint by validation cross-entropy (the mean of that with and without a melody) is exported after each
validation.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aligned_start import start_aligned_heads
from codebook_start import start_from_codebooks
from features import Batch, Features
from other_codes_start import start_from_other_codes
from safetensors.torch import load_file
from stretto_acoustic.models.musicgen import MusicGenConfig, MusicGenLM
from stretto_shared import weights
from stretto_shared.engine.delay import apply_delay, target_mask
from stretto_shared.training import checkpoint
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from workers import Workers, start


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One TOML file."""

    name: str
    licence: str
    minutes: float
    model: dict[str, Any]
    max_steps: int = 0
    batch_size: int = 16
    learning_rate: float = 1.2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.1
    text_dropout: float = 0.15
    melody_share: float = 0.4  # share of the batches that hear a melody at all
    melody_dropout: float = 0.1  # share of the rows of those that do not
    codebook_weights: tuple[float, ...] = ()  # of the loss, coarsest first; equal where empty
    own_share: float = 0.0  # greatest share of a clip's past that the model itself drew, in half of the steps
    own_after: float = 0.0  # share of the budget from which it does
    token_noise: float = 0.0  # greatest share of a clip's past that is wrong, in half of the clips
    validate_every_s: float = 300.0
    num_validation_clips: int = 64
    num_start_clips: int = 16
    log_every: int = 25
    bf16: bool = True
    seed: int = 0


def cross_entropies(
    model: MusicGenLM, batch: Batch, *, melody: bool, first_frame: int = 0, heard: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of each clip and codebook, nats a token [B, K], after the true past or `heard` [B, K, T]."""
    config = model.config
    delayed = apply_delay(batch.codes, config.delays, config.special_token)
    past = delayed if heard is None else apply_delay(heard, config.delays, config.special_token)
    chroma = batch.chroma if melody else None
    logits = model(past[..., :-1], batch.text_states, batch.text_mask, chroma, first_frame)
    mask = target_mask(batch.codes.shape[-1], config.delays)  # [K, T']
    targets = delayed[..., 1:].masked_fill(~mask, -100)
    # A codebook at a time: all of them at once are 70 MB that no cache holds.
    losses = [
        F.cross_entropy(mine.flatten(0, 1).float(), theirs.flatten(), reduction="none")
        for mine, theirs in zip(logits.unbind(1), targets.unbind(1), strict=True)
    ]
    return torch.stack(losses).view(-1, *targets[:, 0].shape).sum(-1).T / batch.codes.shape[-1]


@torch.inference_mode()
def validate(model: MusicGenLM, features: Features, num_clips: int) -> dict[str, float]:
    """Cross-entropy with the true caption, a caption of another clip, and the true caption and melody."""
    model.eval()
    count = min(num_clips, len(features))
    # Over all shards alike, in an order that has nothing to do with them: shuffled captions are half of it away.
    spread = np.linspace(0, len(features) - 1, count).round().astype(int)
    indices = np.random.default_rng(0).permutation(spread).tolist()
    sums: dict[str, list[float]] = {"valid_ce": [], "valid_ce_shuffled": [], "valid_ce_melody": []}
    for first in range(0, len(indices), 8):
        chosen = indices[first : first + 8]
        others = [(i + len(indices) // 2) % len(indices) for i in chosen]
        random = np.random.default_rng(first)
        own = features.batch(chosen, random)
        other = features.batch(chosen, random, caption_of=others)
        with torch.autocast("cpu", torch.bfloat16):
            sums["valid_ce"] += cross_entropies(model, own, melody=False).mean(1).tolist()
            sums["valid_ce_shuffled"] += cross_entropies(model, other, melody=False).mean(1).tolist()
            sums["valid_ce_melody"] += cross_entropies(model, own, melody=True).mean(1).tolist()
    model.train()
    return {name: float(np.mean(values)) for name, values in sums.items()}


def read_recipe(path: Path) -> Recipe:
    """Read a TOML file; an unknown key is an error."""
    with path.open("rb") as file:
        values = tomllib.load(file)
    return Recipe(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def codec_id_of(folder: Path) -> str:
    """`{name}@{digest prefix}` of an exported codec."""
    config = json.loads((folder / "config.json").read_text())
    return f"{config['name']}@{config['weights_sha256'][:12]}"


def hidden_matrices(model: MusicGenLM) -> list[nn.Parameter]:
    """The matrices of the blocks."""
    return [p for block in model.blocks() for p in block.parameters() if p.ndim == 2]


def make_optimizers(model: MusicGenLM, recipe: Recipe, workers: Workers) -> list[torch.optim.Optimizer]:
    """Muon for this worker's share of the blocks' matrices, AdamW for tables, heads, conditions and norms.

    Muon's steps are scaled to AdamW's size (Liu et al., "Muon is Scalable for LLM Training", 2025), so one rate serves.
    They cost as much as forward and backward together, so each worker takes those of its share.
    """
    hidden = hidden_matrices(model)
    others = [p for p in model.parameters() if all(p is not h for h in hidden)]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [
        torch.optim.AdamW(groups, recipe.learning_rate, (0.9, 0.95), fused=True),
        torch.optim.Muon(
            workers.share(hidden),
            recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
    ]


class Trainer:
    """Model, optimisers and data of one run."""

    def __init__(
        self,
        recipe: Recipe,
        features_dir: Path,
        codec: Path,
        folder: Path,
        init: Path | None,
        workers: Workers,
        old_codec: Path | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder, self.workers = recipe, folder, workers
        self.config = MusicGenConfig(**recipe.model, codec_id=codec_id_of(codec))
        self.model = MusicGenLM(self.config)
        if init is not None and old_codec is not None:
            start_from_other_codes(self.model, init, old_codec, codec / "model.safetensors")
        elif init is not None:
            self.model.load_state_dict({k: v.float() for k, v in load_file(init).items()})
        self.optimizers = make_optimizers(self.model, recipe, workers)
        self.train = Features(features_dir, "train", self.config.num_codebooks)
        self.valid = Features(features_dir, "valid", self.config.num_codebooks)
        self.reseed(0)
        weights_of = torch.tensor(recipe.codebook_weights or (1.0,) * self.config.num_codebooks)
        if len(weights_of) != self.config.num_codebooks:
            raise SystemExit(f"codebook_weights needs {self.config.num_codebooks} numbers, got {len(weights_of)}.")
        self.codebook_weights = weights_of / weights_of.mean()
        if init is None:
            some = torch.from_numpy(self.train.codes[: recipe.num_start_clips].astype(np.int64))
            started = start_from_codebooks(self.model, codec / "model.safetensors", some)
            if self.config.melody_conditioning == "prefix":
                start_aligned_heads(self.model)
            print("start", [round(value, 2) for value in started], flush=True)
        self.log = RunLog(folder)
        self.best = float("inf")

    def reseed(self, step: int) -> None:
        """Begin the random choices that follow `step`; a restart must not see the first clips again."""
        self.order: list[int] = []
        self.shared_random = np.random.default_rng((self.recipe.seed, step))  # what all workers draw alike
        self.random = np.random.default_rng((self.recipe.seed, step, self.workers.rank))

    def next_indices(self) -> list[int]:
        """This worker's next clips of a random order of the whole corpus."""
        size = self.recipe.batch_size * self.workers.count
        if len(self.order) < size:
            self.order = self.shared_random.permutation(len(self.train)).tolist()
        chosen, self.order = self.order[:size], self.order[size:]
        return chosen[self.workers.rank :: self.workers.count]

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One optimiser step."""
        recipe = self.recipe
        rate = learning_rate(recipe.learning_rate, step, progress, warmup_steps=recipe.warmup_steps)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate
        melody = bool(self.shared_random.random() < recipe.melody_share)
        batch = self.train.batch(
            self.next_indices(), self.random, text_dropout=recipe.text_dropout, melody_dropout=recipe.melody_dropout
        )
        first_frame = self._first_frame(batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            heard = self._heard(batch, progress, melody=melody, first_frame=first_frame)
            losses = cross_entropies(self.model, batch, melody=melody, first_frame=first_frame, heard=heard)
        (losses * self.codebook_weights).mean().backward()
        self.workers.average(p.grad for p in self.model.parameters() if p.grad is not None)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.workers.exchange([matrix.data for matrix in hidden_matrices(self.model)])
        by_codebook = losses.detach().mean(0)
        return {"ce": float(by_codebook.mean()), "ce_0": float(by_codebook[0]), "grad": float(norm)}

    def _heard(self, batch: Batch, progress: float, *, melody: bool, first_frame: int) -> Tensor | None:
        """The past as in generation, codes [B, K, T]: with mistakes, the model's own or others; None: the true one."""
        if self.recipe.own_share and progress >= self.recipe.own_after and self.shared_random.random() < 0.5:
            wrong, most = self._drawn(batch, melody=melody, first_frame=first_frame), self.recipe.own_share
            share = self.random.uniform(0, most, (len(batch.codes), 1, 1))
        elif self.recipe.token_noise:
            wrong = batch.codes[..., torch.from_numpy(self.random.permutation(batch.codes.shape[-1]))]
            share = self.random.uniform(0, self.recipe.token_noise, (len(batch.codes), 1, 1))
            share *= self.random.random(share.shape) < 0.5
        else:
            return None
        return torch.where(torch.from_numpy(self.random.random(batch.codes.shape) < share), wrong, batch.codes)

    @torch.no_grad()
    def _drawn(self, batch: Batch, *, melody: bool, first_frame: int) -> Tensor:
        """What the model would draw for each token after the true past, codes [B, K, T].

        Scheduled sampling in two passes (Mihaylova and Martins, "Scheduled Sampling for Transformers", 2019): a model
        that never hears itself takes its own repetition for the music's, and holds one note for good.
        """
        delays, num_frames = self.config.delays, batch.codes.shape[-1]
        past = apply_delay(batch.codes, delays, self.config.special_token)[..., :-1]
        chroma = batch.chroma if melody else None
        logits = self.model(past, batch.text_states, batch.text_mask, chroma, first_frame)
        drawn = (logits.float() - torch.empty(logits.shape).exponential_().log()).argmax(-1)
        return torch.stack([drawn[:, k, delay : delay + num_frames] for k, delay in enumerate(delays)], 1)

    def _first_frame(self, batch: Batch) -> int:
        """Half of the batches stand at the start of a piece, the others anywhere in one of the full length."""
        room = self.config.max_frames - batch.codes.shape[-1]
        if room <= 0 or self.random.random() < 0.5:
            return 0
        return int(self.random.integers(room + 1))

    def export(self, budget: Budget, scores: dict[str, float]) -> None:
        """Write the servable checkpoint, in half precision."""
        weights.write(
            self.folder / "export" / self.recipe.name,
            {name: value.half() for name, value in self.model.state_dict().items()},
            name=self.recipe.name,
            architecture="MusicGenLM",
            config=dataclasses.asdict(self.config),
            licence=self.recipe.licence,
            score="",
            training={
                "minutes": round(budget.elapsed_s / 60, 1),
                "steps": budget.step,
                "clips": len(self.train),
                **{name: round(value, 4) for name, value in scores.items()},
            },
        )

    def validate(self, budget: Budget) -> None:
        """Export the model if it is the best so far."""
        scores = validate(self.model, self.valid, self.recipe.num_validation_clips)
        self.log.write({"step": budget.step, "minutes": budget.elapsed_s / 60, **scores})
        score = (scores["valid_ce"] + scores["valid_ce_melody"]) / 2
        if score < self.best:
            self.best = score
            self.export(budget, scores)

    def save(self, budget: Budget) -> None:
        """Keep what a restart with as many workers needs."""
        checkpoint.save(
            self.state_path,
            {
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "elapsed_s": budget.elapsed_s,
                "step": budget.step,
                "best": self.best,
            },
        )

    @property
    def state_path(self) -> Path:
        """This worker's own state: each keeps the optimiser of its share."""
        return self.folder / f"state_{self.workers.rank}_of_{self.workers.count}.pt"


def run(trainer: Trainer) -> None:
    """Train until the budget is used."""
    recipe = trainer.recipe
    budget = Budget(recipe.minutes, max_steps=recipe.max_steps)
    state = checkpoint.load(trainer.state_path)
    if state is not None:
        trainer.model.load_state_dict(state["model"])
        for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        trainer.best = state["best"]
        trainer.reseed(state["step"] + 1)
        budget = Budget(
            recipe.minutes, max_steps=recipe.max_steps, elapsed_s=state["elapsed_s"], step=state["step"] + 1
        )
    workers = trainer.workers
    averages, validated, last = Averages(), time.monotonic(), False
    while not last:
        step, progress = budget.step, workers.agree(budget.progress)
        last = progress >= 1.0 or bool(recipe.max_steps and step + 1 >= recipe.max_steps)
        averages.add(trainer.step(step, progress))
        if workers.is_first and (step % recipe.log_every == 0 or last):
            trainer.log.write({"step": step, "minutes": budget.elapsed_s / 60, **averages.take()})
        if workers.agree(last or time.monotonic() - validated > recipe.validate_every_s):
            if workers.is_first:
                trainer.validate(budget)
            trainer.save(budget)
            validated = time.monotonic()
        budget.step += 1


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file beside this one")
    parser.add_argument("--features", type=Path, required=True, help="folder written by prepare_features.py")
    parser.add_argument("--codec", type=Path, required=True, help="exported codec whose tokens these are")
    parser.add_argument("--run", type=Path, required=True, help="folder for the log, the state and the export")
    parser.add_argument("--init", type=Path, help="exported model.safetensors to start from")
    parser.add_argument("--old-codec", type=Path, help="model.safetensors of the codec that --init speaks, if another")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes, each with a batch of its own (default 1)")
    args = parser.parse_args()
    start(functools.partial(work, args), args.workers)


def work(args: argparse.Namespace, workers: Workers) -> None:
    """Train as one of the workers."""
    torch.set_num_threads(args.threads)
    # The fused attention's backward pass is the slower one on CPUs at these lengths: 2.5 s a step against 1.6 s.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    with sdpa_kernel(SDPBackend.MATH):
        recipe = read_recipe(args.config)
        run(Trainer(recipe, args.features, args.codec, args.run, args.init, workers, args.old_codec))


if __name__ == "__main__":
    main()
