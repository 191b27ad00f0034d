"""What the clients of token stages share: how a piece is paced, and the frames that a stage streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stretto.common.v1 import model_pb2
from stretto_shared.features import ModelInfo, SamplingOptions
from stretto_shared.grpc import convert
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients.calling import read, read_model

OWN_TOKEN_FIELDS = {field: field for field in ("duration_s", "seed", "sampling", "melody", "pace", "priority")}
"""Fields of a token stage that hold what the client sent, under the name that the client gave them."""


@dataclass(frozen=True)
class Pacing:
    """Whether somebody listens while a piece is made, and of one for which nobody does, its priority of 0 to 9."""

    is_realtime: bool = False
    priority: int = 0


BEST_EFFORT = Pacing()


@dataclass(frozen=True)
class GeneratedTokens:
    """Consecutive new frames; `model` and `sampling` come with the first of a stream."""

    tokens: TokenMatrix
    first_frame_index: int
    num_total_frames: int
    model: ModelInfo | None
    sampling: SamplingOptions | None


def read_generated(response: Any, stage: str) -> GeneratedTokens:
    """One message of a token stage; those of all of them have the same fields."""
    return GeneratedTokens(
        read(convert.tokens_from_proto, response.tokens, stage),
        response.first_frame_index,
        response.total_frame_count,
        read_model(response, stage),
        convert.sampling_from_proto(response.sampling) if response.HasField("sampling") else None,
    )


def pace_to_proto(pacing: Pacing) -> model_pb2.Pace:
    """The pace of the wire."""
    return model_pb2.PACE_REALTIME if pacing.is_realtime else model_pb2.PACE_BEST_EFFORT
