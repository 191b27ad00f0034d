"""Train one module of the modular analyzer, or put the trained ones together.

    python services/harmony/recipes/train_modular.py --config services/harmony/recipes/modular.toml --module ccm
        --pieces corpus/harmony/modular.npz --run runs/modular [--device cuda] [--leave-out dcml/mozart_piano_sonatas]
        [--start runs/before]

The pieces are those of `pack_modular.py`: the published training split and, with `extra` in the configuration,
corpora without any work of the validation and test splits. The two modules that hear notes do without pieces whose
labels are not of their notes (`label_fit`), in training and in what their step is chosen by. The budget is wall time,
with the learning rate by its progress. Of the weights, or of their running mean (`mean_decay`), what is best on the
published validation split is kept in half precision in `RUN/MODULE.safetensors`; `assemble_modular.py` puts the
modules together.

Legend: B rows, T notes or chords, P pieces.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modular_pieces import ChordRows, NoteStore, Piece, Spans, change_targets, chord_rows, label_fit, spans_of
from modular_strays import LONGEST, KeyRows, key_rows
from modular_twins import twins
from pack_modular import load_pieces
from safetensors.torch import load_file, save_file
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.config import ModularConfig
from stretto_harmony.models.modular.networks import CausalModule, CausalState, Modules
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from torch import Tensor, nn
from torch.nn import functional as F

MODULES = ("ctm", "ccm", "csm", "ktm", "ksm")
HEARING = ("ctm", "ccm")
MAX_CHORDS = 10_000
NOTES_PER_CHUNK = 768


@dataclass(frozen=True)
class Schedule:
    """How one module is trained.

    Args:
        minutes: Of wall time.
        batch_size: Spans, chunks of notes or pieces.
        learning_rate: At its highest.
        weight_decay: Of AdamW.
        max_steps: Stop after so many; 0 for no such limit.
        warmup_steps: Until the rate is at its highest.
        validate_every_s: Seconds between validations.
        transpose: Whether notes are transposed at random, by up to 7 fifths.
        stray: Share of pieces that the key modules hear as readers who err do (`modular_strays.py`); 0 is published.
        hide_durations: Share of spans whose notes' durations are hidden, as they are in the published training split.
        mean_decay: Of the running mean of the weights, which is validated and kept instead of them; 0 for no mean.
        label_smoothing: Of the two modules that tell chords.
    """

    minutes: float
    batch_size: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    max_steps: int = 0
    warmup_steps: int = 100
    validate_every_s: float = 20.0
    transpose: bool = True
    stray: float = 0.0
    hide_durations: float = 0.1
    mean_decay: float = 0.0
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One TOML file.

    Args:
        name: Of the weights.
        licence: Of the weights.
        model: Sizes (`ModularConfig`).
        schedules: `all`, and what each module has otherwise.
        extra: Whether the corpora train too.
        weight_of_published: How many times the published training split counts.
        min_label_fit: What share of notes must be tones of their chords for a piece to train a module that hears notes.
        seed: Of the weights and of all that is drawn.
    """

    name: str
    licence: str
    model: dict[str, Any]
    schedules: dict[str, dict[str, Any]]
    extra: bool = True
    weight_of_published: int = 1
    min_label_fit: float = 0.0
    seed: int = 0

    def schedule(self, module: str, minutes: float) -> Schedule:
        chosen = {**self.schedules.get("all", {}), **self.schedules[module]}
        return Schedule(**{**chosen, **({"minutes": minutes} if minutes else {})})


@dataclass
class Task:
    """A module's losses: `loss(random)` of one training batch, `validate()` of the whole validation split."""

    module: nn.Module
    loss: Callable[[torch.Generator], Tensor]
    validate: Callable[[], dict[str, float]]
    kept_by: str = "valid_loss"
    records: dict[str, float] = field(default_factory=dict)


def ctm_task(modules: Modules, train: list[Piece], valid: list[Piece], plan: Schedule, device: torch.device) -> Task:
    """Chord transition: chunks of notes, binary cross-entropy at the first note of each onset."""
    module = modules.ctm
    store, targets = NoteStore(train, device), change_targets(train, device)
    held, held_targets = NoteStore(valid, device), change_targets(valid, device)
    lengths = np.diff(store.starts)

    def loss(random: torch.Generator) -> Tensor:
        drawn = _draw(lengths, plan.batch_size, random)
        start = torch.as_tensor(store.starts[:-1], device=device)[drawn]
        length = torch.as_tensor(lengths, device=device)[drawn]
        room = (length - NOTES_PER_CHUNK).clamp(min=0)
        low = start + (torch.rand(len(drawn), generator=random, device=device) * (room + 1)).long().clamp(max=room)
        high = torch.minimum(low + NOTES_PER_CHUNK, start + length)
        shift = store.shifts(drawn, random) if plan.transpose else torch.zeros_like(drawn)
        notes, is_note = store.vectors(low, high, shift)
        index = (low[:, None] + torch.arange(notes.shape[1], device=device)).clamp(max=len(targets) - 1)
        wanted = torch.where(is_note, targets[index], -1)
        return _binary(module(notes), wanted)

    def validate() -> dict[str, float]:
        logits, wanted = [], []
        for low, high in zip(held.starts[:-1], held.starts[1:]):
            notes, _ = held.vectors(_one(low, device), _one(high, device), _one(0, device))
            told = held_targets[low:high]
            logits.append(module(notes)[0][told >= 0])
            wanted.append(told[told >= 0])
        return binary_scores(torch.cat(logits), torch.cat(wanted))

    return Task(module, loss, validate)


def ccm_task(modules: Modules, train: list[Piece], valid: list[Piece], plan: Schedule, device: torch.device) -> Task:
    """Chord classification: spans of like lengths together, cross-entropy over 1,540 chords."""
    module = modules.ccm
    store, held = NoteStore(train, device), NoteStore(valid, device)
    spans, held_spans = spans_of(train, store), spans_of(valid, held)
    known = torch.tensor([float(piece.has_durations) for piece in train], device=device)
    batches = _batches_by_length(spans, plan.batch_size)

    def loss(random: torch.Generator) -> Tensor:
        rows = next(batches)
        shift = store.shifts(spans.piece[rows], random) if plan.transpose else torch.zeros_like(rows)
        shown = torch.rand(len(rows), generator=random, device=device) >= plan.hide_durations
        notes, lengths = store.spans(spans, rows, shift, known[spans.piece[rows]] * shown)
        chord = spans.chord[rows] + vectors.NUM_INVERTED * shift
        return F.cross_entropy(module(notes, lengths), chord, label_smoothing=plan.label_smoothing)

    def validate() -> dict[str, float]:
        order = torch.argsort(held_spans.high - held_spans.low)
        logits, wanted = [], []
        for rows in order.split(512):
            zeros = torch.zeros_like(rows)
            notes, lengths = held.spans(held_spans, rows, zeros, torch.ones(len(rows), device=device))
            logits.append(module(notes, lengths))
            wanted.append(held_spans.chord[rows])
        return class_scores(torch.cat(logits), torch.cat(wanted))

    return Task(module, loss, validate)


def csm_task(modules: Modules, train: list[Piece], valid: list[Piece], plan: Schedule, device: torch.device) -> Task:
    """Chord sequence: whole pieces, cross-entropy of each next chord in the same key."""
    module = modules.csm
    rows, held = chord_rows(train, device), chord_rows(valid, device)
    reduced = _reduction(module.reduction, device)

    def told(these: ChordRows, index: Tensor) -> tuple[Tensor, Tensor]:
        longest = int(these.length[index].max())
        logits = module(these.own[index, : longest - 1])
        here = torch.arange(1, longest, device=device) < these.length[index][:, None]
        here &= ~these.is_change[index, 1:longest]
        return logits[here], reduced[these.chord[index, 1:longest][here]]

    def loss(random: torch.Generator) -> Tensor:
        logits, wanted = told(rows, _pieces(rows, plan.batch_size, random))
        return F.cross_entropy(logits, wanted, label_smoothing=plan.label_smoothing)

    def validate() -> dict[str, float]:
        return class_scores(*told(held, torch.arange(len(held.length), device=device)))

    return Task(module, loss, validate)


def ktm_task(modules: Modules, train: list[Piece], valid: list[Piece], plan: Schedule, device: torch.device) -> Task:
    """Key transition: at each chord but the first, whether its key is another than the one before."""
    module = modules.ktm
    batches = _key_batches(train, plan, device)
    held = [key_rows(valid, share, np.random.default_rng(1), device, MAX_CHORDS) for share in _shares(plan)]

    def told(these: KeyRows) -> tuple[Tensor, Tensor]:
        logits = module.logit(asked(module, these))
        return logits[these.here], these.is_wrong[these.here].long()

    def loss(random: torch.Generator) -> Tensor:
        logits, wanted = told(next(batches))
        return F.binary_cross_entropy_with_logits(logits, wanted.float())

    return Task(module, loss, lambda: _of_shares([binary_scores(*told(these)) for these in held]))


def ksm_task(modules: Modules, train: list[Piece], valid: list[Piece], plan: Schedule, device: torch.device) -> Task:
    """Key sequence: where the key is another, which."""
    module = modules.ksm
    batches = _key_batches(train, plan, device)
    held = [key_rows(valid, share, np.random.default_rng(1), device, MAX_CHORDS) for share in _shares(plan)]

    def told(these: KeyRows) -> tuple[Tensor, Tensor]:
        states, wanted = asked(module, these), these.to
        return module.log_prior(CausalState(states.hidden[wanted >= 0], states.cell)), wanted[wanted >= 0]

    def loss(random: torch.Generator) -> Tensor:
        return F.nll_loss(*told(next(batches)))

    return Task(module, loss, lambda: _of_shares([class_scores(*told(these)) for these in held]))


def asked(module: CausalModule, rows: KeyRows) -> CausalState:
    """What a key module has seen when it is asked at each chord: states [P, T, H].

    It has seen the chord in the key before it, and those before in the keys in which they are heard.
    """
    return module.states_asked(rows.wide, rows.before)


def _shares(plan: Schedule) -> list[float]:
    """Of readers who err: none, and where such train too, all."""
    return [0.0, 1.0] if plan.stray else [0.0]


def _of_shares(scores: list[dict[str, float]]) -> dict[str, float]:
    """Scores by analyses, and where there are any, `stray_` ones; the loss by which a step is kept is the mean."""
    told = dict(scores[0])
    for strayed in scores[1:]:
        told.update({f"stray_{name}": value for name, value in strayed.items()})
        told["valid_loss"] = (scores[0]["valid_loss"] + strayed["valid_loss"]) / 2
    return told


def _key_batches(pieces: list[Piece], plan: Schedule, device: torch.device) -> Iterator[KeyRows]:
    """Batches of pieces of like lengths as readers hear them, drawn anew each time, without end."""
    random = np.random.default_rng(1)
    lengths = np.minimum([len(piece.chords.root) for piece in pieces], LONGEST)
    count = min(plan.batch_size, len(pieces))
    while True:
        order = np.argsort(lengths * (0.7 + 0.6 * random.random(len(lengths))))
        low = int(np.clip(random.integers(len(order)) - count // 2, 0, len(order) - count))
        yield key_rows([pieces[n] for n in order[low : low + count]], plan.stray, random, device)


TASKS = {"ctm": ctm_task, "ccm": ccm_task, "csm": csm_task, "ktm": ktm_task, "ksm": ksm_task}


def binary_scores(logits: Tensor, wanted: Tensor) -> dict[str, float]:
    """Cross-entropy in nats, accuracy, and precision, recall and F1 of changes at .5."""
    found, true = logits > 0, wanted == 1
    hits = float((found & true).sum())
    precision, recall = hits / max(1.0, float(found.sum())), hits / max(1.0, float(true.sum()))
    return {
        "valid_loss": float(F.binary_cross_entropy_with_logits(logits, wanted.float())),
        "accuracy": float((found == true).float().mean()),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
    }


def class_scores(logits: Tensor, wanted: Tensor) -> dict[str, float]:
    """Cross-entropy in nats, and accuracy."""
    return {
        "valid_loss": float(F.cross_entropy(logits, wanted)),
        "accuracy": float((logits.argmax(-1) == wanted).float().mean()),
    }


def _binary(logits: Tensor, wanted: Tensor) -> Tensor:
    here = wanted >= 0
    return F.binary_cross_entropy_with_logits(logits[here], wanted[here].float())


def _one(value: int, device: torch.device) -> Tensor:
    return torch.tensor([int(value)], device=device)


def _draw(sizes: Any, count: int, random: torch.Generator) -> Tensor:
    """`count` places [B] by the sizes."""
    edges = torch.as_tensor(np.cumsum(sizes), device=random.device)
    drawn = torch.rand(count, generator=random, device=random.device, dtype=torch.float64) * edges[-1]
    return torch.searchsorted(edges, drawn, right=True).clamp(max=len(edges) - 1)


def _pieces(rows: ChordRows, count: int, random: torch.Generator) -> Tensor:
    """`count` pieces of like lengths, so that little of a batch is padding."""
    total = len(rows.length)
    if count >= total:
        return torch.arange(total, device=rows.length.device)
    noise = torch.rand(total, generator=random, device=random.device)
    order = torch.argsort(rows.length * (0.7 + 0.6 * noise))
    place = int(torch.randint(total, (1,), generator=random, device=random.device))
    low = min(max(0, place - count // 2), total - count)
    return order[low : low + count]


def _batches_by_length(spans: Spans, size: int) -> Iterator[Tensor]:
    """Rows in batches of like lengths, in an order drawn anew for each pass, without end."""
    lengths = (spans.high - spans.low).float()
    random = torch.Generator(lengths.device).manual_seed(1)
    while True:
        noise = torch.rand(len(lengths), generator=random, device=lengths.device)
        batches = torch.argsort(lengths * (0.8 + 0.4 * noise)).split(size)
        for number in torch.randperm(len(batches), generator=random, device=lengths.device).tolist():
            yield batches[number]


def _reduction(name: str, device: torch.device) -> Tensor:
    """Of the 1,276 relative chords the place in the reduced vocabulary."""
    per_root = torch.as_tensor(vectors.REDUCED_OF[name], device=device)
    roots = torch.arange(vectors.NUM_RELATIVE, device=device)[:, None] * vectors.num_reduced(name)
    return (roots + per_root).flatten()


class RunningMean:
    """The weights of a module averaged over the steps, the latest most; few steps are averaged evenly."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self._mean, self._count = module, decay, copy.deepcopy(module), 0

    @torch.no_grad()
    def add(self) -> None:
        """Take the weights in as they are now; with a decay of 0 they are the mean."""
        decay = min(self.decay, self._count / (10 + self._count))
        self._count += 1
        torch._foreach_lerp_(list(self._mean.parameters()), list(self.module.parameters()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has the mean as its weights, and hears without dropout."""
        own = copy.deepcopy(self.module.state_dict())
        self.module.load_state_dict(self._mean.state_dict())
        self.module.eval()
        yield
        self.module.load_state_dict(own)
        self.module.train()


def train(task: Task, plan: Schedule, run: Path, name: str, seed: int, device: torch.device) -> None:
    """Train until the budget is used; keep the best on validation in `run`."""
    log = RunLog(run / name)
    random = torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.AdamW(task.module.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    budget, averages = Budget(plan.minutes, max_steps=plan.max_steps), Averages()
    mean, best, last_s = RunningMean(task.module, plan.mean_decay), float("inf"), time.monotonic()
    for step in budget.steps():
        rate = learning_rate(plan.learning_rate, step, budget.progress, warmup_steps=plan.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = task.loss(random)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(task.module.parameters(), 1.0)
        optimizer.step()
        mean.add()
        if step % 10 == 0:
            averages.add({"loss": float(loss.detach())})
        last_step = bool(plan.max_steps) and step + 1 >= plan.max_steps
        due = time.monotonic() - last_s > plan.validate_every_s
        if due or last_step or budget.elapsed_s > budget.total_s - 1:
            with torch.no_grad(), mean.in_place():
                scores = task.validate()
                if scores[task.kept_by] < best:
                    best = scores[task.kept_by]
                    _save(task.module, run / f"{name}.safetensors")
            log.write({"step": step, "elapsed_s": budget.elapsed_s, "rate": rate, **averages.take(), **scores})
            last_s = time.monotonic()


def _save(module: nn.Module, path: Path) -> None:
    """Write the weights in half precision."""
    save_file({key: value.detach().half().cpu().contiguous() for key, value in module.state_dict().items()}, path)


def training_pieces(recipe: Recipe, path: Path, leave_out: str) -> list[Piece]:
    """The published training split, so many times as it weighs, and the corpora's pieces that may train."""
    published, extra = load_pieces(path, "train"), load_pieces(path, "extra") if recipe.extra else []
    pieces = published * recipe.weight_of_published + extra
    if leave_out:
        left = [piece for piece in extra if piece.name.startswith(leave_out)]
        again = twins(pieces, left)
        pieces = [piece for piece in pieces if piece.name not in again]
        print(json.dumps({"left_out": len(left), "with_twins": len(again)}))
    return pieces


def _fitting(pieces: list[Piece], least: float) -> list[Piece]:
    """Those whose labels are of their notes."""
    return [piece for piece in pieces if label_fit(piece) >= least]


def main() -> None:
    """Parse, read, train or assemble."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--module", choices=MODULES, required=True)
    parser.add_argument("--pieces", type=Path, required=True, help="what pack_modular.py wrote")
    parser.add_argument("--leave-out", default="", help="a corpus that must not train: dcml/mozart_piano_sonatas")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a run whose module is to learn on")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=0.0, help="instead of the configuration's")
    args = parser.parse_args()
    with args.config.open("rb") as file:
        raw = tomllib.load(file)
    recipe = Recipe(**raw)
    device = torch.device(args.device)
    torch.manual_seed(recipe.seed)
    modules = Modules(ModularConfig(**recipe.model))
    if args.start:
        tensors = load_file(args.start / f"{args.module}.safetensors")
        getattr(modules, args.module).load_state_dict({key: value.float() for key, value in tensors.items()})
    pieces, valid = training_pieces(recipe, args.pieces, args.leave_out), load_pieces(args.pieces, "valid")
    if args.module in HEARING:
        pieces, valid = (_fitting(some, recipe.min_label_fit) for some in (pieces, valid))
    args.run.mkdir(parents=True, exist_ok=True)
    plan = recipe.schedule(args.module, args.minutes)
    print(json.dumps({"module": args.module, "pieces": len(pieces), **asdict(plan)}), flush=True)
    task = TASKS[args.module](modules.to(device), pieces, valid, plan, device)
    train(task, plan, args.run, args.module, recipe.seed, device)


if __name__ == "__main__":
    main()
