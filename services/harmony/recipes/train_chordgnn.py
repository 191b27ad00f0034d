"""Train ChordGNN: `services/harmony/recipes/train_chordgnn.py --config chordgnn.toml --pieces FILE --run DIR`.

The pieces are those that `chordgnn_pieces.py` packed. A batch is stretches of pieces, each centred on the line of
fifths and moved by some fifths more; the loss is a cross-entropy for each part, weighed as Liebel and Körner (2018)
learn it, of the network and of its post-processing. The exported weights are a running mean of the trained ones, at
the step that reads most of the validation pieces' time as their analysts did; or the last, where a config trains on
those as well, as the paper did (`with_validation`): such a config is one that was chosen without. `--leave-out
dcml/corelli` trains on everything else of DCML and nothing but DCML, to test on that corpus.
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
from chordgnn_pieces import Piece, Stretches, choose_numerals, read, recount
from stretto_harmony.models.chordgnn.batch import GraphBatch, centre_of, collate
from stretto_harmony.models.chordgnn.config import NUM_QUALITIES, ChordGnnConfig
from stretto_harmony.models.chordgnn.network import ChordGnn
from stretto_harmony.models.chordgnn.parts import NO_LABEL
from stretto_harmony.models.chordgnn.weights import ARCHITECTURE, load_chordgnn
from stretto_shared import weights
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from torch import Tensor, nn
from torch.nn import functional as F

NUMERAL_PARTS = ("key", "degree", "of_degree", "quality", "inversion", "root")
"""The parts that make a Roman numeral: one is right where all of these are."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One TOML file."""

    name: str
    licence: str
    minutes: float
    model: dict[str, Any]
    train_groups: tuple[str, ...] = ("augmentednet", "dcml", "wir")
    valid_groups: tuple[str, ...] = ("augmentednet/validation",)
    with_validation: bool = False
    favoured: str = "augmentednet"
    favour: float = 1.0
    max_steps: int = 0
    batch_size: int = 64
    num_onsets: int = 320
    jitter: int = 3
    unsigned_share: float = 0.3
    gap_power: float = 0.5
    emphasis: dict[str, float] = dataclasses.field(default_factory=dict)
    label_smoothing: float = 0.05
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 200
    mean_decay: float = 0.998
    validate_every_s: float = 30.0
    log_every: int = 200
    seed: int = 0


class WeighedLoss(nn.Module):
    """The sum of the parts' losses, each with a weight that is learnt (Liebel and Körner, 2018)."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.spread = nn.ParameterDict({name: nn.Parameter(torch.ones(())) for name in names})

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        squares = {name: self.spread[name] ** 2 for name in losses}
        return torch.stack([0.5 / squares[name] * losses[name] + torch.log1p(squares[name]) for name in losses]).sum()


def part_losses(
    told: dict[str, Tensor], parts: dict[str, Tensor], weight: Tensor, smoothing: float
) -> dict[str, Tensor]:
    """The mean cross-entropy of each part over onsets, with a weight [O] each."""
    losses = {}
    for name, logits in told.items():
        each = F.cross_entropy(logits, parts[name], reduction="none", ignore_index=NO_LABEL, label_smoothing=smoothing)
        losses[name] = (each * weight).sum() / (weight * (parts[name] != NO_LABEL)).sum().clamp(min=1e-6)
    return losses


def in_groups(group: str, prefixes: Sequence[str]) -> bool:
    """Whether a group is one of these folders, or in one."""
    return any(group == prefix or group.startswith(f"{prefix}/") for prefix in prefixes)


def moved_to(batch: GraphBatch, device: torch.device) -> GraphBatch:
    """The batch on a device, its lengths where they are."""
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    moved = {
        name: value.to(device) for name, value in fields.items() if isinstance(value, Tensor) and name != "lengths"
    }
    return GraphBatch(**{**fields, **moved, "edges": tuple(edge.to(device) for edge in batch.edges)})


class Validation:
    """Whole pieces on the device, and how much of their time is read as the analyst did."""

    def __init__(self, pieces: Sequence[Piece], device: torch.device, batch_size: int = 8) -> None:
        self.batches = []
        for start in range(0, len(pieces), batch_size):
            some = pieces[start : start + batch_size]
            shifts = [-centre_of(piece.graph) for piece in some]
            batch = moved_to(collate([piece.graph for piece in some], shifts), device)
            joined = {
                name: torch.from_numpy(np.concatenate([piece.parts[name] for piece in some])) for name in some[0].parts
            }
            shift = torch.repeat_interleave(torch.tensor(shifts), batch.lengths)
            for name in ("key", "root"):
                joined[name] = torch.where(joined[name] == NO_LABEL, NO_LABEL, joined[name] + shift)
            gaps = [np.diff(piece.graph.onset_time, append=piece.num_ticks) for piece in some]
            weight = torch.from_numpy(np.concatenate(gaps)).float() * (joined["key"] != NO_LABEL)
            self.batches.append((batch, {name: value.to(device) for name, value in joined.items()}, weight.to(device)))

    @torch.inference_mode()
    def score(self, model: ChordGnn) -> dict[str, float]:
        """The share of time at which each part is right, and all that make a numeral; of each stage the last's."""
        model.eval()
        right = dict.fromkeys((*NUMERAL_PARTS, "numeral", "first"), 0.0)
        total = 0.0
        for batch, parts, weight in self.batches:
            stages = model.stages(batch)
            total += weight.sum().item()
            for stage, name in ((stages[0], "first"), (stages[-1], "numeral")):
                hits = {part: stage[part].argmax(dim=1) == parts[part] for part in NUMERAL_PARTS}
                right[name] += (weight * torch.stack(list(hits.values())).all(dim=0)).sum().item()
            for part, hit in hits.items():
                right[part] += (weight * hit).sum().item()
        model.train()
        return {name: value / max(total, 1) for name, value in right.items()}


def split(pieces: Sequence[Piece], recipe: Recipe, leave_out: str) -> tuple[list[Piece], list[Piece]]:
    """Pieces to train and to validate on; without `leave_out`, those of the recipe's groups."""
    if not leave_out:
        kept = ("", "validation") if recipe.with_validation else ("",)
        train = [piece for piece in pieces if piece.held_out in kept and in_groups(piece.group, recipe.train_groups)]
        return train, [piece for piece in pieces if in_groups(piece.group, recipe.valid_groups)]
    others = [
        piece for piece in pieces if in_groups(piece.group, ("dcml",)) and not in_groups(piece.group, (leave_out,))
    ]
    return [piece for n, piece in enumerate(others) if n % 12], others[::12]


def export(model: ChordGnn, recipe: Recipe, run: Path, training: dict[str, Any], score: str) -> None:
    """Write the network in half precision."""
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    weights.write(
        run / "export" / recipe.name,
        {name: value.cpu().contiguous() for name, value in tensors.items()},
        name=recipe.name,
        architecture=ARCHITECTURE,
        config=dataclasses.asdict(model.config),
        licence=recipe.licence,
        score=score,
        training=training,
    )


class Trainer:
    """A network, its running mean, and what moves them."""

    def __init__(self, recipe: Recipe, model: ChordGnn, mean: ChordGnn, stretches: Stretches, favour: Tensor) -> None:
        self.recipe, self.model, self.mean, self.stretches, self.favour = recipe, model, mean, stretches, favour
        names = [f"{stage}_{part}" for stage in ("first", "post") for part in model.config.heads]
        self.weigh = WeighedLoss(names).to(stretches.device)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(model.parameters()), "weight_decay": recipe.weight_decay},
                {"params": list(self.weigh.parameters()), "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
        )

    def step(self, step: int, rate: float) -> Tensor:
        """One step on a batch of stretches; its loss."""
        recipe, device = self.recipe, self.stretches.device
        starts = self._starts()
        jitter = torch.randint(-recipe.jitter, recipe.jitter + 1, (recipe.batch_size,), device=device)
        unsigned = torch.rand(recipe.batch_size, device=device) < recipe.unsigned_share
        batch, parts, gap = self.stretches.draw(starts, recipe.num_onsets, jitter, unsigned)
        weight = gap.clamp(min=1).float() ** recipe.gap_power
        losses = {}
        for stage, told in zip(("first", "post"), self.model.stages(batch)):
            for part, loss in part_losses(told, parts, weight, recipe.label_smoothing).items():
                losses[f"{stage}_{part}"] = recipe.emphasis.get(part, 1.0) * loss
        total: Tensor = self.weigh(losses)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        decay = min(recipe.mean_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.model.parameters()), 1 - decay)
        return total.detach()

    def _starts(self) -> Tensor:
        """Onsets at which stretches begin, favoured groups more often."""
        drawn = torch.rand(self.recipe.batch_size, device=self.stretches.device, dtype=torch.float64)
        return torch.searchsorted(self.favour, drawn * self.favour[-1]).clamp(max=self.stretches.num_onsets - 1)


def favour_of(pieces: Sequence[Piece], recipe: Recipe, device: torch.device) -> Tensor:
    """The running sum [O] of how often each onset is drawn."""
    shares = [
        np.full(piece.graph.num_onsets, recipe.favour if in_groups(piece.group, (recipe.favoured,)) else 1.0)
        for piece in pieces
    ]
    return torch.from_numpy(np.concatenate(shares).cumsum()).to(device)


def train(
    recipe: Recipe, path: Path, run: Path, device: torch.device, leave_out: str, start: Path | None = None
) -> None:
    """Train, from an export's weights where one is given, and export the best step."""
    log = RunLog(run)
    torch.manual_seed(recipe.seed)
    torch.set_float32_matmul_precision("high")
    pieces, numerals = read(path)
    trained_on, valid = split(pieces, recipe, leave_out)
    if not trained_on or not valid:
        raise SystemExit(f"{path} has {len(trained_on)} pieces to train on and {len(valid)} to validate on.")
    config = ChordGnnConfig(**recipe.model)
    chosen = choose_numerals(trained_on, numerals, config.num_numerals - 1)
    recount([*trained_on, *valid], numerals, chosen)
    model, mean = ChordGnn(config).to(device), ChordGnn(config).to(device).eval()
    fields = torch.tensor([dataclasses.astuple(numeral) for numeral in chosen], dtype=torch.int16)
    for each in (model, mean):
        each.numerals[: len(fields)] = fields.to(device)
        each.numerals[len(fields) :] = fields[-1].to(device)
    if start is not None:
        missing = model.load_state_dict(load_chordgnn(start).state_dict(), strict=False).missing_keys
        log.write({"started_from": start.parent.parent.name, "made_anew": ", ".join(missing)})
    mean.load_state_dict(model.state_dict())
    stretches = Stretches(trained_on, NUM_QUALITIES, device)
    trainer = Trainer(recipe, model, mean, stretches, favour_of(trained_on, recipe, device))
    validation = Validation(valid, device)
    budget = Budget(recipe.minutes, max_steps=recipe.max_steps)
    parameters = sum(value.numel() for value in model.parameters())
    log.write(
        {"pieces": len(trained_on), "valid": len(valid), "onsets": stretches.num_onsets, "parameters": parameters}
    )
    training = {
        "recipe": "train_chordgnn.py",
        "minutes": recipe.minutes,
        "pieces": len(trained_on),
        "left_out": leave_out,
    }
    best, averages, validated = -1.0, Averages(), time.monotonic()

    def keep_best() -> float:
        found = validation.score(mean)
        log.write({"step": budget.step, **{f"valid_{name}": value for name, value in found.items()}})
        if found["numeral"] > best or recipe.with_validation:
            share = f"{found['numeral']:.3f} of the time of {len(valid)} validation pieces"
            words = f"all parts of the numeral, each by itself, right for {share}"
            export(mean, recipe, run, {**training, "steps": budget.step}, words)
        return max(best, found["numeral"])

    for step in budget.steps():
        rate = learning_rate(recipe.learning_rate, step, budget.progress, warmup_steps=recipe.warmup_steps)
        loss = trainer.step(step, rate)
        if (step + 1) % recipe.log_every == 0:
            averages.add({"loss": loss.item()})
            log.write({"step": step + 1, "elapsed_s": budget.elapsed_s, **averages.take()})
        if time.monotonic() - validated >= recipe.validate_every_s:
            best, validated = keep_best(), time.monotonic()
    keep_best()


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--pieces", type=Path, required=True, help="file of chordgnn_pieces.py")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=0.0, help="in place of the config's")
    parser.add_argument("--seed", type=int, default=-1, help="in place of the config's")
    parser.add_argument("--leave-out", default="", help="a corpus of DCML, as dcml/corelli")
    parser.add_argument("--start", type=Path, help="an export to go on from; parts that only one has are made or left")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    recipe = Recipe(**tomllib.loads(args.config.read_text()))
    changes: dict[str, Any] = {"minutes": args.minutes} if args.minutes else {}
    changes |= {"seed": args.seed} if args.seed >= 0 else {}
    recipe = dataclasses.replace(recipe, **changes)
    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1) + "\n")
    train(recipe, args.pieces, args.run, torch.device(args.device), args.leave_out, args.start)


if __name__ == "__main__":
    main()
