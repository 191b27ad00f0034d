"""A small counting model whose logits depend on all that it has read, and engines of it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared.engine.program import StateCost, TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.step_times import StepTimes
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from stretto_shared.errors import InvalidInput
from torch import Tensor

K, V = 3, 17
POISON = 666  # a condition whose steps fail


@dataclass
class HashState:
    """All columns read so far, folded into one number."""

    word: int
    num_steps: int


class HashModel:
    """Logits are a hash of everything read, so that one wrong token shows in all later ones."""

    cardinality = V
    special_token = V
    delays = (0, 1, 2)

    def __init__(self, step_s: float = 0.0, *, is_row_invariant: bool = False) -> None:
        self.step_s = step_s
        self.is_row_invariant = is_row_invariant
        self.num_steps = 0
        self.num_open = 0

    def open(self, condition: int, *, num_steps: int, guidance_scale: float) -> HashState:
        if condition < 0:
            raise InvalidInput("condition", "expected at least 0.")
        self.num_open += 1
        return HashState(condition, 0)

    def cost(self, condition: int, *, num_steps: int, guidance_scale: float) -> StateCost:
        return StateCost(num_rows=2, kv_bytes=num_steps)

    def step(
        self, states: Sequence[HashState], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        if any(state.word == POISON for state in states):
            raise RuntimeError("the poison works.")
        assert self.is_row_invariant or (len(states) == 1 and columns[0].shape[1] == 1)
        time.sleep(self.step_s)
        self.num_steps += 1
        rows: list[Tensor | None] = []
        for state, each, wants in zip(states, columns, wants_logits, strict=True):
            for code in each.T.ravel().tolist():
                state.word = (state.word * 6364136223846793005 + code + 1442695040888963407) % 2**63
            rows.append(torch.randn(K, V, generator=torch.Generator().manual_seed(state.word)) * 2 if wants else None)
        return rows


def request(
    num_frames: int = 12,
    *,
    seed: int = 0,
    condition: int = 1,
    prompt: NDArray[np.int32] | None = None,
    resume_from: NDArray[np.int32] | None = None,
) -> TokenRequest[int]:
    none = np.zeros((K, 0), dtype=np.int32)
    return TokenRequest(
        condition,
        num_frames,
        none if prompt is None else prompt,
        none if resume_from is None else resume_from,
        Sampling(top_k=0),
        seed,
    )


@contextlib.asynccontextmanager
async def running(model: HashModel | None = None, **limits: int) -> AsyncIterator[TokenEngine[int, HashState]]:
    thread = ModelThread("hash")
    config = TokenEngineConfig(**({"first_block_frames": 2, "block_frames": 4} | limits))
    engine = TokenEngine(thread, model or HashModel(), stage="test", config=config)
    yield engine
    await engine.close()
    await thread.close()


async def collect(engine: TokenEngine[int, HashState], wanted: TokenRequest[int]) -> NDArray[np.int32]:
    blocks = [block async for block in engine.generate(wanted)]
    frames = [block.first_frame for block in blocks]
    assert frames == [wanted.num_known_frames + sum(b.codes.shape[1] for b in blocks[:i]) for i in range(len(blocks))]
    return np.concatenate([block.codes for block in blocks], axis=1)


@contextlib.asynccontextmanager
async def live_engine(*, frame_rate_hz: float = 0.1, **limits: Any) -> AsyncIterator[TokenEngine[int, HashState]]:
    thread, model = ModelThread("hash"), HashModel(is_row_invariant=True)
    config = TokenEngineConfig(**({"max_slots": 2, "max_unread_blocks": 1, "max_realtime_wait_s": 1e-9} | limits))
    times = StepTimes({2: 1e-3, 4: 1e-3, 6: 1e-3})
    engine = TokenEngine(thread, model, stage="test", config=config, frame_rate_hz=frame_rate_hz, step_times=times)
    yield engine
    await engine.close()
    await thread.close()


LIVE = dataclasses.replace(request(600), is_realtime=True)
