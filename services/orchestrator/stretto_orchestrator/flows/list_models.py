"""Which models every service that this door reaches can serve."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from stretto_shared.errors import NotReady
from stretto_shared.features import ModelInfo

from stretto_orchestrator.clients import (
    AcousticClient,
    CodecClient,
    EmbeddingClient,
    HarmonyClient,
    SemanticClient,
    Stages,
    TranscriberClient,
)

StageClient = AcousticClient | CodecClient | EmbeddingClient | HarmonyClient | SemanticClient | TranscriberClient


@dataclass(frozen=True)
class Inventory:
    """Models sorted by service and name, and the services that did not answer."""

    models: tuple[ModelInfo, ...]
    unreachable_services: tuple[str, ...]


async def list_models(stages: Stages, *, timeout_s: float) -> Inventory:
    """Ask every stage at once; one that is away, loading or silent for `timeout_s` is named, and fails nobody else."""
    clients: tuple[StageClient, ...] = (
        stages.acoustic, stages.codec, stages.embedding, stages.harmony, stages.semantic, stages.transcriber
    )  # fmt: skip
    answers = await asyncio.gather(*(_models_of(client, timeout_s) for client in clients))
    models = [model for answer in answers for model in answer or ()]
    return Inventory(
        tuple(sorted(models, key=lambda model: (model.service, model.name))),
        tuple(client.stage for client, answer in zip(clients, answers, strict=True) if answer is None),
    )


async def _models_of(client: StageClient, timeout_s: float) -> list[ModelInfo] | None:
    try:
        async with asyncio.timeout(timeout_s):
            return await client.list_models()
    except (NotReady, TimeoutError):
        return None
