"""The eval of the fine stage's sound draws what the stage says, and compares windows with their own recordings."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from harness import MISSING_STATUS
from numpy.typing import NDArray
from peers.yamnet import Heard, Yamnet
from quality import musiclm_fine_sound as fine_sound
from stretto_shared.nn.stage_lm import StageConfig, StageLM

CONFIG = StageConfig(
    num_codebooks=2, cardinality=16, frame_rate_hz=12.5, window_s=0.32, stride_s=0.16, num_source_codebooks=2,
    source_cardinality=16, source_frame_rate_hz=12.5, dim=16, num_layers=1, num_heads=2, feed_forward_dim=32,
    table_dim=8,
)  # fmt: skip


def test_at_temperature_0_each_token_is_the_likeliest_after_those_before() -> None:
    torch.manual_seed(0)
    model = StageLM(CONFIG).eval()
    with torch.no_grad():
        model.narrow.weight.mul_(20)
        model.source.widen.weight.mul_(9)
        for block in model.blocks():
            block.self_out.weight.mul_(9)
    coarse = np.random.default_rng(0).integers(0, 16, (3, 2, 4))
    drawn = fine_sound.draw_fine(model, coarse, 0.0)
    assert drawn.shape == (3, 2, 4)
    stream = torch.from_numpy(drawn.swapaxes(1, 2).reshape(3, 8))
    with torch.inference_mode():
        assert torch.equal(model(stream, source=torch.from_numpy(coarse)).argmax(-1), stream)
    assert len({each.tobytes() for each in drawn}) > 1  # each window by its own coarse codes
    warm = fine_sound.draw_fine(model, coarse, 2.0)
    assert not np.array_equal(warm, drawn) and np.array_equal(warm, fine_sound.draw_fine(model, coarse, 2.0))


def test_codes_by_frequency_are_the_same_ones_of_each_codebook_in_another_order() -> None:
    own = np.random.default_rng(1).integers(0, 50, (6, 3, 20)) + 100 * np.arange(3)[:, None]
    other = fine_sound.draw_by_frequency(own)
    assert not np.array_equal(own, other)
    for k in range(3):
        assert np.array_equal(np.sort(own[:, k].ravel()), np.sort(other[:, k].ravel()))


def test_a_window_comes_with_its_own_recording(tmp_path: Path) -> None:
    frames = np.arange(20)
    codes = np.stack([np.stack([frames + 100 * clip] * 12) for clip in range(5)])
    audio = np.repeat(codes[:, 0], 10, axis=1)
    np.save(tmp_path / "codes_valid_0000.npy", codes.astype(np.int16))
    np.save(tmp_path / "audio_valid_0000.npy", audio.astype(np.int16))
    windows, recordings = fine_sound.read_windows(tmp_path, tmp_path, 3, 4, 10)
    assert windows.shape == (3, 12, 4) and [each[0, 0] // 100 for each in windows] == [0, 2, 4]
    for window, recording in zip(windows, recordings, strict=True):
        assert np.array_equal(np.round(recording * 32768).astype(int), np.repeat(window[0], 10))


def test_a_gain_is_what_comes_nearer_than_none() -> None:
    found = {fine_sound.NONE: np.full(8, 0.5), "better": np.full(8, 0.3), "worse": np.full(8, 0.6)}
    gains = fine_sound.gains_of(found)
    assert set(gains) == {"better", "worse"}
    assert gains["better"].low == pytest.approx(0.2) and gains["worse"].high == pytest.approx(-0.1)


def test_windows_of_the_recordings_kinds_are_near_them_together_though_none_is_its_own() -> None:
    class Levels:
        """Hears a window as two numbers: how loud it is, and how loud its first half."""

        def hear(self, samples: NDArray[np.float64]) -> Heard:
            halves = [float(np.abs(samples).mean()), float(np.abs(samples[: len(samples) // 2]).mean())]
            return Heard(np.zeros(521), np.array([halves]))

    random = np.random.default_rng(2)
    recordings = [np.full(8, level, np.float32) * [1, 1, 1, 1, 2, 2, 2, 2] for level in random.uniform(0, 1, 40)]
    moved = [*recordings[1:], recordings[0]]  # the same kinds of sound, each at another place
    mean = [np.full(8, 0.75, np.float32) for _ in recordings]  # nearer to each, and no sound like any
    found = fine_sound.spreads(cast(Yamnet, Levels()), {"moved": moved, fine_sound.NONE: mean}, recordings)
    gain = found[fine_sound.NONE] - found["moved"]
    assert found["moved"].value < 1e-6 < found[fine_sound.NONE].value and gain.interval[0] > 0


def test_without_features_the_eval_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        fine_sound.read_windows(tmp_path, tmp_path, 1, 4, 10)
    assert caught.value.code == MISSING_STATUS
