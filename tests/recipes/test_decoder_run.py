"""A run of the decoder alone renews the codebooks once, and after that leaves every token as it is."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from stretto_shared.training.corpus.debug import build_debug_corpus

sys.path.insert(0, str(Path(__file__).parents[2] / "services/codec/recipes"))

from train_codec import Recipe, Trainer, read_recipe, run

RECIPES = Path(__file__).parents[2] / "services/codec/recipes"
DECODER = ("decoder", "up.", "head.", "quantizer.project_out")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build_debug_corpus(folder, num_clips=8, seed=0)
    return folder


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return dataclasses.replace(
        read_recipe(RECIPES / "debug.toml"),
        max_steps=6,
        bypass_steps=0,
        learning_rate=1e-3,
        equal_norm_from=1,
        fewest_codebooks=2,
        fewest_share=0.5,
        encoder_after=1.0,
        renew_codebooks=True,
        refit_last=False,
        refit_crop_s=2.0,
    )


def test_only_the_decoder_learns_and_the_codes_of_later_levels_have_one_norm(
    corpus: Path, recipe: Recipe, tmp_path: Path
) -> None:
    start = Trainer(dataclasses.replace(recipe, renew_codebooks=False), tmp_path / "start", [corpus], None)
    init = tmp_path / "start.safetensors"
    save_file({name: value.contiguous() for name, value in start.model.state_dict().items()}, init)
    folder = tmp_path / "run"
    run(recipe, folder, [corpus], init)
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert sum("renewed" in record for record in records) == 1 and not any("refit" in record for record in records)
    state = torch.load(folder / "state.pt", weights_only=True)["model"]
    before = load_file(init)
    changed = {name for name, value in state.items() if not torch.equal(value, before[name])}
    assert all(name.startswith((*DECODER, "quantizer.codebooks.")) for name in changed)
    assert any(name.startswith("decoder_fine") for name in changed)
    for level in range(1, recipe.model["num_codebooks"]):
        norms = state[f"quantizer.codebooks.{level}.embed"].norm(dim=1)
        assert torch.allclose(norms, norms[:1].expand_as(norms), rtol=1e-3)
    # Another run of the same folder is at the end of its budget; its one step must leave the tokens alone too.
    codebooks = {name: value for name, value in state.items() if name.startswith("quantizer.codebooks.")}
    run(recipe, folder, [corpus], init)
    again = torch.load(folder / "state.pt", weights_only=True)["model"]
    assert all(torch.equal(again[name], value) for name, value in codebooks.items())
    assert all(torch.equal(again[name], before[name]) for name in before if name.startswith(("encoder", "down.")))


def test_the_fewest_codebooks_are_kept_as_often_as_the_recipe_says(recipe: Recipe) -> None:
    trainer = object.__new__(Trainer)
    trainer.recipe = dataclasses.replace(recipe, quantizer_dropout=1.0)
    trainer.config = dataclasses.make_dataclass("Config", ["num_codebooks"])(4)
    trainer.random = np.random.default_rng(0)
    kept = trainer._kept_codebooks(4000)
    assert int(kept.min()) == 2 and int(kept.max()) == 4
    # Half by the share, and a third of the other half by chance.
    assert float((kept == 2).float().mean()) == pytest.approx(0.5 + 0.5 / 3, abs=0.03)
