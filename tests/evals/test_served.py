"""Evals measure the language model that the service would serve, and their reports say in which format."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from served import formats_of, load_lm, report_name, stepper_of
from stretto_acoustic.models.musicgen import PRESETS, MusicGenLM
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


def test_the_model_is_that_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_lm().info.source == "default"
    assert load_lm(f"tiny=file://{tmp_path / 'tiny'}").info.source == f"file://{tmp_path / 'tiny'}"
    monkeypatch.setenv("STRETTO_ACOUSTIC_WEIGHT_FORMAT", "bf16")
    assert load_lm().info.source == "default#bf16"
    assert load_lm(weight_format="fp32").info.source == "default"
    monkeypatch.setenv("STRETTO_ACOUSTIC_DTYPE", "bfloat16")
    assert load_lm().info.source == "default#bfloat16+bf16"


def test_the_stepper_joins_only_where_the_settings_let_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_lm()
    monkeypatch.setattr("stretto_acoustic.models.musicgen.MusicGenStepper.tried", lambda model, *, max_rows: max_rows)
    assert stepper_of(loaded) == 2 * (4 + 16)  # two rows for each of the slots' columns, and of those of a prompt
    monkeypatch.setenv("STRETTO_ACOUSTIC_MAX_SLOTS", "3")
    assert stepper_of(loaded) == 2 * (3 + 16)
    monkeypatch.setenv("STRETTO_ACOUSTIC_JOINS", "false")
    assert not stepper_of(loaded).is_row_invariant


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
