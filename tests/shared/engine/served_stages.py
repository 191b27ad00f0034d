"""What the tests of services with stages share: a stage whose network is a hash, its files, and what errors say."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from grpc_status import rpc_status
from numpy.typing import NDArray
from stretto_shared import weights
from stretto_shared.engine.program import StateCost
from stretto_shared.engine.self_test import Trial
from stretto_shared.engine.stage_engine import LoadedStage
from stretto_shared.engine.stage_loading import make_loaded_stage
from stretto_shared.nn.stage_lm import StageCondition, StageConfig, StageLM


class HashStepper:
    """Logits are a hash of all that it was told and has read, so that every difference shows, on any machine."""

    special_token, delays, is_row_invariant, min_rows = 99, (0,), True, 1

    def __init__(self, config: StageConfig) -> None:
        self.config = config
        self.cardinality = config.cardinality

    def trials(self) -> list[Trial[StageCondition]]:
        return [Trial(StageCondition(), 1.0)]

    def cost(self, condition: StageCondition, *, num_steps: int, guidance_scale: float) -> StateCost:
        return StateCost(num_rows=1, kv_bytes=num_steps)

    def open(self, condition: StageCondition, *, num_steps: int, guidance_scale: float) -> list[int]:
        num_frames = num_steps // self.config.num_codebooks
        for codes, count in (
            (condition.melody, self.config.melody_frames),
            (condition.source, self.config.source_frames),
        ):
            assert codes is None or codes.shape[1] == count(num_frames)
        told = (condition.style, condition.melody, condition.source)
        text = repr([None if codes is None else codes.tolist() for codes in told] + [guidance_scale])
        return [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")]

    def step(
        self, states: Sequence[list[int]], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[torch.Tensor | None]:
        rows: list[torch.Tensor | None] = []
        for state, each, wants in zip(states, columns, wants_logits, strict=True):
            for code in each[0].tolist():
                state[0] = (state[0] * 6364136223846793005 + code + 1442695040888963407) % 2**63
            logits = torch.randn(1, self.cardinality, generator=torch.Generator().manual_seed(state[0]))
            rows.append(logits if wants else None)
        return rows


def stage_lm(config: StageConfig) -> StageLM:
    torch.manual_seed(0)
    return StageLM(config)


def hash_stage(name: str, config: StageConfig, *, service: str, is_default: bool = False) -> LoadedStage:
    """A stage whose network is a hash; its receipt is that of a real one."""
    digest = name[0] * 64
    real = make_loaded_stage(name, stage_lm(config), service=service, digest_sha256=digest, is_default=is_default)
    return LoadedStage(real.info, config, lambda *_: HashStepper(config))


def write_stage(folder: Path, name: str, config: StageConfig, architecture: str = "StageLM") -> None:
    weights.write(
        folder / name,
        stage_lm(config).state_dict(),
        name=name,
        architecture=architecture,
        config=dataclasses.asdict(config),
        licence="CC0-1.0",
        score="",
        training={},
    )


def detail_of(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    for detail in rpc_status.from_call(error).details:
        if detail.Is(kind.DESCRIPTOR):
            message = kind()
            detail.Unpack(message)
            return message
    raise AssertionError(f"the status carries no {kind.DESCRIPTOR.name}")


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_true():  # noqa: ASYNC110 - the engine tells nobody when a slot is freed
            await asyncio.sleep(0.005)
