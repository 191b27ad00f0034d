"""What the loss eval compares a clip's own caption and melody with, and which model and baselines it measures."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import MISSING_STATUS
from quality.musicgen_loss import (
    CONDITIONS,
    Condition,
    another_of_each,
    captions_of,
    claims_of,
    main,
    model_loss,
    read_split,
)
from served import load_lm, stepper_of
from stretto_shared.engine.delay import apply_delay, target_mask
from torch.nn import functional as F


def test_every_clip_gets_another_one_and_each_is_given_once() -> None:
    chosen = np.arange(0, 960, 10)
    others = another_of_each(chosen)
    assert sorted(others.tolist()) == chosen.tolist()
    assert not np.any(others == chosen)


def test_the_other_clip_has_nothing_to_do_with_the_order_of_the_shards() -> None:
    chosen = np.arange(96)
    same_half = (another_of_each(chosen) < 48) == (chosen < 48)
    assert 0.3 < same_half.mean() < 0.7
    assert len(np.unique(another_of_each(chosen) - chosen)) > 40


def measured(features: Path, *words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["musicgen_loss.py", "--features", str(features), *words])
        main()


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
@torch.inference_mode()
def test_the_loss_is_the_forward_pass_s_under_the_same_condition(features: Path, condition: Condition) -> None:
    loaded = load_lm(weight_format="fp32")
    config, split, chosen = loaded.config, read_split(features, "test", 2), np.arange(8)
    others = another_of_each(chosen)
    states, mask = captions_of(split, others if condition.text == "other" else chosen, config.text_dim)
    melody = None
    if condition.melody != "none":
        melody = torch.from_numpy(split.chroma[others if condition.melody == "other" else chosen].astype(np.int64))
    codes = torch.from_numpy(split.codes.astype(np.int64))
    delayed = apply_delay(codes, config.delays, config.special_token)
    logits = loaded.module(delayed[..., :-1], states, mask * (condition.text != "none"), melody)
    targets = delayed[..., 1:].masked_fill(~target_mask(codes.shape[-1], config.delays), -100)
    expected = F.cross_entropy(logits.movedim(-1, 1), targets, reduction="none").sum(-1) / codes.shape[-1]
    found = model_loss(stepper_of(loaded), config, split, chosen.tolist(), condition)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_the_model_is_measured_in_the_service_s_format_and_without_train_clips(
    features: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for weight_format in ("fp32", "int4"):
        monkeypatch.setenv("STRETTO_ACOUSTIC_WEIGHT_FORMAT", weight_format)
        measured(features, "--without-baselines")
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    plain, coarse = found
    assert [plain["eval"], coarse["eval"]] == ["musicgen_loss", "musicgen_loss_int4"]
    assert plain["model_id"] != coarse["model_id"] and coarse["model_id"] in coarse["data"]
    assert set(plain["cross_entropy"]) == {condition.name for condition in CONDITIONS}
    assert not any("baseline" in claim or "previous" in claim for claim in plain["passed"])
    gaps = np.subtract(plain["cross_entropy"]["true caption"], coarse["cross_entropy"]["true caption"])
    assert (np.abs(gaps) > 1e-4).all()  # it is the coarse model that was measured


def test_baselines_need_train_clips_and_come_first(
    features: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        measured(features)
    assert caught.value.code == MISSING_STATUS
    np.save(features / "codes_train_0000.npy", np.random.default_rng(1).integers(0, 16, (5, 2, 12)).astype(np.int16))
    capsys.readouterr()
    measured(features)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found["cross_entropy"])[:3] == ["unigram", "previous token", "true caption"]
    assert "5 train clips" in found["data"]
    assert found["passed"]["better_than_both_baselines_in_every_codebook"] is False  # an untrained model
    assert "previous token minus model" in found["gaps"]


def test_a_model_must_beat_each_baseline_in_each_codebook() -> None:
    def claim(*own: float) -> bool:
        losses = {"unigram": np.array([[3.0, 2.0]]), "previous token": np.array([[2.0, 3.0]])}
        (held,) = claims_of({**losses, "true caption": np.array([own])}, {}).values()
        return held

    assert claim(1.9, 1.9)
    assert not claim(1.9, 2.1) and not claim(2.1, 1.9)
