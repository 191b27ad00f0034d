"""One engine for every kind of token language model: flattened RVQ, events that end by themselves, parallel streams.

Each is a small transformer with a cache of keys and values, guided, in float32 and in int8. Whatever schedule a piece
is part of, its tokens are those of its solo run; what each kind promises beside that is tested below.

Legend: R rows, K codebooks, V vocabulary, D width, N steps read so far.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stretto_shared.engine.program import StateCost, TokenRequest
from stretto_shared.engine.sampling import Sampling, guide
from stretto_shared.engine.self_test import Trial, joins_exactly
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from stretto_shared.nn.weight_format import set_weight_format
from torch import Tensor, nn

D, MAX_STEPS, NUM_PIECES = 32, 64, 10
FORMATS = ("fp32", "int8")
END = 11


@dataclass(frozen=True)
class Kind:
    """What makes one kind of language model: codes a step, delays, vocabulary, and which of it step n may draw."""

    name: str
    delays: tuple[int, ...]
    cardinality: int
    num_interleaved: int = 1
    frame_rate_hz: float | None = None
    end_token: int | None = None

    @property
    def num_codebooks(self) -> int:
        return len(self.delays)

    def allowed(self, step: int) -> slice:
        """The entries that the token of that step is one of: of flattened RVQ, those of its own codebook."""
        size = self.cardinality // self.num_interleaved
        first = step % self.num_interleaved * size
        return slice(first, first + size)


FLATTENED = Kind("flattened", (0,), 3 * 16, num_interleaved=3, frame_rate_hz=150.0)  # 50 frames of 3 codes a second
EVENTS = Kind("events", (0,), END + 1, end_token=END)
PARALLEL = Kind("parallel", (0, 0, 0), 16, frame_rate_hz=50.0)
KINDS = {kind.name: kind for kind in (FLATTENED, EVENTS, PARALLEL)}


class TinyLM(nn.Module):
    """One block of attention and feed-forward, with a head for each codebook."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.tokens = nn.ModuleList(nn.Embedding(kind.cardinality + 1, D) for _ in kind.delays)
        self.positions = nn.Embedding(MAX_STEPS, D)
        self.conditions = nn.Embedding(NUM_PIECES + 1, D)  # the last one is none
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)
        self.heads = nn.Linear(D, len(kind.delays) * kind.cardinality, bias=False)


@dataclass(eq=False)
class TinyState:
    """Keys and values [R, N, 2 D] of one request, of a conditional and a null row where it is guided."""

    conditions: list[int]
    guidance_scale: float
    cache: Tensor
    num_steps: int = 0


class TinyStepper:
    """Drives a `TinyLM`; implements `StepModel`."""

    def __init__(self, kind: Kind, weight_format: str) -> None:
        torch.manual_seed(5)
        self.kind = kind
        self.num_columns_read = 0
        self.is_row_invariant = True
        self._lm = TinyLM(kind).eval().requires_grad_(False)
        self._lm.heads.weight.mul_(2.5)  # an untrained model is close to indifferent: let its opinions show
        set_weight_format(self._lm, weight_format)
        trials = [Trial(1, 3.0), Trial(2, 1.0), Trial(3, 3.0)]
        self.is_row_invariant = weight_format == "int8" or joins_exactly(self, trials)

    @property
    def cardinality(self) -> int:
        return self.kind.cardinality

    @property
    def special_token(self) -> int:
        return self.kind.cardinality

    @property
    def delays(self) -> tuple[int, ...]:
        return self.kind.delays

    def cost(self, condition: int, *, num_steps: int, guidance_scale: float) -> StateCost:
        num_rows = 1 + (guidance_scale != 1)
        return StateCost(num_rows, num_rows * num_steps * 2 * D * 4)

    def open(self, condition: int, *, num_steps: int, guidance_scale: float) -> TinyState:
        conditions = [condition, NUM_PIECES] if guidance_scale != 1 else [condition]
        return TinyState(conditions, guidance_scale, torch.zeros(len(conditions), num_steps, 2 * D))

    @torch.inference_mode()
    def step(
        self, states: Sequence[TinyState], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        lm, counts = self._lm, [each.shape[1] for each in columns]
        self.num_columns_read += sum(counts)
        x = torch.cat([self._embedded(state, each) for state, each in zip(states, columns, strict=True)])  # [all R, D]
        sizes = [count * len(state.conditions) for count, state in zip(counts, states, strict=True)]
        parts = zip(states, counts, torch.split(lm.qkv(_normed(x)), sizes), strict=True)
        x = x + lm.out(torch.cat([_attended(state, count, part) for state, count, part in parts]))
        x = x + lm.down(lm.up(_normed(x)).relu())
        logits = torch.split(lm.heads(_normed(x)), sizes)
        return [
            self._guided(*each) if wants else None for *each, wants in zip(states, logits, wants_logits, strict=True)
        ]

    def _embedded(self, state: TinyState, column: NDArray[np.int64]) -> Tensor:
        """[c, R, D] as [c R, D]."""
        ids = torch.from_numpy(column)
        tokens = torch.stack([table(row) for table, row in zip(self._lm.tokens, ids)]).sum(0)
        places = self._lm.positions(torch.arange(state.num_steps, state.num_steps + column.shape[1]))
        conditions = self._lm.conditions(torch.tensor(state.conditions))
        return ((tokens + places)[:, None] + conditions).flatten(0, 1)

    def _guided(self, state: TinyState, logits: Tensor) -> Tensor:
        """[K, V] after the last column; what its step may not draw is -inf."""
        rows = logits[-len(state.conditions) :].view(-1, self.kind.num_codebooks, self.kind.cardinality)
        merged = rows[0] if len(rows) == 1 else guide(rows[0], rows[1], state.guidance_scale)
        masked = torch.full_like(merged, -torch.inf)
        allowed = self.kind.allowed(state.num_steps - 1)
        masked[:, allowed] = merged[:, allowed]
        return masked


def _normed(x: Tensor) -> Tensor:
    return x / (x * x).mean(-1, keepdim=True).add(1e-6).sqrt()


def _attended(state: TinyState, count: int, qkv: Tensor) -> Tensor:
    """Attention of one request, column by column, which gives the bytes of single steps; writes its cache."""
    out = []
    for each in qkv.view(count, len(state.conditions), 3 * D):  # [R, 3 D]
        state.cache[:, state.num_steps] = each[:, D:]
        state.num_steps += 1
        keys, values = state.cache[:, : state.num_steps].split(D, -1)
        weights = (keys @ each[:, :D, None] / D**0.5).softmax(1)  # [R, N, 1]
        out.append((weights * values).sum(1))
    return torch.cat(out)


@cache
def stepper(kind: str, weight_format: str) -> TinyStepper:
    torch.set_num_threads(1)
    return TinyStepper(KINDS[kind], weight_format)


def piece(kind: Kind, index: int) -> TokenRequest[int]:
    """One of the pieces that the schedules draw from."""
    rng = np.random.default_rng(index)
    num_frames = int(rng.integers(12, 40))
    prompt = np.zeros((kind.num_codebooks, int(rng.integers(0, 9)) if index % 2 else 0), dtype=np.int32)
    for step in range(prompt.shape[1]):
        allowed = kind.allowed(step)
        prompt[:, step] = (
            rng.integers(allowed.start, min(allowed.stop, END), kind.num_codebooks)
            if (kind is EVENTS)
            else rng.integers(allowed.start, allowed.stop, kind.num_codebooks)
        )
    sampling = Sampling(temperature=1.0, top_k=(0, 7)[index % 2], guidance_scale=(3.0, 1.0)[index % 3 == 1])
    return TokenRequest(
        condition=index,
        num_frames=num_frames,
        prompt=prompt,
        resume_from=prompt[:, :0],
        sampling=sampling,
        seed=index,
        is_realtime=index % 3 == 0,
        priority=index % 4,
        end_token=kind.end_token,
    )


async def run(
    engine: TokenEngine[int, TinyState], request: TokenRequest[int], max_blocks: int = 999
) -> NDArray[np.int32]:
    """All frames, or those of the first blocks, after which the stream is closed."""
    blocks = [request.prompt[:, :0]]
    async with aclosing(engine.generate(request)) as stream:
        while len(blocks) <= max_blocks and (block := await anext(stream, None)) is not None:
            blocks.append(block.codes)
    return np.concatenate(blocks, axis=1)


async def with_engine(model: TinyStepper, config: TokenEngineConfig, work):  # type: ignore[no-untyped-def]
    thread = ModelThread("tiny")
    # frames that last long let every real-time stream in, whatever this machine does beside
    rate_hz = None if model.kind.frame_rate_hz is None else model.kind.frame_rate_hz / 5000
    engine = TokenEngine(thread, model, stage=model.kind.name, config=config, frame_rate_hz=rate_hz)
    try:
        return await work(engine)
    finally:
        await engine.close()
        await thread.close()


@cache
def solo(kind: str, weight_format: str, index: int) -> NDArray[np.int32]:
    config = TokenEngineConfig(max_slots=1, prefill_columns=1)
    wanted = piece(KINDS[kind], index)
    return asyncio.run(with_engine(stepper(kind, weight_format), config, lambda engine: run(engine, wanted)))


@dataclass(frozen=True)
class Arrival:
    """One request of a schedule."""

    index: int
    wait_ms: int
    resume_share: float
    max_blocks: int


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        st.integers(0, NUM_PIECES - 1),
        st.integers(0, 10),
        st.sampled_from([0.0, 0.0, 0.3, 0.99]),
        st.sampled_from([999, 999, 999, 0, 1, 2]),
    ),
    min_size=2,
    max_size=9,
)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    arrivals=ARRIVALS, max_slots=st.integers(1, 5), prefill_columns=st.integers(1, 7), block=st.sampled_from([1, 3, 20])
)
def test_every_piece_of_every_schedule_equals_its_solo_run(
    kind: str, weight_format: str, arrivals: list[Arrival], max_slots: int, prefill_columns: int, block: int
) -> None:
    config = TokenEngineConfig(
        max_slots=max_slots,
        max_queued=99,
        first_block_frames=1 + block // 2,
        block_frames=block,
        prefill_columns=prefill_columns,
        realtime_lead_s=0.05,
        max_realtime_wait_s=1e9,
    )
    for arrival in arrivals:
        solo(kind, weight_format, arrival.index)

    async def play(engine: TokenEngine[int, TinyState]) -> None:
        async def come(arrival: Arrival) -> None:
            whole, request = solo(kind, weight_format, arrival.index), piece(KINDS[kind], arrival.index)
            start = min(int(arrival.resume_share * whole.shape[1]), whole.shape[1] - 1)
            await asyncio.sleep(arrival.wait_ms / 1000)
            resumed = dataclasses.replace(request, resume_from=whole[:, :start])
            got = await run(engine, resumed, arrival.max_blocks)
            if arrival.max_blocks == 999:
                assert got.shape == whole[:, start:].shape
            np.testing.assert_array_equal(got, whole[:, start : start + got.shape[1]])

        await asyncio.gather(*(come(arrival) for arrival in arrivals))
        assert engine.num_waiting == 0

    asyncio.run(with_engine(stepper(kind, weight_format), config, play))


@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_differ_so_that_a_mix_up_would_show(kind: str) -> None:
    pieces = [solo(kind, "int8", index) for index in range(NUM_PIECES)]
    longer = [codes.tobytes() for codes in pieces if codes.shape[1] > 2]
    assert len(set(longer)) == len(longer) > NUM_PIECES // 2


@pytest.mark.parametrize("kind", KINDS)
def test_in_int8_pieces_share_passes(kind: str) -> None:
    assert joins_exactly(stepper(kind, "int8"), [Trial(1, 3.0), Trial(2, 1.0), Trial(3, 3.0)])


def test_flattened_codes_are_each_of_their_own_codebook_also_after_a_resume_within_a_frame() -> None:
    for index in range(NUM_PIECES):
        request, codes = piece(FLATTENED, index), solo("flattened", "int8", index)
        steps = np.arange(request.prompt.shape[1], request.num_frames)
        np.testing.assert_array_equal(codes[0] // 16, steps % 3)
    request, whole = piece(FLATTENED, 2), solo("flattened", "int8", 2)
    config = TokenEngineConfig()
    for start in (1, 2, 3, 4):
        resumed = dataclasses.replace(request, resume_from=whole[:, :start])
        rest = asyncio.run(with_engine(stepper("flattened", "int8"), config, lambda engine, r=resumed: run(engine, r)))
        np.testing.assert_array_equal(rest, whole[:, start:])


def test_parallel_streams_give_all_codes_of_a_frame_in_one_step() -> None:
    model, request = stepper("parallel", "int8"), piece(PARALLEL, 4)
    model.num_columns_read = 0
    codes = asyncio.run(with_engine(model, TokenEngineConfig(), lambda engine: run(engine, request)))
    assert codes.shape == (3, request.num_frames) and model.num_columns_read == request.num_frames
    assert len({row.tobytes() for row in codes}) == 3


def test_events_end_with_their_end_token_and_cost_no_step_more() -> None:
    model, ends = stepper("events", "int8"), 0
    for index in range(NUM_PIECES):
        request = piece(EVENTS, index)
        model.num_columns_read = 0
        codes = asyncio.run(with_engine(model, TokenEngineConfig(), lambda engine, r=request: run(engine, r)))
        assert END not in codes[0, :-1]
        assert model.num_columns_read == request.prompt.shape[1] + codes.shape[1]
        if codes[0, -1] == END:
            ends += 2 < codes.shape[1] < request.num_frames - request.prompt.shape[1]
        else:
            assert codes.shape[1] == request.num_frames - request.prompt.shape[1]
    assert 2 <= ends < NUM_PIECES, "some end by themselves in the middle, and some by their length"


def test_the_same_events_without_an_end_token_go_on_to_the_full_length() -> None:
    index = next(i for i in range(NUM_PIECES) if solo("events", "int8", i)[0, -1] == END)
    request, ended = piece(EVENTS, index), solo("events", "int8", index)
    endless = dataclasses.replace(request, end_token=None)
    codes = asyncio.run(
        with_engine(stepper("events", "int8"), TokenEngineConfig(), lambda engine: run(engine, endless))
    )
    assert codes.shape[1] == request.num_frames - request.prompt.shape[1]
    np.testing.assert_array_equal(codes[:, : ended.shape[1]], ended)
