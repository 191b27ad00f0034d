"""However a source is cut into messages, whenever it comes and whoever is beside it: a stage gives the same bytes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stretto_acoustic.engine import Refining
from stretto_shared.engine.stage_engine import LoadedStage
from stretto_shared.engine.stage_loading import make_loaded_stage
from stretto_shared.engine.stage_requests import StageRequest
from stretto_shared.engine.token_engine import TokenEngineConfig
from stretto_shared.features import SamplingOptions, StyleSpan
from stretto_shared.nn.stage_lm import StageConfig, StageLM
from stretto_shared.tokens import TokenMatrix

CODEC, SEMANTIC, STYLE = "framecodec@0123456789ab", "w2vbert@aaaaaaaaaaaa", "mulan@bbbbbbbbbbbb"
COARSE = StageConfig(
    num_codebooks=2,
    cardinality=16,
    frame_rate_hz=12.5,
    window_s=0.64,  # 8 frames
    stride_s=0.4,  # 5 frames
    num_style_codes=3,
    style_cardinality=8,
    num_source_codebooks=1,
    source_cardinality=9,
    source_frame_rate_hz=25.0,
    dim=32,
    num_layers=2,
    num_heads=2,
    feed_forward_dim=64,
    num_buckets=8,
    table_dim=16,
    tokens=CODEC,
    source_tokens=SEMANTIC,
    style_encoder=STYLE,
)
FINE = dataclasses.replace(
    COARSE,
    num_codebooks=3,
    num_style_codes=0,
    num_source_codebooks=2,
    source_cardinality=16,
    source_frame_rate_hz=12.5,
    source_tokens=CODEC,
)
CONFIGS = {"coarse": COARSE, "fine": FINE}
NUM_PIECES = 6


@cache
def loaded(name: str) -> LoadedStage:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = StageLM(CONFIGS[name])
    with torch.no_grad():
        model.narrow.weight.mul_(2)  # an untrained model is close to indifferent: let its opinions show
        for block in model.blocks():
            block.self_out.weight.mul_(6)  # and come from all that it reads, not from the last token alone
    return make_loaded_stage(name, model, service="acoustic", digest_sha256="a" * 64)


def refining(config: TokenEngineConfig, *, joins: bool = True) -> Refining:
    return Refining({name: lambda name=name: loaded(name) for name in CONFIGS}, config=config, joins=joins)  # type: ignore[misc]


def piece(name: str, index: int) -> StageRequest:
    """One of the pieces that the schedules draw from: lengths, styles that change, guidance, prompts."""
    rng = np.random.default_rng(index)
    num_frames = int(rng.integers(1, 30))
    starts = [0.0, *sorted(set(rng.integers(1, 8, 2) * 0.3))] if index % 3 else []
    spans = [StyleSpan(float(start), STYLE, tuple(rng.integers(0, 8, 3).tolist())) for start in starts]
    num_prompt = int(rng.integers(0, num_frames)) if index % 2 else 0
    prompt = rng.integers(0, 16, (given_codebooks(name), num_prompt)).astype(np.int32)
    return StageRequest(
        name,
        num_frames / 12.5,
        seed=index,
        sampling=SamplingOptions(guidance_scale=(3.0, 1.0)[index % 2]),
        styles=tuple(spans) if name == "coarse" else (),
        prompt=TokenMatrix(prompt, 12.5, CODEC) if num_prompt else None,
        priority=index % 3,
    )


def given_codebooks(name: str) -> int:
    return {"coarse": 2, "fine": 5}[name]


def source_of(name: str, request: StageRequest) -> TokenMatrix:
    """Exactly what a piece needs."""
    config = CONFIGS[name]
    num_frames = config.source_frames(round(request.duration_s * 12.5))
    codes = np.random.default_rng(request.seed).integers(
        0, config.source_cardinality, (config.num_source_codebooks, num_frames)
    )
    return TokenMatrix(codes.astype(np.int32), config.source_frame_rate_hz, config.source_tokens)


@dataclass(frozen=True)
class Arrival:
    """One piece of a schedule: how its source is cut and how late each message is, where it resumes or is left."""

    name: str
    index: int
    message_frames: tuple[int, ...]
    lag_ms: int
    wait_ms: int
    resume_share: float
    max_blocks: int | None
    is_realtime: bool

    async def source(self) -> AsyncIterator[TokenMatrix]:
        whole, start, count = source_of(self.name, piece(self.name, self.index)), 0, 0
        while start < whole.num_frames:
            stop = start + self.message_frames[count % len(self.message_frames)]
            if self.lag_ms:
                await asyncio.sleep(self.lag_ms / 1000)
            yield whole.frames(start, stop)
            start, count = stop, count + 1


async def run(engine: Refining, arrival: Arrival, known: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
    request = dataclasses.replace(piece(arrival.name, arrival.index), is_realtime=arrival.is_realtime)
    if known is not None:
        request = dataclasses.replace(request, resume_from=TokenMatrix(known, 12.5, CODEC))
    parts = [np.zeros((given_codebooks(arrival.name), 0), dtype=np.int32)]
    async with aclosing(arrival.source()) as source, aclosing(engine.refine(request, source)) as stream:
        while arrival.max_blocks is None or len(parts) <= arrival.max_blocks:
            if (frames := await anext(stream, None)) is None:
                break
            parts.append(frames.tokens.codes)
    return np.concatenate(parts, axis=1)


@cache
def solo(name: str, index: int) -> NDArray[np.int32]:
    """The whole source in one message, nobody beside, one column a pass."""

    async def alone() -> NDArray[np.int32]:
        engine = refining(TokenEngineConfig(max_slots=1, prefill_columns=1), joins=False)
        await engine.start()
        codes = await run(engine, Arrival(name, index, (999,), 0, 0, 0.0, None, is_realtime=False))
        await engine.stop()
        return codes

    return asyncio.run(alone())


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        name=st.sampled_from(list(CONFIGS)),
        index=st.integers(0, NUM_PIECES - 1),
        message_frames=st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple),
        lag_ms=st.sampled_from([0, 0, 2]),
        wait_ms=st.integers(0, 10),
        resume_share=st.sampled_from([0.0, 0.0, 0.4, 0.99]),
        max_blocks=st.sampled_from([None, None, None, 0, 1, 2]),
        is_realtime=st.booleans(),
    ),
    min_size=2,
    max_size=7,
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(arrivals=ARRIVALS, max_slots=st.integers(1, 4), prefill=st.integers(1, 9), block=st.integers(1, 6))
def test_every_piece_of_every_schedule_equals_its_solo_run(
    arrivals: list[Arrival], max_slots: int, prefill: int, block: int
) -> None:
    wholes = [solo(arrival.name, arrival.index) for arrival in arrivals]

    async def come(engine: Refining, arrival: Arrival, whole: NDArray[np.int32]) -> None:
        start = min(int(arrival.resume_share * whole.shape[1]), whole.shape[1] - 1)
        await asyncio.sleep(arrival.wait_ms / 1000)
        got = await run(engine, arrival, whole[:, :start])
        if arrival.max_blocks is None:
            assert got.shape[1] == whole.shape[1] - start
        np.testing.assert_array_equal(got, whole[:, start : start + got.shape[1]])

    async def play() -> None:
        config = TokenEngineConfig(
            max_slots=max_slots,
            max_queued=99,
            first_block_frames=1 + block // 2,
            block_frames=block,
            prefill_columns=prefill,
            realtime_utilisation=1.0,
            max_realtime_wait_s=1e9,
        )
        engine = refining(config)
        await engine.start()
        # a machine that is busy beside may let no second listener in; whom it lets in is not what is asked here
        for stage in CONFIGS:
            engine.find(stage).tokens._scheduler.would_underrun = lambda *_: False  # type: ignore[method-assign]
        await asyncio.gather(*(come(engine, arrival, whole) for arrival, whole in zip(arrivals, wholes, strict=True)))
        for stage in CONFIGS:
            assert engine.num_running(stage) == engine.num_waiting(stage) == engine.num_idle(stage) == 0
        await engine.stop()

    asyncio.run(play())


@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_pieces_differ_so_that_a_mix_up_would_show(name: str) -> None:
    pieces = [solo(name, index) for index in range(NUM_PIECES)]
    assert len({codes.tobytes() for codes in pieces if codes.shape[1] > 2}) == sum(c.shape[1] > 2 for c in pieces)
