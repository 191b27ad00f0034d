"""Where the language models compute: chosen by setting, refused where it cannot be, seen in the receipt.

What is marked `cuda` needs a GPU; the rest puts models on torch's `meta` device, which has shapes and no numbers.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stretto_acoustic import loading
from stretto_acoustic.engine import AcousticEngine, GenerateRequest
from stretto_acoustic.engine.steppers import make_stepper
from stretto_acoustic.loading import make_loaded
from stretto_acoustic.main import build
from stretto_acoustic.models.musicgen import PRESETS, MusicGenLM, MusicGenStepper, PooledStepper
from stretto_acoustic.settings import AcousticSettings
from stretto_shared import weights
from stretto_shared.engine.token_engine import TokenEngineConfig
from stretto_shared.errors import InvalidInput
from stretto_shared.features import SamplingOptions, TextStates
from stretto_shared.grpc.hosting import HostContext
from stretto_shared.grpc.setting_errors import InvalidSetting, named_settings

CONFIG = dataclasses.replace(PRESETS["tiny"], codec_id="framecodec@0123456789ab", max_frames=100)


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


def test_a_gpu_takes_bfloat16_unless_told_and_a_cpu_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (AcousticSettings().device, AcousticSettings().dtype) == ("cpu", "float32")
    monkeypatch.setenv("STRETTO_ACOUSTIC_DEVICE", "cuda")
    assert (AcousticSettings().device, AcousticSettings().dtype) == ("cuda", "bfloat16")
    monkeypatch.setenv("STRETTO_ACOUSTIC_DTYPE", "float32")
    assert AcousticSettings().dtype == "float32"


def test_a_wrong_device_names_the_variable_and_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRETTO_ACOUSTIC_DEVICE", "tpu")
    with pytest.raises(InvalidSetting, match=r"'cpu' or 'cuda'.*got 'tpu'") as caught, named_settings():
        AcousticSettings()
    assert caught.value.field == "STRETTO_ACOUSTIC_DEVICE"


async def test_cuda_without_a_gpu_is_refused_at_the_start_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    host = build(HostContext(), AcousticSettings(models="tiny", weights_dir=folder, device="cuda"))
    with pytest.raises(InvalidInput, match=r"no CUDA GPU here.*STRETTO_ACOUSTIC_DEVICE") as caught:
        await host.start()
    assert caught.value.field == "device"
    await host.stop()


@pytest.mark.parametrize("weight_format", ["bf16", "int8", "int4"])
def test_formats_of_the_cpu_are_refused_on_a_gpu(
    weight_format: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InvalidInput, match="expected as_dtype or fp32 on cuda") as caught:
        loading.load("absent", "default", weights_dir=tmp_path, device="cuda", weight_format=weight_format)
    assert caught.value.field == "weight_format"


def test_a_device_shows_in_digest_and_source() -> None:
    def info(**options: Any) -> Any:
        return make_loaded("tiny", tiny_model(), digest_sha256="a" * 64, **options).info

    others = [info(device="meta"), info(device="meta", dtype="bfloat16"), info(dtype="bfloat16")]
    assert [other.source for other in others] == ["default#meta", "default#bfloat16+meta", "default#bfloat16"]
    assert len({other.digest_sha256 for other in [info(), *others]}) == 4
    assert info(device="meta", weight_format="fp32") == others[0]


def test_the_device_decides_how_a_model_is_stepped() -> None:
    config = TokenEngineConfig(max_slots=2)
    on_cpu = make_loaded("tiny", tiny_model(), digest_sha256="a" * 64)
    elsewhere = make_loaded("tiny", tiny_model(), digest_sha256="a" * 64, device="meta")
    assert isinstance(make_stepper(on_cpu, config, joins=True), MusicGenStepper)
    pooled = make_stepper(elsewhere, config, joins=False)  # a trial needs numbers
    assert isinstance(pooled, PooledStepper)
    assert pooled.num_free_slots == 2 and not pooled.is_row_invariant
    with pytest.raises(InvalidInput, match="kv_memory_mb"):
        make_stepper(elsewhere, TokenEngineConfig(max_slots=2, kv_budget_bytes=1 << 20), joins=False)


def pooled_on_cpu(loaded: Any, config: TokenEngineConfig, *, joins: bool) -> PooledStepper:
    make = PooledStepper.tried if joins else PooledStepper.apart
    return make(loaded.module, num_slots=config.max_slots, kv_budget_bytes=config.kv_budget_bytes)


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.cuda,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here"),
            ],
        ),
    ],
)
async def test_the_service_s_engine_runs_over_a_pool(
    device: str, joins: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cpu":
        monkeypatch.setattr("stretto_acoustic.engine.acoustic_engine.make_stepper", pooled_on_cpu)
    engine = AcousticEngine(
        {"tiny": lambda: loading.load("tiny", "default", weights_dir=folder, dtype="bfloat16", device=device)},
        config=TokenEngineConfig(max_slots=2, prefill_columns=4),
        joins=joins,
    )
    await engine.start()
    (info,) = engine.list_models()
    assert info.source == {"cpu": "default#bfloat16", "cuda": "default#bfloat16+cuda"}[device]

    async def piece(seed: int) -> Any:
        states = np.random.default_rng(seed).standard_normal((4, CONFIG.text_dim)).astype(np.float32)
        request = GenerateRequest("", 0.4, seed, SamplingOptions(), text=TextStates("minilm", states[0], states))
        return np.concatenate([block.tokens.codes async for block in engine.generate(request)], axis=1)

    alone = [await piece(seed) for seed in range(5)]
    together = await asyncio.gather(*(piece(seed) for seed in range(5)))
    await engine.stop()
    for first, second in zip(alone, together, strict=True):
        assert first.shape == (4, 20)
        np.testing.assert_array_equal(first, second)
