"""The recipe of a stage runs end to end on features made in seconds, and its parts do what they say."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from stretto_shared import weights
from stretto_shared.nn.stage_lm import UNTOLD, StageConfig, StageLM
from stretto_shared.nn.stage_lm.model import attend
from stretto_shared.training.stages import start, trainer
from stretto_shared.training.stages.attention import causal_attention
from stretto_shared.training.stages.dataset import StageFeatures, random_windows, wrong_in_part
from stretto_shared.training.stages.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "services/acoustic/recipes"
DEBUG = RECIPES / "debug_stage.toml"
NUM_CLIPS, NUM_FRAMES, DIM = 12, 64, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features in which every token follows from its source, and the exported models that made them."""
    folder = tmp_path_factory.mktemp("stage")
    (folder / "features").mkdir()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    for shard in ("train_0000", "valid_0000"):
        semantic = rng.integers(0, 32, (NUM_CLIPS, 2 * NUM_FRAMES))
        codes = np.stack([(semantic[:, ::2] + 7 * k) % 64 for k in range(12)], axis=1)
        style = rng.standard_normal((NUM_CLIPS, DIM))
        save = {"semantic": semantic.astype(np.int16), "codes": codes.astype(np.int16)}
        save |= {"style": (style / np.linalg.norm(style, axis=1, keepdims=True)).astype(np.float16)}
        save |= {"melody": rng.integers(0, 8, (NUM_CLIPS, 2, 16)).astype(np.int16)}
        for kind, array in save.items():
            np.save(folder / "features" / f"{kind}_{shard}.npy", array)
    quantizers = {"codec": (12, 64, 24), "joint": (2, 16, DIM), "tune": (2, 8, 6)}
    for name, (num_codebooks, cardinality, dim) in quantizers.items():
        tensors = {f"quantizer.codebooks.{k}.embed": torch.randn(cardinality, dim) for k in range(num_codebooks)}
        _export(folder / name, tensors)
    _export(folder / "tokenizer", {"centroids": torch.randn(32, 10)})
    return folder


def _export(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    weights.write(folder, tensors, name=folder.name, architecture="-", config={}, licence="-", score="", training={})


def makers_of(folder: Path) -> trainer.Makers:
    return trainer.Makers(folder / "codec", folder / "tokenizer", folder / "joint", folder / "tune")


def features_of(folder: Path, recipe: Recipe) -> StageFeatures:
    config = trainer.config_of(recipe, makers_of(folder))
    quantizer = start.quantizer_of(folder / "joint", config.num_style_codes)
    return StageFeatures(folder / "features", "train", recipe, config, quantizer)


def test_the_stage_recipe_learns_what_the_source_tells_and_exports(folder: Path, tmp_path: Path) -> None:
    arguments = [
        *("--config", DEBUG, "--features", folder / "features", "--tokens", folder / "codec"),
        *("--source", folder / "tokenizer", "--style", folder / "joint", "--melody", folder / "tune"),
        *("--run", tmp_path),
    ]
    script = RECIPES / "train_stage.py"
    subprocess.run([sys.executable, str(script), *map(str, arguments)], check=True, timeout=900)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [record["ce"] for record in records if "ce" in record]
    assert losses[-1] < 0.9 * losses[0]
    exported = tmp_path / "export" / "stage-debug"
    resolved = weights.resolve(exported.as_uri(), name="stage-debug", default_dir=exported)
    assert resolved.config["architecture"] == "StageLM"
    config = StageConfig(**resolved.config["config"])
    for field, maker in (
        ("tokens", "codec"), ("source_tokens", "tokenizer"), ("style_encoder", "joint"), ("melody_encoder", "tune"),
    ):  # fmt: skip
        digest = json.loads((folder / maker / "config.json").read_text())["weights_sha256"]
        assert getattr(config, field) == f"{maker}@{digest[:12]}"
    model = StageLM(config)
    model.load_state_dict({name: value.float() for name, value in load_file(exported / "model.safetensors").items()})
    assert torch.isfinite(model(torch.zeros(1, 8, dtype=torch.int64))).all()
    again = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], check=True, timeout=900, capture_output=True, text=True
    )
    assert '"step": 41' in again.stdout  # a run that is over takes one step more, from where it was


def test_what_a_stage_hears_has_to_be_named(folder: Path) -> None:
    recipe = read_recipe(DEBUG)
    with pytest.raises(SystemExit, match="needs --melody"):
        trainer.config_of(recipe, dataclasses.replace(makers_of(folder), melody=None))


@pytest.mark.parametrize("name", ["semantic/recipes/musiclm_semantic", "acoustic/recipes/musiclm_coarse",
                                  "acoustic/recipes/musiclm_fine"])  # fmt: skip
def test_every_recipe_is_of_a_stage_whose_windows_fit_a_clip(name: str) -> None:
    recipe = read_recipe(ROOT / "services" / f"{name}.toml")
    config = StageConfig(**recipe.model)
    assert recipe.name == name.rsplit("/", 1)[1]
    assert config.window_s <= 10.24 and config.stride_s == config.window_s / 2
    assert len(recipe.codebook_weights) in (0, config.num_codebooks)


def test_windows_are_cut_at_one_moment_from_all_that_belongs_to_them(folder: Path) -> None:
    features = features_of(folder, read_recipe(DEBUG))
    windows = features.windows([3, 5], [10, 20], 8)
    assert windows.source is not None and windows.melody is not None and windows.style is not None
    own = windows.stream.unflatten(1, (8, 4)).transpose(1, 2)
    for k in range(4):
        assert torch.equal(own[:, k], (windows.source[:, 0, ::2] + 7 * k) % 64)
    melody = np.load(folder / "features" / "melody_train_0000.npy")
    assert np.array_equal(windows.melody[0].numpy(), melody[3, :, 2:4])  # 10 frames at 12.5 Hz are 2.5 columns
    beyond = features.windows([0], [60], 4).melody
    assert beyond is not None and beyond.shape == (1, 2, 1) and int(beyond.min()) >= 0


def test_noise_moves_a_style_and_none_leaves_the_nearest_codes(folder: Path) -> None:
    features = features_of(folder, read_recipe(DEBUG))
    assert features.style is not None
    points = torch.from_numpy(features.style.astype(np.float32))
    codes = features.style_codes(points, None)
    tables = start.code_vectors(folder / "joint", 0, 2)
    assert tables is not None
    first = torch.cdist(torch.nn.functional.normalize(points, dim=1), tables[0]).argmin(1)
    assert torch.equal(codes[:, 0], first)
    moved = features.style_codes(points, 3 * torch.randn(points.shape, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(moved[:, 0], first)


def test_random_windows_leave_out_what_the_recipe_says(folder: Path) -> None:
    recipe = dataclasses.replace(
        read_recipe(DEBUG), style_dropout=1.0, melody_dropout=0.0, source_dropout=0.5, short_share=1.0
    )
    features, rng = features_of(folder, recipe), np.random.default_rng(0)
    lengths, untold = set(), []
    for _ in range(20):
        windows = random_windows(features, range(NUM_CLIPS), recipe, rng)
        assert windows.style is not None and windows.melody is not None and windows.source is not None
        assert (windows.style == UNTOLD).all() and not (windows.melody == UNTOLD).any()
        is_untold = (windows.source == UNTOLD).flatten(1)
        assert torch.equal(is_untold.any(1), is_untold.all(1))  # a source is left out whole
        untold += is_untold.all(1).tolist()
        lengths.add(windows.stream.shape[1])
    assert len(lengths) > 5 and all(length % 4 == 0 for length in lengths)
    assert 0.4 < np.mean(untold) < 0.6


def test_a_share_of_half_of_the_rows_is_wrong() -> None:
    tokens = torch.arange(64).repeat(200, 1)
    wrong = (wrong_in_part(tokens, 0.5, np.random.default_rng(0)) != tokens).float().mean(1)
    assert 0.4 < float((wrong > 0).float().mean()) < 0.6
    assert 0.4 < float(wrong.max()) < 0.75
    assert torch.equal(wrong_in_part(tokens, 0.0, np.random.default_rng(0)), tokens)


def test_training_attention_and_its_gradients_are_torchs() -> None:
    torch.manual_seed(0)
    length = 420  # more than two blocks
    query, key, value = (torch.randn(2, 2, length, 4, requires_grad=True) for _ in range(3))
    learned, outer = torch.randn(2, length, length, requires_grad=True), torch.randn(2, 2, length, 4)
    ahead = torch.ones(length, length, dtype=torch.bool).triu(1)
    found = []
    for how in (attend, causal_attention):
        outcome = how(query, key, value, learned.masked_fill(ahead, -torch.inf)[None])
        found.append((outcome, *torch.autograd.grad(outcome, (query, key, value, learned), outer)))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_stage_starts_at_the_frequencies_of_its_tokens_and_with_like_codes_alike(folder: Path) -> None:
    recipe = read_recipe(DEBUG)
    config = trainer.config_of(recipe, makers_of(folder))
    torch.manual_seed(0)
    model = StageLM(config)
    own = np.full((3, 4, 50), 5, np.int16)
    start.start_frequencies(model, own)
    assert model.token_bias.argmax(1).tolist() == [5] * 4
    shares = model.token_bias.softmax(1)[:, 5]
    torch.testing.assert_close(shares, torch.full((4,), 151 / (151 + 63)))
    start.start_nearness(model)
    near = model.bias[: config.num_buckets]
    assert (near[:, 0].diff() < 0).all() and near[0].abs().max() == 0  # the first head falls off with distance
    vectors = torch.randn(4, 64, 24)
    vectors[0, 7] = vectors[0, 9]
    start.start_table(model.stream, vectors)
    table = model.stream.of_codebook(0).detach()
    apart = torch.cdist(table, table)
    assert float(apart[7, 9]) < 0.5 * float(apart[7].median())


def test_a_joint_encoder_without_a_quantizer_is_refused(tmp_path: Path) -> None:
    save_file({"audio.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(SystemExit, match="holds no 2 codebooks"):
        start.quantizer_of(tmp_path, 2)
