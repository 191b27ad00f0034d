"""Random schedules of random pieces for one language model, and whether each piece gets the bytes that it gets alone.

A piece is what a caller may ask for: text, melody, both or neither, a prompt or none, any guidance and way of drawing.
An arrival is how it comes: when, at which pace and priority, resumed at which frame, and when its reader goes away. A
schedule is some arrivals at one engine: its slots, its blocks, how many known frames one pass reads. All are drawn from
seeds, so that another process plays the same ones. Refuses to know: weights, formats, the wire.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_acoustic.engine import NOISE_STAGE, GenerateRequest
from stretto_acoustic.engine.requests import token_request
from stretto_acoustic.models.musicgen import MusicGenCondition, MusicGenConfig
from stretto_shared.engine.program import StepModel, TokenRequest
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from stretto_shared.errors import Overloaded
from stretto_shared.features import Chromagram, SamplingOptions, TextStates
from stretto_shared.tokens import TokenMatrix

MAX_FRAMES, MAX_TEXT_TOKENS, MAX_MELODY_FRAMES = 16, 8, 12
MAX_ARRIVALS, MAX_SLOTS, MAX_PREFILL_COLUMNS = 8, 8, 16
BLOCK_FRAMES = (1, 2, 5, 25)
_PIECES, _SCHEDULES = 1, 2  # streams of random numbers

Codes = NDArray[np.int32]
Request = TokenRequest[MusicGenCondition]
Model = StepModel[MusicGenCondition, Any]


@dataclass(frozen=True)
class Arrival:
    """One request of a schedule.

    Args:
        piece: Which one.
        wait_s: When it comes.
        resume_share: How much of it the caller has already, in [0, 1); the frame is rounded down.
        max_blocks: The reader goes away after so many; None stays to the end.
        is_realtime: Its pace.
        priority: 0 to 9.
    """

    piece: int
    wait_s: float
    resume_share: float
    max_blocks: int | None
    is_realtime: bool
    priority: int


@dataclass(frozen=True)
class Schedule:
    """Some arrivals, and the limits of the engine that they meet."""

    arrivals: tuple[Arrival, ...]
    max_slots: int
    block_frames: int
    prefill_columns: int


@dataclass
class Tally:
    """What was compared, and what differed."""

    schedules: int = 0
    requests: int = 0
    resumed: int = 0
    closed_early: int = 0
    realtime: int = 0
    refused: int = 0
    frames: int = 0
    differing: int = 0

    def add(self, other: Tally) -> None:
        """Count another's too."""
        for each in dataclasses.fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def draw_piece(index: int, config: MusicGenConfig) -> Request:
    """Piece number `index` for a model of this geometry, as its service would hand it to the token engine."""
    rng = np.random.default_rng((_PIECES, index))
    num_frames = int(rng.integers(1, MAX_FRAMES + 1))
    text = melody = prompt = None
    if rng.random() < 0.75:
        states = rng.standard_normal((int(rng.integers(1, MAX_TEXT_TOKENS + 1)), config.text_dim)).astype(np.float32)
        text = TextStates(config.text_encoder_id, states[0], states)
    if config.melody_conditioning != "none" and rng.random() < 0.4:
        melody = Chromagram(rng.integers(-1, config.num_chroma, int(rng.integers(1, MAX_MELODY_FRAMES + 1))))
    if rng.random() < 0.4:
        codes = rng.integers(0, config.cardinality, (config.num_codebooks, int(rng.integers(0, num_frames))))
        prompt = TokenMatrix(codes.astype(np.int32), config.frame_rate_hz, config.codec_id)
    sampling = SamplingOptions(
        temperature=float(rng.choice([0.0, 0.7, 1.0, 1.3])),
        top_k=int(rng.choice([0, 5, 50])),
        top_p=float(rng.choice([0.9, 1.0])),
        guidance_scale=float(rng.choice([0.0, 1.0, 3.0, 3.0, 5.0])),
    )
    seed = int(rng.integers(0, 2**63))
    duration_s = num_frames / config.frame_rate_hz
    return token_request(GenerateRequest("", duration_s, seed, sampling, text, melody, prompt), config)


def draw_schedule(index: int, num_pieces: int) -> Schedule:
    """Schedule number `index` over pieces [0, num_pieces)."""
    rng = np.random.default_rng((_SCHEDULES, index))
    last_s = float(rng.choice([0.0, 0.01, 0.04]))  # all at once, close together, one after the other

    def arrival() -> Arrival:
        return Arrival(
            piece=int(rng.integers(num_pieces)),
            wait_s=float(rng.uniform(0, last_s)),
            resume_share=float(rng.random()) if rng.random() < 0.4 else 0.0,
            max_blocks=int(rng.integers(0, 4)) if rng.random() < 0.25 else None,
            is_realtime=bool(rng.random() < 0.4),
            priority=int(rng.integers(0, 10)),
        )

    return Schedule(
        tuple(arrival() for _ in range(int(rng.integers(2, MAX_ARRIVALS + 1)))),
        max_slots=int(rng.integers(1, MAX_SLOTS + 1)),
        block_frames=int(rng.choice(BLOCK_FRAMES)),
        prefill_columns=int(rng.integers(1, MAX_PREFILL_COLUMNS + 1)),
    )


async def alone(model: Model, request: Request) -> Codes:
    """All frames of a piece by an engine with one slot, which reads one column a pass."""
    config = TokenEngineConfig(max_slots=1, prefill_columns=1, block_frames=1, first_block_frames=1)
    async with _Engine(model, config, None) as engine:
        return await _frames(engine, request, None)


async def play(
    model: Model, schedule: Schedule, pieces: Sequence[Request], solos: Sequence[Codes], *, frame_rate_hz: float
) -> Tally:
    """Play one schedule and compare every piece with its bytes alone.

    A real-time piece that the engine refuses is asked for again at best effort, as it tells its callers to.
    """
    config = TokenEngineConfig(
        max_slots=schedule.max_slots,
        max_queued=len(schedule.arrivals),
        first_block_frames=1 + schedule.block_frames // 4,
        block_frames=schedule.block_frames,
        prefill_columns=schedule.prefill_columns,
    )
    async with _Engine(model, config, frame_rate_hz) as engine:
        tallies = await asyncio.gather(*(_come(engine, each, pieces, solos) for each in schedule.arrivals))
    tally = Tally(schedules=1)
    for each in tallies:
        tally.add(each)
    return tally


def digest_of(codes: Iterable[Codes]) -> str:
    """One sha256 of many matrices, shapes included."""
    digest = hashlib.sha256()
    for each in codes:
        digest.update(f"{each.shape}".encode() + np.ascontiguousarray(each, dtype="<i4").tobytes())
    return digest.hexdigest()


async def _come(
    engine: TokenEngine[MusicGenCondition, Any], arrival: Arrival, pieces: Sequence[Request], solos: Sequence[Codes]
) -> Tally:
    whole = solos[arrival.piece]
    start = int(arrival.resume_share * whole.shape[1])
    request = dataclasses.replace(
        pieces[arrival.piece],
        resume_from=whole[:, :start],
        is_realtime=arrival.is_realtime,
        priority=arrival.priority,
    )
    tally = Tally(
        requests=1, resumed=start > 0, closed_early=arrival.max_blocks is not None, realtime=arrival.is_realtime
    )
    await asyncio.sleep(arrival.wait_s)
    try:
        got = await _frames(engine, request, arrival.max_blocks)
    except Overloaded:
        if not arrival.is_realtime:
            raise
        tally.refused = 1
        got = await _frames(engine, dataclasses.replace(request, is_realtime=False), arrival.max_blocks)
    expected = whole[:, start:]
    if arrival.max_blocks is not None:
        expected = expected[:, : got.shape[1]]
    tally.frames = got.shape[1]
    tally.differing = not np.array_equal(got, expected)
    return tally


async def _frames(
    engine: TokenEngine[MusicGenCondition, Any], request: Request, max_blocks: int | None
) -> NDArray[np.int32]:
    """All frames, or those of the first blocks, after which the stream is closed."""
    blocks = [request.prompt[:, :0]]
    async with aclosing(engine.generate(request)) as stream:
        while max_blocks is None or len(blocks) <= max_blocks:
            block = await anext(stream, None)
            if block is None:
                break
            blocks.append(block.codes)
    return np.concatenate(blocks, axis=1)


class _Engine:
    """A token engine with a thread of its own, on which torch has one thread, both closed at the end."""

    def __init__(self, model: Model, config: TokenEngineConfig, frame_rate_hz: float | None) -> None:
        self._thread = ModelThread("schedule")
        self._engine: TokenEngine[MusicGenCondition, Any] = TokenEngine(
            self._thread, model, stage=NOISE_STAGE, config=config, frame_rate_hz=frame_rate_hz
        )

    async def __aenter__(self) -> TokenEngine[MusicGenCondition, Any]:
        await self._thread.run(lambda: torch.set_num_threads(1))  # each thread that OpenMP meets has its own number
        return self._engine

    async def __aexit__(self, *error: object) -> None:
        await self._engine.close()
        await self._thread.close()
