"""The stepper for accelerators: what the CPU's computes, in slots allocated once and passes of fixed shape.

Everything runs on the CPU, except what is marked `cuda`, which is the same tests on a GPU, its graphs included.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from contextlib import aclosing
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stretto_acoustic.models.musicgen import (
    PRESETS,
    MusicGenCondition,
    MusicGenConfig,
    MusicGenLM,
    MusicGenStepper,
    PooledStepper,
)
from stretto_acoustic.models.musicgen.fixed_pass import Kernels
from stretto_acoustic.models.musicgen.pooled import PooledState
from stretto_acoustic.models.musicgen.slot_cache import SlotCache
from stretto_shared.engine.program import TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.self_test import Trial
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from stretto_shared.errors import InvalidInput
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here"),
        ],
    ),
]
KINDS = ("none", "prefix", "prefix_only")
DTYPES = (torch.float32, torch.bfloat16)
K, BUDGET = 4, 1 << 30
NONE = np.zeros((K, 0), dtype=np.int32)
TRIALS = {"none": 4, "prefix": 6, "prefix_only": 6}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def config_of(kind: Any) -> MusicGenConfig:
    """A tiny model whose attention reaches 9 steps back, and a prefix besides."""
    return dataclasses.replace(
        PRESETS["tiny"], melody_conditioning=kind, chroma_frames=8, max_frames=40, attention_frames=9
    )


@cache
def model_of(kind: str, device: str, dtype: torch.dtype = torch.float32) -> MusicGenLM:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = MusicGenLM(config_of(kind)).eval().requires_grad_(False)
    with torch.no_grad():
        model.heads.weight.mul_(6)
    return model.to(device=device, dtype=dtype)


@cache
def tried(kind: str, device: str, dtype: torch.dtype = torch.float32, num_slots: int = 3) -> PooledStepper:
    return PooledStepper.tried(model_of(kind, device, dtype), num_slots=num_slots, kv_budget_bytes=BUDGET)


def columns_of(seed: int, num_columns: int = 20) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 64, (K, num_columns))


def open_trial(stepper: Any, trial: Trial[MusicGenCondition], num_steps: int = 20) -> Any:
    return stepper.open(trial.condition, num_steps=num_steps, guidance_scale=trial.guidance_scale)


def read(stepper: Any, state: Any, columns: NDArray[np.int64]) -> list[Tensor]:
    """The logits after each column, one column a step."""
    steps = [stepper.step([state], [columns[:, [i]]], [True])[0] for i in range(columns.shape[1])]
    return [logits for logits in steps if logits is not None]


def alone(stepper: PooledStepper, trial: Trial[MusicGenCondition], columns: NDArray[np.int64]) -> list[Tensor]:
    """The same of a state that is closed then."""
    state = open_trial(stepper, trial)
    logits = read(stepper, state, columns)
    state.close()
    return logits


def assert_same(got: list[Tensor], expected: list[Tensor]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_request_gets_the_logits_of_the_other_stepper(kind: str, device: str) -> None:
    reference = MusicGenStepper(model_of(kind, "cpu"))
    pooled = PooledStepper(model_of(kind, device), num_slots=8, kv_budget_bytes=BUDGET)
    trials = pooled.trials()
    assert len(trials) == TRIALS[kind]
    trials += [Trial(MusicGenCondition(), 3.0), Trial(trials[0].condition, 0.0)]  # nothing to guide by
    states = [open_trial(pooled, trial) for trial in trials]  # all at a time, each at its own step
    columns = [columns_of(seed) for seed in range(len(trials))]
    for number, (state, each) in enumerate(zip(states, columns)):
        pooled.step([state], [each[:, :number]], [False]) if number else None
    got: list[list[Tensor]] = [[] for _ in trials]
    for at in range(20 - len(trials)):
        step = pooled.step(states, [each[:, [i + at]] for i, each in enumerate(columns)], [True] * len(states))
        for rows, logits in zip(got, step):
            assert logits is not None and logits.dtype == torch.float32 and logits.device.type == device
            rows.append(logits)
    for number, (trial, each, rows) in enumerate(zip(trials, columns, got)):
        expected = read(reference, open_trial(reference, trial), each)[number : number + len(rows)]
        for one, other in zip(rows, expected, strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=2e-4)


def record_as_a_graph(kernels: Kernels) -> Kernels:
    """Like a CUDA graph: the operations of one run on the tensors of that run, nothing of Python's after it."""
    graph = make_fx(lambda: kernels())()

    def replay() -> None:
        graph()

    return replay


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_recorded_once_gives_the_bytes_of_one_computed_each_time(kind: str, dtype: torch.dtype) -> None:
    model = model_of(kind, "cpu", dtype)
    recorded = PooledStepper(model, num_slots=2, kv_budget_bytes=BUDGET, record=record_as_a_graph)
    computed = PooledStepper(model, num_slots=2, kv_budget_bytes=BUDGET)
    for seed, trial in enumerate(computed.trials()):
        assert_same(alone(recorded, trial, columns_of(seed)), alone(computed, trial, columns_of(seed)))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_replayed_cuda_graph_gives_the_bytes_of_its_kernels(kind: str, joins: bool, dtype: torch.dtype) -> None:
    model = model_of(kind, "cuda", dtype)
    options: dict[str, Any] = {"num_slots": 2, "kv_budget_bytes": BUDGET, "joins": joins}
    replayed = PooledStepper(model, **options)
    computed = PooledStepper(model, **options, record=lambda kernels: kernels)
    for seed, trial in enumerate(computed.trials()):
        assert_same(alone(replayed, trial, columns_of(seed)), alone(computed, trial, columns_of(seed)))


# --- whose bytes they are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_has_the_same_bytes_at_every_slot(kind: str, dtype: torch.dtype, device: str) -> None:
    stepper = tried(kind, device, dtype)
    trial = stepper.trials()[-1]
    states = [open_trial(stepper, trial) for _ in range(3)]
    logits = [read(stepper, state, columns_of(5)) for state in states]
    for state in states:
        state.close()
    assert {state.slot for state in states} == {0, 1, 2}
    assert_same(logits[1], logits[0])
    assert_same(logits[2], logits[0])


@pytest.mark.parametrize("kind", KINDS)
def test_columns_read_at_once_give_the_bytes_of_single_steps(kind: str, device: str) -> None:
    stepper = tried(kind, device)
    for trial in stepper.trials():
        expected = alone(stepper, trial, columns_of(1))
        state = open_trial(stepper, trial)
        assert stepper.step([state], [columns_of(1)[:, :7]], [False]) == [None]
        (after_ten,) = stepper.step([state], [columns_of(1)[:, 7:10]], [True])
        rest = read(stepper, state, columns_of(1)[:, 10:])
        state.close()
        assert after_ten is not None
        assert_same([after_ten, *rest], expected[9:])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_closed_state_is_heard_at_its_slot_not_even_nan(kind: str, device: str) -> None:
    model = model_of(kind, device)
    fresh = PooledStepper(model, num_slots=1, kv_budget_bytes=BUDGET)
    used = PooledStepper(model, num_slots=1, kv_budget_bytes=BUDGET)
    poison = MusicGenCondition(np.full((9, 16), np.nan, dtype=np.float32), None)
    for seed, trial in enumerate(fresh.trials()):
        before = used.open(poison, num_steps=40, guidance_scale=3.0)
        assert all(bool(logits.isnan().all()) for logits in read(used, before, columns_of(9, 30)))
        before.close()
        assert_same(alone(used, trial, columns_of(seed)), alone(fresh, trial, columns_of(seed)))


def test_a_state_that_breaks_disturbs_none_beside_it(device: str) -> None:
    stepper = tried("prefix", device)
    if not stepper.is_row_invariant:
        pytest.skip("states have passes of their own on this machine")
    trial = stepper.trials()[0]
    expected = alone(stepper, trial, columns_of(2))
    poison = MusicGenCondition(np.full((9, 16), np.nan, dtype=np.float32), None)
    states = [stepper.open(poison, num_steps=20, guidance_scale=3.0), open_trial(stepper, trial)]
    both = [stepper.step(states, [columns_of(2)[:, [i]]] * 2, [True] * 2) for i in range(20)]
    for state in states:
        state.close()
    assert_same([logits[1] for logits in both if logits[1] is not None], expected)


class HearsNeighbours(nn.Module):
    """A linear layer in which a row depends on the others."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out + 1e-3 * out.sum(dim=0, keepdim=True)


def test_where_rows_depend_on_their_neighbours_every_slot_has_a_pass_of_its_own(device: str) -> None:
    torch.manual_seed(1)
    model = MusicGenLM(config_of("prefix")).eval().requires_grad_(False).to(device)
    model.layers[0].ffn_in = HearsNeighbours(model.layers[0].ffn_in)
    stepper = PooledStepper.tried(model, num_slots=3, kv_budget_bytes=BUDGET)
    assert not stepper.is_row_invariant and stepper.min_rows == 2
    trials = stepper.trials()[:3]
    expected = [alone(stepper, trial, columns_of(seed)) for seed, trial in enumerate(trials)]
    states = [open_trial(stepper, trial) for trial in trials]
    got: list[list[Tensor]] = [[], [], []]
    for at in range(20):
        for seed, state in enumerate(states):
            got[seed] += read(stepper, state, columns_of(seed)[:, [at]])
    for rows, each in zip(got, expected):
        assert_same(rows, each)
    with pytest.raises(ValueError, match="passes of their own"):
        stepper.step(states[:2], [columns_of(0)[:, [0]]] * 2, [True] * 2)


# --- the engine over it -----------------------------------------------------------------------------------------------


def piece(index: int) -> TokenRequest[MusicGenCondition]:
    rng = np.random.default_rng(index)
    text = rng.standard_normal((int(rng.integers(1, 6)), 16)).astype(np.float32)
    melody = rng.integers(-1, 12, int(rng.integers(1, 9))).astype(np.int32)
    condition = MusicGenCondition(text if index % 4 else None, melody if index % 3 == 2 else None)
    prompt = rng.integers(0, 64, (K, 5 if index % 2 else 0)).astype(np.int32)
    sampling = Sampling(top_k=(0, 20)[index % 2], guidance_scale=(3.0, 1.0)[index % 2])
    return TokenRequest(condition, int(rng.integers(8, 20)), prompt, NONE, sampling, index, is_realtime=index % 3 == 0)


async def run(engine: TokenEngine[Any, PooledState], request: Any, max_blocks: int = 99) -> NDArray[np.int32]:
    """All frames, or those of the first blocks, after which the stream is closed."""
    blocks = [NONE]
    async with aclosing(engine.generate(request)) as stream:
        while len(blocks) <= max_blocks and (block := await anext(stream, None)) is not None:
            blocks.append(block.codes)
    return np.concatenate(blocks, axis=1)


async def in_engine(stepper: PooledStepper, play: Callable[[TokenEngine[Any, PooledState]], Any], **limits: Any) -> Any:
    """Play on a new engine, whose slots are all free in the end."""
    thread = ModelThread("pooled")
    config = TokenEngineConfig(
        **({"max_slots": 3, "first_block_frames": 1, "block_frames": 2, "kv_budget_bytes": BUDGET} | limits),
        max_queued=99,
        max_realtime_wait_s=1e9,
    )
    # frames that last long let every real-time stream in, whatever this machine does beside
    engine = TokenEngine(thread, stepper, stage="test", config=config, frame_rate_hz=0.01)
    result = await play(engine)
    await engine.close()
    await thread.close()
    assert stepper.num_free_slots == 3
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["prefix", "prefix_only"])
async def test_a_piece_has_the_same_bytes_alone_in_company_beside_cancelled_ones_and_resumed(
    kind: str, dtype: torch.dtype, device: str
) -> None:
    stepper = tried(kind, device, dtype)
    pieces = [piece(index) for index in range(9)]

    async def one_by_one(engine: Any) -> list[NDArray[np.int32]]:
        return [await run(engine, each) for each in pieces]

    whole = await in_engine(stepper, one_by_one, max_slots=1, prefill_columns=1)
    assert len({codes.tobytes() for codes in whole}) == len(pieces)

    async def company(engine: Any) -> Any:
        resumed = [dataclasses.replace(each, resume_from=codes[:, :3]) for each, codes in zip(pieces, whole)]
        order = [*pieces, *resumed, *pieces]
        cut = [1 if number % 4 == 1 else 99 for number in range(len(order))]
        return await asyncio.gather(*(run(engine, each, most) for each, most in zip(order, cut)))

    got = await in_engine(stepper, company, prefill_columns=4)
    for number, codes in enumerate(got):
        expected = whole[number % 9][:, 3 if 9 <= number < 18 else 0 :]
        assert number % 4 == 1 or codes.shape == expected.shape
        np.testing.assert_array_equal(codes, expected[:, : codes.shape[1]])


async def test_the_slot_of_a_piece_that_fails_is_free_while_its_error_is_still_held() -> None:
    stepper = PooledStepper(model_of("none", "cpu"), num_slots=3, kv_budget_bytes=BUDGET)
    step = stepper.step

    def fail(states: Any, columns: Any, wants_logits: Any) -> Any:
        if states[0].num_steps == 4:
            raise RuntimeError("the kernel fails.")
        return step(states, columns, wants_logits)

    stepper.step = fail  # type: ignore[method-assign]

    async def play(engine: Any) -> None:
        with pytest.raises(RuntimeError, match="the kernel fails") as caught:
            await run(engine, piece(4))
        assert stepper.num_free_slots == 3
        assert caught.value.__traceback__ is not None  # whose frames know the state

    await in_engine(stepper, play)


# --- the pool ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_costs_the_bytes_it_was_given_and_a_pool_beyond_its_budget_is_refused(
    kind: str, dtype: torch.dtype
) -> None:
    model = model_of(kind, "cpu", dtype)
    slot_bytes = PooledStepper(model, num_slots=1, kv_budget_bytes=BUDGET).cost(
        MusicGenCondition(), num_steps=3, guidance_scale=1.0
    )
    stepper = PooledStepper(model, num_slots=5, kv_budget_bytes=5 * slot_bytes.kv_bytes)
    assert stepper.num_cache_bytes == 5 * slot_bytes.kv_bytes
    with pytest.raises(InvalidInput, match=r"expected at least \d+ for 5 slots.*max_slots") as caught:
        PooledStepper(model, num_slots=5, kv_budget_bytes=5 * slot_bytes.kv_bytes - 1)
    assert caught.value.field == "kv_memory_mb"


def test_a_slot_of_the_small_geometry_takes_what_the_documents_say() -> None:
    assert SlotCache.slot_bytes(PRESETS["small"], torch.bfloat16.itemsize) == 378 << 20


def test_rows_are_counted_as_they_are_guided() -> None:
    stepper = tried("none", "cpu")
    text = MusicGenCondition(np.zeros((2, 16), dtype=np.float32))
    rows = [stepper.cost(text, num_steps=9, guidance_scale=scale).num_rows for scale in (3.0, 1.0, 0.0)]
    assert rows == [2, 1, 1]


def test_what_a_pool_cannot_hold_is_refused_and_takes_no_slot() -> None:
    stepper = PooledStepper(model_of("prefix", "cpu"), num_slots=1, kv_budget_bytes=BUDGET)
    trial, column = stepper.trials()[0], columns_of(0)[:, [0]]
    with pytest.raises(ValueError, match="at most 43 steps, got 44"):
        open_trial(stepper, trial, num_steps=44)
    with pytest.raises(ValueError, match="text of at most 512"):
        stepper.open(MusicGenCondition(np.zeros((513, 16), dtype=np.float32)), num_steps=3, guidance_scale=3.0)
    assert stepper.num_free_slots == 1
    state = open_trial(stepper, trial, num_steps=2)
    with pytest.raises(RuntimeError, match="1 slots are taken"):
        open_trial(stepper, trial)
    with pytest.raises(ValueError, match="once only"):
        stepper.step([state, state], [column, column], [True, True])
    with pytest.raises(ValueError, match="holds 2 steps"):
        stepper.step([state], [columns_of(0)[:, :3]], [True])
    assert state.num_steps == 0
    state.close()
    state.close()
    assert stepper.num_free_slots == 1
    with pytest.raises(ValueError, match="was closed"):
        stepper.step([state], [column], [True])
