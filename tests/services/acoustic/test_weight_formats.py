"""The weight format of the acoustic service: chosen by setting, seen in the receipt, the same bytes in any company."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from stretto_acoustic import loading
from stretto_acoustic.engine import AcousticEngine, GenerateRequest
from stretto_acoustic.loading import make_loaded
from stretto_acoustic.models.musicgen import PRESETS, MusicGenLM
from stretto_acoustic.settings import AcousticSettings
from stretto_shared import weights
from stretto_shared.errors import InvalidInput, NotReady
from stretto_shared.features import SamplingOptions, TextStates
from stretto_shared.grpc.setting_errors import InvalidSetting, named_settings
from stretto_shared.nn.weight_format import WEIGHT_FORMATS

CONFIG = dataclasses.replace(PRESETS["tiny"], codec_id="framecodec@0123456789ab")
FORMATS = ("bf16", "int8", "int4", "int4_kv4")


def tiny_model() -> MusicGenLM:
    torch.manual_seed(0)
    model = MusicGenLM(CONFIG)
    with torch.no_grad():
        model.heads.weight.mul_(6)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A weights folder with the tiny model."""
    weights.write(
        tmp_path / "tiny",
        tiny_model().state_dict(),
        name="tiny",
        architecture="MusicGenLM",
        config=dataclasses.asdict(CONFIG),
        licence="CC0-1.0",
        score="",
        training={},
    )
    return tmp_path


def test_the_setting_offers_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_args(AcousticSettings.model_fields["weight_format"].annotation) == WEIGHT_FORMATS
    monkeypatch.setenv("STRETTO_ACOUSTIC_WEIGHT_FORMAT", "int8")
    assert AcousticSettings().weight_format == "int8"


def test_a_wrong_setting_names_the_variable_and_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRETTO_ACOUSTIC_WEIGHT_FORMAT", "int3")
    with pytest.raises(InvalidSetting, match=r"int4.*got 'int3'") as caught, named_settings():
        AcousticSettings()
    assert caught.value.field == "STRETTO_ACOUSTIC_WEIGHT_FORMAT"


def test_each_format_is_loaded_from_the_same_checkpoint_and_identifies_itself(folder: Path) -> None:
    def info(**options: Any) -> Any:
        return loading.load("tiny", "default", weights_dir=folder, **options).info

    plain = info()
    assert plain.source == "default"
    assert plain.digest_sha256 == weights.sha256_of(folder / "tiny" / "model.safetensors")
    assert info(weight_format="fp32") == plain
    others = [info(weight_format=name) for name in FORMATS] + [info(dtype="bfloat16", weight_format="bf16")]
    assert [other.source for other in others] == [*(f"default#{n}" for n in FORMATS), "default#bfloat16+bf16"]
    assert len({other.model_id for other in [plain, *others]}) == 6
    assert {other.parameter_count for other in others} == {plain.parameter_count}
    assert info(weight_format="int8") == others[1]


def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="weight_format"):
        loading.load("absent", "default", weights_dir=tmp_path, weight_format="int3")


@pytest.mark.parametrize("weight_format", ["int8", "int4", "fp32"])
def test_formats_whose_other_arithmetic_is_float32_are_refused_beside_another(weight_format: str, folder: Path) -> None:
    with pytest.raises(InvalidInput, match="Set dtype float32"):
        loading.load("tiny", "default", weights_dir=folder, dtype="bfloat16", weight_format=weight_format)


def test_weights_that_are_not_finite_are_not_served() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.heads.weight[0, 0] = float("nan")
    with pytest.raises(NotReady, match="finite"):
        make_loaded("tiny", model, digest_sha256="a" * 64, weight_format="int8")


@pytest.mark.parametrize("weight_format", ["int8", "int4"])
@torch.inference_mode()
def test_matrices_keep_rows_apart_in_a_batch_of_the_model(weight_format: str) -> None:
    module = make_loaded("tiny", tiny_model(), digest_sha256="a" * 64, weight_format=weight_format).module
    hidden = torch.randn(7, 1, CONFIG.dim) * torch.logspace(-2, 2, 7)[:, None, None]
    for product in (module.layers[0].self_qkv, module.layers[1].ffn_in, module.heads):
        alone = torch.cat([product(hidden[at : at + 1]) for at in range(7)])
        torch.testing.assert_close(product(hidden), alone, rtol=0, atol=0)


@pytest.mark.parametrize("weight_format", FORMATS)
async def test_a_piece_is_the_same_alone_and_beside_others(weight_format: str) -> None:
    engine = AcousticEngine(
        {"tiny": lambda: make_loaded("tiny", tiny_model(), digest_sha256="a" * 64, weight_format=weight_format)}
    )
    await engine.start()

    async def piece(seed: int) -> np.ndarray:
        states = np.random.default_rng(seed).standard_normal((4, CONFIG.text_dim)).astype(np.float32)
        text = TextStates("minilm", states[0], states)
        request = GenerateRequest("", 0.4, seed, SamplingOptions(), text=text)
        return np.concatenate([block.tokens.codes async for block in engine.generate(request)], axis=1)

    alone = [await piece(seed) for seed in range(3)]
    together = await asyncio.gather(*(piece(seed) for seed in range(3)))
    await engine.stop()
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first, second)
