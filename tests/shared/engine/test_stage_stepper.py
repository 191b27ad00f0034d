"""The stages of a cascade on the token engine: guidance, windows, resuming anywhere, and what a request costs."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stretto_shared.engine.program import TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.self_test import joins_exactly
from stretto_shared.engine.stage_stepper import StageStepper
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from stretto_shared.nn.stage_lm import StageCondition, StageConfig, StageLM
from stretto_shared.nn.weight_format import set_weight_format
from torch import Tensor

CONFIG = StageConfig(
    num_codebooks=2,
    cardinality=13,
    frame_rate_hz=12.5,
    window_s=1.28,
    stride_s=0.64,
    num_style_codes=4,
    style_cardinality=8,
    num_melody_codebooks=2,
    melody_cardinality=8,
    melody_frame_rate_hz=6.25,
    num_source_codebooks=1,
    source_cardinality=9,
    source_frame_rate_hz=25.0,
    dim=32,
    num_layers=2,
    num_heads=2,
    feed_forward_dim=64,
    table_dim=8,
)
FORMATS = ("as_dtype", "int8")
NUM_TOKENS = 24


@cache
def model_of(weight_format: str = "as_dtype") -> StageLM:
    torch.manual_seed(0)
    model = StageLM(CONFIG).eval().requires_grad_(False)
    model.bias.normal_()
    set_weight_format(model, weight_format)
    return model


def stepper_of(weight_format: str = "as_dtype") -> StageStepper:
    return StageStepper.tried(model_of(weight_format), max_rows=24)


def condition(seed: int = 0, *, style: bool = True, melody: bool = True, source: bool = True) -> StageCondition:
    rng = np.random.default_rng(seed)
    return StageCondition(
        rng.integers(0, 8, 4) if style else None,
        rng.integers(0, 8, (2, 6)) if melody else None,
        rng.integers(0, 9, (1, 24)) if source else None,
    )


def request(
    seed: int, known: NDArray[np.int32] | None = None, *, num_prompt: int = 0, guidance_scale: float = 2.0
) -> TokenRequest[StageCondition]:
    codes = np.zeros((1, 0), np.int32) if known is None else known
    return TokenRequest(
        condition=condition(seed),
        num_frames=NUM_TOKENS,
        prompt=codes[:, :num_prompt],
        resume_from=codes[:, num_prompt:],
        sampling=Sampling(temperature=1.0, top_k=0, guidance_scale=guidance_scale),
        seed=seed,
    )


def generate(stepper: StageStepper, *requests: TokenRequest[StageCondition]) -> list[NDArray[np.int32]]:
    """New tokens [1, n] of each request, all of them on one engine at once."""

    async def one(engine: TokenEngine[StageCondition, object], each: TokenRequest[StageCondition]) -> NDArray[np.int32]:
        async with aclosing(engine.generate(each)) as blocks:
            return np.concatenate([block.codes async for block in blocks], axis=1)

    async def run() -> list[NDArray[np.int32]]:
        thread = ModelThread("stage")
        engine = TokenEngine(thread, stepper, stage="semantic", config=TokenEngineConfig(max_slots=4))
        try:
            return await asyncio.gather(*(one(engine, each) for each in requests))
        finally:
            await engine.close()
            await thread.close()

    return asyncio.run(run())


def logits_of(stepper: StageStepper, told: StageCondition, tokens: list[int], guidance_scale: float) -> Tensor:
    state = stepper.open(told, num_steps=len(tokens) + 1, guidance_scale=guidance_scale)
    rows = [stepper.step([state], [np.array([[token]])], [True])[0] for token in [stepper.special_token, *tokens]]
    return torch.cat([row for row in rows if row is not None])


@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_stage_joins_without_changing_a_bit(weight_format: str) -> None:
    stepper = stepper_of(weight_format)
    assert stepper.is_row_invariant
    assert joins_exactly(stepper, stepper.trials())


@pytest.mark.parametrize("weight_format", FORMATS)
@settings(max_examples=15, deadline=None)
@given(at=st.integers(1, NUM_TOKENS - 1), num_prompt=st.integers(0, NUM_TOKENS - 1), seed=st.integers(0, 3))
def test_a_window_resumed_at_any_token_beside_others_goes_on_as_it_would_have(
    weight_format: str, at: int, num_prompt: int, seed: int
) -> None:
    stepper = stepper_of(weight_format)
    (whole,) = generate(stepper, request(seed))
    resumed = request(seed, whole[:, :at], num_prompt=min(at, num_prompt))
    others = [request(seed + 10), request(seed + 20, whole[:, :9], num_prompt=9, guidance_scale=1.0)]
    rest, *_ = generate(stepper, resumed, *others)
    assert np.array_equal(rest, whole[:, at:])


def test_steps_are_those_of_the_models_parallel_pass() -> None:
    model, stepper = model_of(), stepper_of()
    tokens = np.random.default_rng(5).integers(0, 13, 11).tolist()
    told = condition(style=True, melody=False)
    (style, source) = (torch.from_numpy(codes)[None] for codes in (told.style, told.source) if codes is not None)
    stream = torch.tensor([[*tokens, 0]])
    with torch.inference_mode():
        true = model(stream, style=style, source=source)[0]
        null = model(stream, source=source)[0]
    ours = logits_of(stepper, told, tokens, 2.5)
    torch.testing.assert_close(ours, null + 2.5 * (true - null), atol=1e-4, rtol=1e-4)


def test_guidance_of_1_is_the_conditional_row_alone_and_of_0_the_null_one() -> None:
    stepper, told = stepper_of(), condition()
    tokens = [token % 13 for token in range(NUM_TOKENS - 1)]  # a melody of the window's own length
    one, two, none = (logits_of(stepper, told, tokens, scale) for scale in (1.0, 2.0, 0.0))
    torch.testing.assert_close(two, none + 2 * (one - none), atol=1e-4, rtol=1e-4)
    without = StageCondition(source=told.source)
    # The null row hears the source: it is what a request without style and melody gets, whatever its guidance.
    torch.testing.assert_close(none, logits_of(stepper, without, tokens, 3.0), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(none, logits_of(stepper, StageCondition(), tokens, 1.0), atol=1e-3)


@pytest.mark.parametrize(
    ("told", "guidance_scale", "num_rows"),
    [
        (condition(), 3.0, 2),
        (condition(), 1.0, 1),
        (condition(), 0.0, 1),
        (condition(style=False, melody=False), 3.0, 1),
        (condition(style=False), 3.0, 2),
        (StageCondition(), 3.0, 1),
    ],
)
def test_a_request_costs_what_its_state_takes(told: StageCondition, guidance_scale: float, num_rows: int) -> None:
    stepper = stepper_of()
    cost = stepper.cost(told, num_steps=9, guidance_scale=guidance_scale)
    cache = stepper.open(told, num_steps=9, guidance_scale=guidance_scale).cache
    assert cost.num_rows == cache.batch_size == num_rows
    assert cost.kv_bytes == sum(each.nbytes for each in (*cache.keys, *cache.values))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (StageCondition(style=np.zeros(3, np.int64)), "style: expected 4 codes"),
        (StageCondition(style=np.full(4, 8)), "style: expected 0 to 7, got 8 to 8"),
        (StageCondition(melody=np.full((2, 3), -1)), "melody: expected 0 to 7"),
        (StageCondition(source=np.zeros((2, 3), np.int64)), "source: expected 1 codes"),
        (StageCondition(source=np.zeros((1, 0), np.int64)), "source: expected 1 codes"),
    ],
)
def test_a_condition_that_does_not_fit_is_refused(told: StageCondition, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stepper_of().open(told, num_steps=4, guidance_scale=1.0)


def test_a_model_whose_rows_hang_together_is_stepped_alone() -> None:
    stepper = StageStepper(model_of())
    states = [stepper.open(condition(), num_steps=4, guidance_scale=1.0) for _ in range(2)]
    column = np.array([[13]])
    with pytest.raises(ValueError, match="Step them one by one"):
        stepper.step(states, [column, column], [True, True])
