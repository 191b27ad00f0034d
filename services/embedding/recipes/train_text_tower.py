"""Train MuLan's text tower on, towards the finished points and codes of recordings; the audio tower stays as it is.

`python services/embedding/recipes/train_text_tower.py --config TOML --mulan DIR --features DIR --run DIR`

Both towers together learn what a space can hold in the time that the audio tower needs; the text tower costs a
hundredth of it. So it learns on against the centred points of every training clip (`style_`, from `fit_codes.py`),
which change no more: the decoupled contrastive loss, the cosine to the clip's point, and the cross-entropy of the
clip's first codes under a softmax of distances to the codebook, each level after the clip's own codes of those before.
The last two close what is left of the modality gap: a text then gets the codes of its recording as often as its words
allow.

Points of recordings, codebooks and both means stay, bit for bit, so whatever was trained on `style_` may hear the new
tower. The servable checkpoint, `RUN/export/NAME`, is the best on the validation split by the mean reciprocal rank that
`train_mulan.py` takes too. Minutes of one core, so a run that was stopped begins anew.

Legend: B clips, D of the space, K levels, V entries of a codebook.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fit_codes import load_mulan
from joint_features import JointFeatures
from stretto_embedding.models.mulan import MuLan
from stretto_embedding.models.mulan.text_tower import TextTower
from stretto_shared import weights
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from torch import Tensor, nn
from torch.nn import functional as F
from train_mulan import contrastive_loss, fitted_temperature, raw_text, retrieval, saying_the_same, text_by_length


@dataclass(frozen=True)
class Recipe:
    """One run, as its TOML file states it.

    Args:
        num_levels: Codebooks whose codes the text has to find.
        code_temperature: What squared distances to a codebook's entries are divided by.
    """

    minutes: float
    batch_size: int
    learning_rate: float
    max_steps: int = 0
    warmup_steps: int = 50
    weight_decay: float = 0.05
    dropout: float = 0.1
    states_noise: float = 0.05
    same_caption_cosine: float = 0.98
    min_temperature: float = 0.03
    num_levels: int = 2
    code_temperature: float = 0.1
    validate_every_s: float = 60.0
    bf16: bool = True
    seed: int = 0


class Told:
    """Captions of a split, and the points and codes of their clips."""

    def __init__(self, folder: Path, split: str, model: MuLan) -> None:
        self.captions = JointFeatures([(folder, split)])
        self.points = torch.cat([torch.from_numpy(np.load(path)).float() for path in _style_paths(folder, split)])
        if len(self.points) != len(self.captions):
            raise SystemExit(
                f"expected a point for each of {len(self.captions)} clips of {split}, got {len(self.points)}. "
                "Run fit_codes.py on these features."
            )
        self.codes = model.quantize(self.points)


def _style_paths(folder: Path, split: str) -> list[Path]:
    """The points of those shards that have captions, in the order in which `JointFeatures` reads them."""
    mels = sorted(folder.glob(f"mel_{split}_*.npy"))
    names = [path.stem.removeprefix("mel_") for path in mels]
    return [folder / f"style_{name}.npy" for name in names if (folder / f"text_{name}.npz").exists()]


def codebooks(model: MuLan) -> list[Tensor]:
    """The entries [V, D] of each level, coarsest first."""
    return [value for name, value in model.quantizer.named_buffers() if name.endswith(".embed")]


def code_loss(points: Tensor, codes: Tensor, books: list[Tensor], temperature: float) -> Tensor:
    """Cross-entropy of codes [B, K] for texts' points [B, D], each level after the recording's own codes."""
    losses, rest = [], points
    for level, book in enumerate(books):
        distances = torch.cdist(rest, book).square()
        losses.append(F.cross_entropy(-distances / temperature, codes[:, level]))
        rest = rest - book[codes[:, level]]
    return torch.stack(losses).mean()


class Trainer:
    """A MuLan whose text tower learns, and the captions that it learns from."""

    def __init__(self, recipe: Recipe, source: Path, features: Path, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        self.model, self.resolved = load_mulan(source)
        with torch.inference_mode():
            self.train, self.valid = (Told(features, split, self.model) for split in ("train", "valid"))
        tower = TextTower(self.model.config, recipe.dropout)
        tower.load_state_dict(self.model.text.state_dict())
        self.model.text = tower
        self.books = [book.clone() for book in codebooks(self.model)[: recipe.num_levels]]
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())
        self.parameters = list(tower.parameters())
        groups = [
            {"params": self.parameters, "weight_decay": recipe.weight_decay},
            {"params": [self.log_temperature], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, recipe.learning_rate, (0.9, 0.98))
        self.log = RunLog(folder)
        self.best = -1.0
        self.random = np.random.default_rng(recipe.seed)
        self.order: list[int] = []

    def next_indices(self) -> list[int]:
        """The next clips of a random order of all."""
        size = min(self.recipe.batch_size, len(self.train.points))
        if len(self.order) < size:
            self.order = self.random.permutation(len(self.train.points)).tolist()
        chosen, self.order = self.order[:size], self.order[size:]
        return chosen

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One optimiser step."""
        recipe, indices = self.recipe, self.next_indices()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe.learning_rate, step, progress, warmup_steps=recipe.warmup_steps)
        which = [int(self.random.integers(self.train.captions.num_captions(index))) for index in indices]
        captions = self.train.captions.captions(indices, which)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            raw = text_by_length(self.model, captions, recipe.states_noise)
        text = F.normalize(raw.float() - self.model.text_mean, dim=1)
        audio = self.train.points[indices]
        same = saying_the_same(captions, recipe.same_caption_cosine)
        temperature = self.log_temperature.exp().clamp(min=recipe.min_temperature)
        losses = {
            "contrastive": contrastive_loss(audio, text, temperature, same),
            "away": (1 - (text * audio).sum(1)).mean(),
            "code": code_loss(text, self.train.codes[indices], self.books, recipe.code_temperature),
        }
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    @torch.inference_mode()
    def scores(self) -> dict[str, float]:
        """Of the longest caption of training templates of every validation clip: ranks, cosine, codes in common."""
        told = self.valid
        indices = list(range(len(told.points)))
        which = [told.captions.num_captions(index) - 1 for index in indices]
        text = F.normalize(raw_text(self.model, told.captions, indices, which) - self.model.text_mean, dim=1)
        shared = (self.model.quantize(text) == told.codes).float().mean(0)
        return retrieval(text, told.points) | {
            "cosine": float((text * told.points).sum(1).mean()),
            **{f"code_{level}": float(shared[level]) for level in range(self.recipe.num_levels)},
        }

    def validate(self, budget: Budget) -> None:
        """Score the tower, and export it if it is the best so far."""
        self.model.eval()
        scores = {f"valid_{name}": value for name, value in self.scores().items()}
        self.log.write({"step": budget.step, "minutes": budget.elapsed_s / 60, **scores})
        if scores["valid_mrr"] >= self.best:
            self.best = scores["valid_mrr"]
            self.export(budget, scores)
        self.model.train()

    @torch.inference_mode()
    def export(self, budget: Budget, scores: Mapping[str, float]) -> None:
        """Write the servable checkpoint: the old one with this text tower and the temperature that fits it."""
        about, model = self.resolved.config, self.model
        state = {name: value.half() for name, value in model.servable_state().items()}
        state["log_temperature"] = fitted_temperature(model, self.valid.captions).log().half()
        training = {
            **about["training"],
            "text_tower_minutes": round(budget.elapsed_s / 60, 1),
            "text_tower_steps": budget.step,
            **{name: round(value, 4) for name, value in scores.items()},
        }
        weights.write(
            self.folder / "export" / about["name"],
            state,
            name=about["name"],
            architecture=about["architecture"],
            config=dataclasses.asdict(model.config),
            licence=about["licence"],
            score="",
            training=training,
        )


def run(trainer: Trainer) -> None:
    """Train until the budget is used; the tower as it was is validated first, and stays if nothing is better."""
    recipe, budget = trainer.recipe, Budget(trainer.recipe.minutes, max_steps=trainer.recipe.max_steps)
    trainer.validate(budget)
    averages, validated = Averages(), time.monotonic()
    for step in budget.steps():
        averages.add(trainer.step(step, budget.progress))
        if time.monotonic() - validated > recipe.validate_every_s:
            trainer.log.write({"step": step, "minutes": budget.elapsed_s / 60, **averages.take()})
            trainer.validate(budget)
            validated = time.monotonic()
    trainer.log.write({"step": budget.step, "minutes": budget.elapsed_s / 60, **averages.take()})
    trainer.validate(budget)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file")
    parser.add_argument("--mulan", type=Path, required=True, help="folder of the finished MuLan to start from")
    parser.add_argument("--features", type=Path, required=True, help="folder with mel_, text_ and style_")
    parser.add_argument("--run", type=Path, required=True, help="folder for the log and the export")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe(**tomllib.loads(args.config.read_text()))
    run(Trainer(recipe, args.mulan, args.features, args.run))


if __name__ == "__main__":
    main()
