"""The integer stepper: near the float32 model for every kind of request, one arithmetic with and without the kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stretto_acoustic.engine import make_stepper
from stretto_acoustic.loading import make_loaded
from stretto_acoustic.models.musicgen import (
    PRESETS,
    IntegerStepper,
    MusicGenCondition,
    MusicGenConfig,
    MusicGenLM,
    MusicGenStepper,
    is_integer,
)
from stretto_acoustic.models.musicgen.stepper import trials_of
from stretto_shared.engine.config import TokenEngineConfig
from torch import Tensor

NUM_STEPS = 12
NEAR = {"int8": 0.05, "int4": 0.3, "int4_kv4": 0.35}  # relative error of the logits that tiny random weights leave
CONFIGS = {
    mode: dataclasses.replace(
        PRESETS["tiny"], melody_conditioning=mode, chroma_frames=7, max_frames=20, attention_frames=reach
    )
    for mode, reach in (("none", 0), ("prefix", 5), ("prefix_only", 0))
}
MODES = pytest.mark.parametrize("mode", CONFIGS)


@pytest.fixture(scope="module")
def kernel_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernel")


def model_of(config: MusicGenConfig) -> MusicGenLM:
    torch.manual_seed(0)
    return MusicGenLM(config)


def integer_stepper(config: MusicGenConfig, weight_format: str, kernel_dir: Path | None) -> IntegerStepper:
    loaded = make_loaded(
        "tiny", model_of(config), digest_sha256="a" * 64, weight_format=weight_format, native_kernel_dir=kernel_dir
    )
    assert is_integer(loaded.module)
    return IntegerStepper(loaded.module)


def columns_of(config: MusicGenConfig) -> NDArray[np.int64]:
    return np.random.default_rng(3).integers(0, config.cardinality, (config.num_codebooks, NUM_STEPS))


Stepper = IntegerStepper | MusicGenStepper
Cut = Callable[[int], int]


def logits_of(
    stepper: Stepper, condition: MusicGenCondition, guidance_scale: float, codes: NDArray[np.int64], columns: int = 1
) -> Tensor:
    """Logits after every `columns` columns of a request alone."""
    state = stepper.open(condition, num_steps=NUM_STEPS, guidance_scale=guidance_scale)
    found = []
    for first in range(0, NUM_STEPS, columns):
        (logits,) = stepper.step([state], [codes[:, first : first + columns]], [True])
        assert logits is not None
        found.append(logits)
    return torch.stack(found)


@MODES
@pytest.mark.parametrize("weight_format", NEAR)
def test_logits_are_near_those_of_the_float32_model(mode: str, weight_format: str, kernel_dir: Path) -> None:
    config = CONFIGS[mode]
    plain = MusicGenStepper(model_of(config).eval().requires_grad_(False))
    stepper, codes = integer_stepper(config, weight_format, kernel_dir), columns_of(config)
    for trial in trials_of(config):
        expected = logits_of(plain, trial.condition, trial.guidance_scale, codes)
        found = logits_of(stepper, trial.condition, trial.guidance_scale, codes)
        error = float((found - expected).norm() / expected.norm())
        assert 0 < error < NEAR[weight_format], (trial.guidance_scale, error)


@MODES
@pytest.mark.parametrize("weight_format", NEAR)
def test_the_kernel_torch_and_any_cut_of_columns_give_the_same_bytes(
    mode: str, weight_format: str, kernel_dir: Path
) -> None:
    config = CONFIGS[mode]
    native, torches = (integer_stepper(config, weight_format, folder) for folder in (kernel_dir, None))
    codes = columns_of(config)
    for trial in trials_of(config):
        expected = logits_of(torches, trial.condition, trial.guidance_scale, codes)
        assert torch.equal(logits_of(native, trial.condition, trial.guidance_scale, codes), expected)
        by_fours = logits_of(native, trial.condition, trial.guidance_scale, codes, columns=4)
        assert torch.equal(by_fours, expected[3::4])


def test_every_condition_changes_the_logits(kernel_dir: Path) -> None:
    config = CONFIGS["prefix"]
    stepper, codes = integer_stepper(config, "int8", kernel_dir), columns_of(config)
    text = np.random.default_rng(1).standard_normal((4, config.text_dim)).astype(np.float32)
    melody = np.array([1, -1, 5], dtype=np.int32)
    conditions = [
        MusicGenCondition(),
        MusicGenCondition(text),
        MusicGenCondition(-text),
    ]  # reversed, it would be heard alike
    conditions += [
        MusicGenCondition(None, melody),
        MusicGenCondition(text, melody),
        MusicGenCondition(text, melody[::-1].copy()),
    ]
    found = {logits_of(stepper, each, 1.0, codes).numpy().tobytes() for each in conditions}
    assert len(found) == len(conditions)
    silent = MusicGenCondition(text, np.full(3, -1, dtype=np.int32))  # a melody of silence is none
    assert torch.equal(logits_of(stepper, silent, 1.0, codes), logits_of(stepper, conditions[1], 1.0, codes))


@MODES
@pytest.mark.parametrize("weight_format", ["int8", "int4_kv4"])
def test_a_request_costs_what_its_caches_take(mode: str, weight_format: str, kernel_dir: Path) -> None:
    config = CONFIGS[mode]
    stepper = integer_stepper(config, weight_format, kernel_dir)
    for trial in trials_of(config):
        state = stepper.open(trial.condition, num_steps=NUM_STEPS, guidance_scale=trial.guidance_scale)
        cost = stepper.cost(trial.condition, num_steps=NUM_STEPS, guidance_scale=trial.guidance_scale)
        if not hasattr(state.cache, "stores"):
            pytest.skip("without the native kernel caches are as large as torch makes them")
        taken = sum(cache.stores.nbytes for cache in (state.cache, state.memory) if cache is not None)
        assert (cost.num_rows, cost.kv_bytes) == (state.num_rows, taken)


def test_a_pass_beyond_the_state_is_refused_and_advances_nobody(kernel_dir: Path) -> None:
    config = CONFIGS["none"]
    stepper, codes = integer_stepper(config, "int8", kernel_dir), columns_of(config)
    long, short = (stepper.open(MusicGenCondition(), num_steps=n, guidance_scale=1.0) for n in (NUM_STEPS, 3))
    with pytest.raises(ValueError, match="holds 3 steps"):
        stepper.step([long, short], [codes[:, :4], codes[:, :4]], [True, True])
    assert (long.num_steps, short.num_steps) == (0, 0)


def test_a_float_model_is_refused() -> None:
    with pytest.raises(ValueError, match="int8 or int4"):
        IntegerStepper(model_of(CONFIGS["none"]).eval())


@pytest.mark.parametrize("joins", [True, False])
def test_the_caches_of_a_piece_that_has_ended_stay_for_the_next_within_the_budget(
    kernel_dir: Path, joins: bool
) -> None:
    kept = {}
    for budget in (1, 1 << 24):
        loaded = make_loaded(
            "tiny",
            model_of(CONFIGS["none"]),
            digest_sha256="a" * 64,
            weight_format="int8",
            native_kernel_dir=kernel_dir,
        )
        stepper = make_stepper(loaded, TokenEngineConfig(max_slots=1, kv_budget_bytes=budget), joins=joins)
        assert isinstance(stepper, IntegerStepper)
        if stepper.kernel is None:
            pytest.skip("this machine has no compiler, or no AVX-512 VNNI")
        state = stepper.open(MusicGenCondition(), num_steps=7, guidance_scale=1.0)
        num_bytes = state.cache.stores.nbytes
        del state
        kept[budget] = stepper._decoder._room.num_bytes // num_bytes
    assert kept[1] == 0 and kept[1 << 24] >= 1
