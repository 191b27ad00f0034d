"""CheckAdmission: says what GenerateTokens would say, and expects the real-time piece that it lets in."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest
import torch
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto.common.v1 import model_pb2
from stretto_acoustic.engine import AcousticEngine, GenerateRequest
from stretto_acoustic.loading import make_loaded
from stretto_acoustic.main import host
from stretto_acoustic.models.musicgen import PRESETS, MusicGenLM
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from stretto_shared.features import SamplingOptions
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings

REALTIME = model_pb2.PACE_REALTIME
CONFIG = dataclasses.replace(PRESETS["tiny"], max_frames=500)


@pytest.fixture
async def engine() -> AcousticEngine:
    torch.manual_seed(0)
    model = MusicGenLM(CONFIG)
    return AcousticEngine(
        {"tiny": lambda: make_loaded("tiny", model, digest_sha256="a" * 64, is_default=True)},
        config=TokenEngineConfig(
            max_slots=1, max_queued=1, max_unread_blocks=1, max_realtime_wait_s=1e-9, promise_s=1e6
        ),
    )


@pytest.fixture
async def stub(engine: AcousticEngine) -> AsyncIterator[acoustic_pb2_grpc.AcousticServiceStub]:
    server = StrettoServer(GrpcSettings(host="127.0.0.1", port=0, drain_s=0.1), {"acoustic": lambda _: host(engine)})
    port = await server.start()
    await server.wait_until_ready()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield acoustic_pb2_grpc.AcousticServiceStub(channel)
    await server.stop()


async def check(stub: Any, **fields: Any) -> None:
    await stub.CheckAdmission(acoustic_pb2.CheckAdmissionRequest(**({"duration_s": 1.0} | fields)))


async def refusal(stub: Any, **fields: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(stub, **fields)
    return caught.value


async def test_asking_for_best_effort_takes_no_place(stub: Any, engine: AcousticEngine) -> None:
    for _ in range(5):  # more than there are slots and places in the queue
        await check(stub)
    assert engine.num_running() == engine.num_waiting() == 0


async def test_of_those_who_ask_at_once_no_more_are_let_in_than_there_is_room_for(
    stub: Any, engine: AcousticEngine
) -> None:
    answers = await asyncio.gather(*(check(stub, pace=REALTIME) for _ in range(5)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refused) == 4 and {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert engine.num_running() == engine.num_waiting() == 0
    piece = stub.GenerateTokens(acoustic_pb2.GenerateTokensRequest(duration_s=1.0, pace=REALTIME))
    assert sum([len(message.tokens.codes) async for message in piece]) == 4 * 50


async def test_a_real_time_piece_that_generate_would_refuse_is_refused_with_the_same_words(
    stub: Any, engine: AcousticEngine
) -> None:
    # Nobody reads on, so that the one slot stays taken however fast the model is.
    long = engine.generate(GenerateRequest("", 10.0, 0, SamplingOptions()))
    await anext(long)
    asked = await refusal(stub, pace=REALTIME)
    tried = stub.GenerateTokens(acoustic_pb2.GenerateTokensRequest(duration_s=1.0, pace=REALTIME))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tried.read()
    for error in (asked, caught.value):
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "No slot is free for a real-time stream" in (error.details() or "")
        status = rpc_status.from_call(error)
        assert status is not None and any(d.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for d in status.details)
    await check(stub)  # a best-effort piece may wait
    assert engine.num_running() == 1 and engine.num_waiting() == 0
    await long.aclose()


async def test_text_and_guidance_decide_how_many_rows_are_asked_for(
    stub: Any, engine: AcousticEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = []

    def note(self: Any, request: Any) -> None:
        costs.append(self._model.cost(request.condition, num_steps=9, guidance_scale=request.sampling.guidance_scale))

    monkeypatch.setattr(TokenEngine, "check_admission", note)
    await check(stub)
    await check(stub, is_conditional=True)
    await check(stub, is_conditional=True, sampling=model_pb2.SamplingOptions(guidance_scale=1.0))
    assert [cost.num_rows for cost in costs] == [1, 2, 1]


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("duration_s", {"duration_s": 1e6}),
        ("priority", {"priority": 10}),
        ("sampling.top_k", {"sampling": model_pb2.SamplingOptions(top_k=10**6)}),
        ("pace", {"pace": 9}),
    ],
)
async def test_what_generate_refuses_as_wrong_is_wrong_here_too(stub: Any, field: str, fields: dict[str, Any]) -> None:
    error = await refusal(stub, **fields)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and (error.details() or "").startswith(f"{field}: ")
    call = stub.GenerateTokens(acoustic_pb2.GenerateTokensRequest(**({"duration_s": 1.0} | fields)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.details() == error.details()


async def test_a_model_that_is_not_served_is_not_found(stub: Any) -> None:
    assert (await refusal(stub, model="other")).code() is grpc.StatusCode.NOT_FOUND


async def test_a_question_in_the_middle_of_a_piece_changes_none_of_its_tokens(stub: Any) -> None:
    async def tokens(asks: bool) -> list[int]:
        codes: list[int] = []
        async with aclosing(_messages(stub)) as messages:
            async for message in messages:
                if asks:
                    await check(stub)
                codes += message.tokens.codes
        return codes

    assert await tokens(asks=False) == await tokens(asks=True)


async def _messages(stub: Any) -> AsyncIterator[Any]:
    async for message in stub.GenerateTokens(acoustic_pb2.GenerateTokensRequest(duration_s=2.0, seed=3)):
        yield message
