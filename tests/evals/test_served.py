"""Evals measure the language model that the service would serve, and their reports say in which format."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from served import formats_of, load_lm, report_name, step_through, stepper_of
from stretto_acoustic.models.musicgen import (
    PRESETS,
    IntegerStepper,
    MusicGenCondition,
    MusicGenLM,
    MusicGenStepper,
)
from stretto_acoustic.settings import AcousticSettings
from stretto_shared import weights
from stretto_shared.features import ModelInfo


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose only language model is a tiny one."""
    torch.manual_seed(0)
    weights.write(
        tmp_path / "tiny",
        MusicGenLM(PRESETS["tiny"]).state_dict(),
        name="tiny",
        architecture="MusicGenLM",
        config=dataclasses.asdict(PRESETS["tiny"]),
        licence="CC0-1.0",
        score="",
        training={},
    )
    monkeypatch.setenv("STRETTO_ACOUSTIC_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("STRETTO_ACOUSTIC_MODELS", "tiny")
    monkeypatch.setattr("stretto_shared.nn.weight_format.load_native_kernel", lambda folder: None)  # the same bytes


def test_the_model_is_that_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_lm().info.source.removeprefix("default#") == AcousticSettings().weight_format
    monkeypatch.setenv("STRETTO_ACOUSTIC_WEIGHT_FORMAT", "bf16")
    assert load_lm().info.source == "default#bf16"
    assert load_lm(weight_format="fp32").info.source == "default"
    assert load_lm(f"tiny=file://{tmp_path / 'tiny'}").info.source == f"file://{tmp_path / 'tiny'}#bf16"
    monkeypatch.setenv("STRETTO_ACOUSTIC_DTYPE", "bfloat16")
    assert load_lm().info.source == "default#bfloat16+bf16"


def test_the_stepper_is_the_service_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(stepper_of(load_lm(weight_format="int8")), IntegerStepper)
    loaded = load_lm(weight_format="fp32")
    assert isinstance(stepper_of(loaded), MusicGenStepper)
    monkeypatch.setattr(MusicGenStepper, "tried", lambda model, *, max_rows: max_rows)
    assert stepper_of(loaded) == 2 * (8 + 16)  # two rows for each of the slots' columns, and of those of a prompt
    monkeypatch.setenv("STRETTO_ACOUSTIC_MAX_SLOTS", "3")
    assert stepper_of(loaded) == 2 * (3 + 16)
    monkeypatch.setenv("STRETTO_ACOUSTIC_JOINS", "false")
    assert not stepper_of(loaded).is_row_invariant
    assert stepper_of(loaded, joins=True) == 2 * (3 + 16)


@pytest.mark.parametrize("weight_format", ["fp32", "int8"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_pieces_stepped_together_get_what_each_gets_alone(weight_format: str, guidance_scale: float) -> None:
    random, config = np.random.default_rng(0), PRESETS["tiny"]
    loaded = load_lm(weight_format=weight_format)
    columns = torch.from_numpy(random.integers(0, config.cardinality, (3, config.num_codebooks, 6)))
    told = [
        MusicGenCondition(random.standard_normal((length, config.text_dim)).astype(np.float32)) for length in (2, 5, 3)
    ]
    joined, apart = stepper_of(loaded), stepper_of(loaded, joins=False)
    assert not apart.is_row_invariant
    together = step_through(joined, told, columns, guidance_scale=guidance_scale)
    assert together.shape == (3, config.num_codebooks, 6, config.cardinality)
    for i, own in enumerate(told):
        state = joined.open(own, num_steps=6, guidance_scale=guidance_scale)
        for t in range(6):
            (row,) = joined.step([state], [columns[i, :, t : t + 1].numpy()], [True])
            assert torch.equal(together[i, :, t], row)
    torch.testing.assert_close(step_through(apart, told, columns, guidance_scale=guidance_scale), together)


@pytest.mark.parametrize(
    ("source", "formats"),
    [("default", ""), ("default#int8", "int8"), ("file:///a#b/c#bfloat16+int4", "bfloat16+int4")],
)
def test_a_report_is_named_after_the_formats_of_the_language_model(source: str, formats: str) -> None:
    codec = ModelInfo("framecodec", "codec", "0" * 64, "CC0-1.0", source="default#other")
    model = ModelInfo("musicgen", "acoustic", "0" * 64, "CC0-1.0", source=source)
    assert formats_of([codec, model]) == formats
    assert report_name("demo_audio", [codec, model]) == ("demo_audio" if not formats else f"demo_audio_{formats}")
    assert report_name("demo_audio", [codec]) == "demo_audio"
