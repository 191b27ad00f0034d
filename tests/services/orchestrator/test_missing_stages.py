"""A door whose stages are not all served where it looks for them names those that are missing, and serves the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from stretto_orchestrator.clients import (
    AcousticClient,
    CodecClient,
    EmbeddingClient,
    HarmonyClient,
    SemanticClient,
    Stages,
    TranscriberClient,
)
from stretto_orchestrator.flows.list_models import list_models
from stretto_shared.errors import NotReady


@pytest.fixture
async def stages() -> AsyncIterator[Stages]:
    """Stages at a server that serves none of them."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Stages(
            EmbeddingClient(channel, timeout_s=10.0),
            SemanticClient(channel, timeout_s=10.0),
            AcousticClient(channel, timeout_s=10.0),
            CodecClient(channel, timeout_s=10.0),
            TranscriberClient(channel, timeout_s=10.0),
            HarmonyClient(channel, timeout_s=10.0),
        )
    await server.stop(None)


async def test_stages_that_are_not_served_are_named_among_those_that_did_not_answer(stages: Stages) -> None:
    inventory = await list_models(stages, timeout_s=10.0)
    assert inventory.models == ()
    assert set(inventory.unreachable_services) == {
        "acoustic", "codec", "embedding", "harmony", "semantic", "transcriber"
    }  # fmt: skip


async def test_a_call_to_a_stage_that_is_not_served_says_what_its_operator_has_to_do(stages: Stages) -> None:
    with pytest.raises(NotReady, match=r"harmony service has this call\. Its operator") as found:
        await stages.harmony.check_model("", field="config.harmony_model")
    assert found.value.reason == "STAGE_MISSING"
