"""A windowed engine over a model of one codebook, whose tokens tell what it has read, for the tests of windows."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared.engine.program import StateCost, TokenBlock
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.step_times import StepTimes
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from stretto_shared.engine.windows import Window, WindowedEngine, WindowedRequest, WindowLayout
from torch import Tensor

K, V = 2, 11
LAYOUT = WindowLayout(K, window_frames=8, stride_frames=5)
NONE = np.zeros((K, 0), dtype=np.int32)


@dataclass
class FlatState:
    """What a state knows: the condition, and all tokens read so far, folded into one number."""

    word: int


class FlatModel:
    """One codebook without delay; logits are a hash of condition and of everything read, in order."""

    cardinality = V
    special_token = V
    delays = (0,)

    def __init__(self, *, is_row_invariant: bool = True, is_deaf: bool = False) -> None:
        self.is_row_invariant = is_row_invariant
        self.is_deaf = is_deaf  # logits depend on nothing: what differs then is the noise
        self.num_steps = 0
        self.opened: list[tuple[int, int]] = []
        self.num_columns_read = 0

    def cost(self, condition: int, *, num_steps: int, guidance_scale: float) -> StateCost:
        return StateCost(num_rows=1, kv_bytes=num_steps)

    def open(self, condition: int, *, num_steps: int, guidance_scale: float) -> FlatState:
        self.opened.append((condition, num_steps))
        return FlatState(condition)

    def step(
        self, states: Sequence[FlatState], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        self.num_steps += 1
        rows: list[Tensor | None] = []
        for state, each, wants in zip(states, columns, wants_logits, strict=True):
            self.num_columns_read += each.shape[1]
            for code in each[0].tolist():
                state.word = (state.word * 6364136223846793005 + code + 1442695040888963407) % 2**63
            seed = 0 if self.is_deaf else state.word
            logits = torch.randn(1, V, generator=torch.Generator().manual_seed(seed)) * 2
            rows.append((torch.zeros(1, V) if self.is_deaf else logits) if wants else None)
        return rows


class Heard:
    """A meter that keeps what it is told of streams."""

    def __init__(self) -> None:
        self.streams: list[tuple[float, bool]] = []
        self.num_tokens: list[int] = []
        self.num_first = 0

    def watch_slots(self, num_slots: int, count_used: Any) -> None: ...
    def watch_kv(self, budget_bytes: int, count_bytes: Any) -> None: ...
    def observe_step(self, step_s: float, num_rows: int) -> None: ...

    def observe_first_frames(self, wait_s: float) -> None:
        self.num_first += 1

    def observe_chunk(self, num_tokens: int, gap_s: float | None) -> None:
        self.num_tokens.append(num_tokens)

    def observe_stream(self, underrun_s: float, *, is_realtime: bool) -> None:
        self.streams.append((underrun_s, is_realtime))


@dataclass
class Stage:
    """A windowed engine, the token engine below it, and its meter."""

    windowed: WindowedEngine[int, FlatState]
    tokens: TokenEngine[int, FlatState]
    meter: Heard


@contextlib.asynccontextmanager
async def running(
    model: FlatModel | None = None, layout: WindowLayout = LAYOUT, frame_rate_hz: float = 0.01, **limits: Any
) -> AsyncIterator[Stage]:
    """Frames that last long let every real-time piece in, whatever this machine does beside."""
    thread, meter = ModelThread("flat"), Heard()
    config = TokenEngineConfig(**({"first_block_frames": 2, "block_frames": 4, "prefill_columns": 5} | limits))
    tokens = TokenEngine(
        thread,
        model or FlatModel(),
        stage="test",
        config=layout.limits(config),
        frame_rate_hz=frame_rate_hz * layout.num_codebooks,
        step_times=StepTimes({1: 1e-4}),
        meter=meter,
    )
    yield Stage(WindowedEngine(tokens, layout), tokens, meter)
    await tokens.close()
    await thread.close()


def request(num_frames: int = 30, **changes: Any) -> WindowedRequest[int]:
    return dataclasses.replace(WindowedRequest(num_frames, NONE, NONE, Sampling(top_k=0), seed=3, typical=0), **changes)


async def by_start(window: Window) -> int:
    """A condition of its own for each window."""
    return 1000 * window.start + window.stop


async def blocks_of(stage: Stage, wanted: WindowedRequest[int], condition_of: Any = by_start) -> list[TokenBlock]:
    async with aclosing(stage.windowed.generate(wanted, condition_of)) as stream:
        return [block async for block in stream]


async def codes_of(stage: Stage, wanted: WindowedRequest[int], condition_of: Any = by_start) -> NDArray[np.int32]:
    return np.concatenate([NONE, *(b.codes for b in await blocks_of(stage, wanted, condition_of))], axis=1)


def codes(num_frames: int, seed: int = 0) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, V, (K, num_frames)).astype(np.int32)
