"""What the loss eval of the stages compares, and that it measures the stage and the condition that it names."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import MISSING_STATUS
from quality import musiclm_loss
from stretto_shared import weights
from stretto_shared.nn.stage_lm import StageConfig, StageLM
from stretto_shared.training.stages.dataset import Windows

CONFIG = StageConfig(
    num_codebooks=8, cardinality=16, frame_rate_hz=12.5, window_s=0.8, stride_s=0.4, num_source_codebooks=4,
    source_cardinality=16, source_frame_rate_hz=12.5, dim=16, num_layers=1, num_heads=2, feed_forward_dim=32,
    table_dim=8, tokens="codec@0", source_tokens="codec@0",
)  # fmt: skip
HEARS_ALL = dataclasses.replace(
    CONFIG, num_style_codes=2, style_cardinality=4, num_melody_codebooks=1, melody_cardinality=4,
    melody_frame_rate_hz=12.5,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Features of twelve clips a split, and an untrained fine stage."""
    torch.manual_seed(0)
    model = StageLM(CONFIG)
    weights.write(
        tmp_path / "musiclm_fine", model.state_dict(), name="musiclm_fine", architecture="StageLM",
        config=dataclasses.asdict(CONFIG), licence="CC0-1.0", score="", training={},
    )  # fmt: skip
    for split in ("train", "test"):
        codes = np.random.default_rng(len(split)).integers(0, 16, (12, 12, 20))
        np.save(tmp_path / f"codes_{split}_0000.npy", codes.astype(np.int16))
    return tmp_path


def test_every_kind_that_a_stage_hears_is_exchanged_and_left_out() -> None:
    assert set(musiclm_loss.conditions_of(HEARS_ALL)) == {
        "all told", "style of another", "no style", "melody of another", "no melody", "source of another", "no source",
    }  # fmt: skip
    assert set(musiclm_loss.conditions_of(CONFIG)) == {"all told", "source of another", "no source"}
    own, other = (
        Windows(*(torch.full(shape, value) for shape in ((2, 8), (2, 2), (2, 1, 1), (2, 4, 1)))) for value in (0, 1)
    )
    changed = musiclm_loss.told(own, other, ("style", "other"))
    assert torch.equal(changed.stream, own.stream) and torch.equal(changed.style, other.style)
    assert changed.source is own.source and changed.melody is own.melody
    assert musiclm_loss.told(own, other, ("melody", "none")) == dataclasses.replace(own, melody=None)


def test_a_loss_is_that_of_each_codebook() -> None:
    torch.manual_seed(1)
    model = StageLM(CONFIG).eval()
    with torch.no_grad():
        model.stream.weight.zero_()
        model.token_bias.zero_()
        model.token_bias[3, 5] = 50.0
    stream = torch.full((2, 16), 5)
    losses = musiclm_loss.losses_of(model, Windows(stream, None, None, None))
    expected = np.full((2, 8), np.log(16.0))
    expected[:, 3] = 0.0
    np.testing.assert_allclose(losses, expected, atol=1e-5)


def test_the_report_names_the_stage_and_claims_nothing_of_an_untrained_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"musiclm_fine={(folder / 'musiclm_fine').as_uri()}"
    musiclm_loss.main(["--features", str(folder), "--models", source])
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    stage = record["stages"]["musiclm_fine"]
    assert stage["model_id"].startswith("musiclm_fine@") and stage["model_id"] in record["data"]
    assert set(stage["cross_entropy"]) == {"unigram", "previous token", "all told", "source of another", "no source"}
    assert all(len(losses) == 8 for losses in stage["cross_entropy"].values())
    assert not record["passed"]["musiclm_fine: better_than_both_baselines_in_every_codebook"]


def test_styles_of_another_joint_encoder_are_not_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights.write(
        folder / "mulan", {"w": torch.zeros(1)}, name="mulan", architecture="-", config={}, licence="-", score="",
        training={},
    )  # fmt: skip
    recipe = musiclm_loss.read_recipe(musiclm_loss.ROOT / "services/acoustic/recipes/musiclm_fine.toml")
    hears = dataclasses.replace(HEARS_ALL, style_encoder="mulan@000000000000")
    with pytest.raises(SystemExit) as caught:
        musiclm_loss.features_of(folder, "test", recipe, hears, folder / "mulan")
    assert caught.value.code == MISSING_STATUS
    assert "styles of mulan@000000000000" in capsys.readouterr().err
