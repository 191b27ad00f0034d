"""The eval of temperatures: what it counts, and that a colder draw is less surprising and an own one as drawn."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from quality import musiclm_temperatures as temperatures
from stretto_shared import weights
from stretto_shared.engine.sampling import Sampling
from stretto_shared.nn.stage_lm import StageCondition, StageConfig, StageLM
from stretto_shared.training.stages.dataset import Windows

CONFIG = StageConfig(
    num_codebooks=8, cardinality=16, frame_rate_hz=12.5, window_s=0.8, stride_s=0.4, num_source_codebooks=4,
    source_cardinality=16, source_frame_rate_hz=12.5, dim=16, num_layers=1, num_heads=2, feed_forward_dim=32,
    table_dim=8, tokens="codec@0", source_tokens="codec@0",
)  # fmt: skip


def test_held_frames_and_variety_are_counted_within_windows() -> None:
    tokens = np.array([[1, 1, 2, 2, 2, 1, 3, 3], [4, 4, 4, 4, 4, 4, 4, 4]])
    assert temperatures.mean_held(tokens) == pytest.approx(8 / 2.5)  # 4 tokens in the one, 1 in the other
    assert temperatures.variety(np.array([[0, 1, 2, 3], [5, 5, 5, 5]])) == pytest.approx((4 + 1) / 2)


def test_a_stage_is_told_style_and_source_and_no_melody() -> None:
    told = Windows(torch.zeros(2, 8), torch.tensor([[1], [2]]), torch.ones(2, 1, 3), torch.tensor([[[3]], [[4]]]))
    conditions = temperatures.conditions_of(told)
    assert [each.style.tolist() for each in conditions if each.style is not None] == [[1], [2]]
    assert [each.source.tolist() for each in conditions if each.source is not None] == [[[3]], [[4]]]
    assert all(each.melody is None for each in conditions)
    assert temperatures.conditions_of(dataclasses.replace(told, style=None))[0].style is None


def test_windows_are_drawn_together_as_alone() -> None:
    torch.manual_seed(0)
    model = StageLM(CONFIG).eval()
    conditions = [StageCondition(source=np.full((4, 3), k)) for k in range(2)]
    how = Sampling(1.0, top_k=0, top_p=1.0, guidance_scale=1.0)
    both = temperatures.draw(model, conditions, 24, how)
    assert both.shape == (2, 24) and np.array_equal(both[:1], temperatures.draw(model, conditions[:1], 24, how))
    assert not np.array_equal(both[0], both[1])


def test_the_report_compares_each_setting_with_the_recordings_own_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = StageLM(CONFIG)
    with torch.no_grad():
        model.token_bias.normal_()
    weights.write(
        tmp_path / "musiclm_fine", model.state_dict(), name="musiclm_fine", architecture="StageLM",
        config=dataclasses.asdict(CONFIG), licence="CC0-1.0", score="", training={},
    )  # fmt: skip
    codes = np.random.default_rng(0).integers(0, 16, (6, 12, 20))
    np.save(tmp_path / "codes_valid_0000.npy", codes.astype(np.int16))
    source = f"musiclm_fine={(tmp_path / 'musiclm_fine').as_uri()}"
    options = ["--features", str(tmp_path), "--models", source, "--temperatures", "0.4,1", "--guidances", "1,3"]
    temperatures.main(options)
    stage = json.loads(capsys.readouterr().out.splitlines()[-1])["stages"]["musiclm_fine"]
    cold, warm = (stage["settings"][f"temperature {each}, guidance 1"] for each in ("0.4", "1"))
    assert set(stage["settings"]) == {
        "the recording's own", "temperature 0.4, guidance 1", "temperature 1, guidance 1",
    }  # fmt: skip  # a stage that hears no style has nothing to guide by
    assert cold["surprise"] < warm["surprise"] < stage["settings"]["the recording's own"]["surprise"]
    assert stage["published_temperature"] == 0.4
