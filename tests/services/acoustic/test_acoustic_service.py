"""The acoustic service over a real channel, with a tiny untrained model."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto.common.v1 import features_pb2, model_pb2, tokens_pb2
from stretto_acoustic.engine import AcousticEngine, GenerateRequest
from stretto_acoustic.loading import make_loaded
from stretto_acoustic.main import host
from stretto_acoustic.models.musicgen import PRESETS, MusicGenLM
from stretto_shared.engine.token_engine import TokenEngineConfig
from stretto_shared.errors import InvalidInput, Overloaded
from stretto_shared.features import SamplingOptions
from stretto_shared.grpc.metrics import Metrics
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.grpc.token_metrics import TokenStageMetrics

Request = acoustic_pb2.GenerateTokensRequest
CODEC_ID = "framecodec@0123456789ab"
CONFIG = dataclasses.replace(PRESETS["tiny"], melody_conditioning="prefix", codec_id=CODEC_ID, max_frames=500)
DURATION_S = 0.6
NUM_FRAMES = 30


def tiny_model(**changes: Any) -> MusicGenLM:
    torch.manual_seed(0)
    model = MusicGenLM(dataclasses.replace(CONFIG, **changes))
    with torch.no_grad():
        model.heads.weight.mul_(6)  # an untrained model is close to indifferent: let its opinions show
    return model


def engine_of(metrics: Metrics | None = None, *, dtype: str = "float32", **limits: Any) -> AcousticEngine:
    # Made here: loaders work side by side, and would draw weights from one generator.
    tiny, deaf = tiny_model(), tiny_model(melody_conditioning="none")
    stage = None if metrics is None else metrics.stage("acoustic")
    engine = AcousticEngine(
        {
            "tiny": lambda: make_loaded("tiny", tiny, digest_sha256="a" * 64, is_default=True, dtype=dtype),
            "deaf": lambda: make_loaded("deaf", deaf, digest_sha256="b" * 64),
        },
        config=TokenEngineConfig(**limits),
        meter=stage,
    )
    if stage is not None:
        stage.watch_waiting(engine.count_waiting)
    return engine


@pytest.fixture
async def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def dtype() -> str:
    return "float32"


@pytest.fixture
async def engine(metrics: Metrics, dtype: str) -> AcousticEngine:
    return engine_of(metrics, dtype=dtype, max_slots=2, max_queued=2)


@pytest.fixture
async def stub(engine: AcousticEngine) -> AsyncIterator[acoustic_pb2_grpc.AcousticServiceStub]:
    server = StrettoServer(GrpcSettings(host="127.0.0.1", port=0, drain_s=0.1), {"acoustic": lambda _: host(engine)})
    port = await server.start()
    await server.wait_until_ready()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield acoustic_pb2_grpc.AcousticServiceStub(channel)
    await server.stop()


def text(seed: int = 0, encoder_id: str = "minilm@abc", dimension: int = 16) -> features_pb2.TextStates:
    states = np.random.default_rng(seed).standard_normal((4, dimension)).astype("<f4") * 3
    return features_pb2.TextStates(
        encoder_id=encoder_id, dimension=dimension, pooled=states[0].tolist(), token_states=states.tobytes()
    )


def melody(step: int = 1) -> features_pb2.Chromagram:
    return features_pb2.Chromagram(frame_rate_hz=7.8125, pitch_classes=[(i * step) % 12 for i in range(8)])


def matrix(codes: np.ndarray, codec_id: str = CODEC_ID, frame_rate_hz: float = 50.0) -> tokens_pb2.TokenMatrix:
    return tokens_pb2.TokenMatrix(
        codec_id=codec_id,
        frame_rate_hz=frame_rate_hz,
        codebook_count=codes.shape[0],
        codes=codes.astype(int).ravel().tolist(),
    )


async def generate(stub: Any, **fields: Any) -> np.ndarray:
    """All new frames [K, T] of one request."""
    parts = []
    async for response in stub.GenerateTokens(Request(**({"duration_s": DURATION_S} | fields))):
        parts.append(np.array(response.tokens.codes, dtype=np.int32).reshape(response.tokens.codebook_count, -1))
    return np.concatenate(parts, axis=1)


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_true():  # noqa: ASYNC110 - the engine tells nobody when a slot is freed
            await asyncio.sleep(0.01)


async def refusal(stub: Any, **fields: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generate(stub, **fields)
    return caught.value


def bad_field(error: grpc.aio.AioRpcError) -> str:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    for detail in rpc_status.from_call(error).details:
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            message = error_details_pb2.BadRequest()
            detail.Unpack(message)
            return message.field_violations[0].field
    raise AssertionError("the status carries no BadRequest")


async def test_a_piece_has_its_frames_in_range_in_order_and_a_receipt_first(stub: Any) -> None:
    responses = [r async for r in stub.GenerateTokens(Request(duration_s=1.3, seed=1, text=text()))]
    # twice as many each, then no more than are left to make, or five
    assert [r.first_frame_index for r in responses] == [0, 5, 15, 35, 50, 58, 63]
    assert {r.total_frame_count for r in responses} == {65}
    assert [r.HasField("model") for r in responses] == [True, *[False] * 6]
    codes = np.concatenate([np.array(r.tokens.codes).reshape(4, -1) for r in responses], axis=1)
    assert codes.shape == (4, 65) and codes.min() >= 0 and codes.max() < 64
    # How varied a random model is depends on the machine's rounding; a constant piece would say that nothing is drawn.
    assert min(len(np.unique(row)) for row in codes) > 2
    assert responses[0].model.name == "tiny" and responses[0].tokens.codec_id == CODEC_ID
    assert responses[0].sampling.guidance_scale == 3.0 and responses[0].sampling.top_k == 64


async def test_models_are_listed_by_name(stub: Any) -> None:
    models = (await stub.ListModels(acoustic_pb2.ListModelsRequest())).models
    assert [(m.name, m.is_default, m.codebook_count, m.channel_count, m.frame_rate_hz) for m in models] == [
        ("deaf", False, 4, 1, 50.0),
        ("tiny", True, 4, 1, 50.0),
    ]


async def test_same_seed_gives_the_same_tokens_alone_and_beside_others(stub: Any) -> None:
    alone = [await generate(stub, seed=seed, text=text(seed)) for seed in range(3)]
    together = await asyncio.gather(*(generate(stub, seed=seed, text=text(seed)) for seed in range(3)))
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(alone[0], await generate(stub, seed=9, text=text(0)))


@pytest.mark.parametrize(
    "change",
    [
        {"text": text(1)},
        {"melody": melody()},
        {"prompt": matrix(np.full((4, 3), 7))},
        {"sampling": model_pb2.SamplingOptions(guidance_scale=1.0)},
        {"sampling": model_pb2.SamplingOptions(temperature=0.0)},
        {"sampling": model_pb2.SamplingOptions(top_k=2)},
        {"sampling": model_pb2.SamplingOptions(top_p=0.2)},
        {"seed": 6},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_each_input_changes_the_tokens(stub: Any, change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"seed": 5, "text": text(0)}
    plain, changed = await generate(stub, **base), await generate(stub, **(base | change))
    assert not np.array_equal(plain[:, -changed.shape[1] :], changed)


async def test_two_melodies_give_two_pieces(stub: Any) -> None:
    first, second = (
        await generate(stub, text=text(), melody=melody(1)),
        await generate(stub, text=text(), melody=melody(5)),
    )
    assert not np.array_equal(first, second)


# In double precision: a masked prefix and none differ by rounding, which in single precision may decide a near tie.
@pytest.mark.parametrize("dtype", ["float64"])
async def test_silence_is_no_melody(stub: Any, dtype: str) -> None:
    silence = features_pb2.Chromagram(frame_rate_hz=7.8125, pitch_classes=[-1] * 8)
    greedy = model_pb2.SamplingOptions(temperature=0.0)
    plain = await generate(stub, text=text(), sampling=greedy)
    np.testing.assert_array_equal(plain, await generate(stub, text=text(), melody=silence, sampling=greedy))


async def test_pace_and_priority_change_no_token(stub: Any) -> None:
    usual = await generate(stub, seed=4, text=text())
    for fields in ({"pace": model_pb2.PACE_REALTIME}, {"priority": 9}):
        np.testing.assert_array_equal(usual, await generate(stub, seed=4, text=text(), **fields))


async def test_a_real_time_piece_that_no_slot_is_free_for_is_refused_at_once() -> None:
    engine = engine_of(max_slots=1, max_realtime_wait_s=1e-9)
    await engine.start()
    long = engine.generate(GenerateRequest("", 10.0, 0, SamplingOptions()))
    await anext(long)
    with pytest.raises(Overloaded, match="No slot is free for a real-time stream"):
        await anext(engine.generate(GenerateRequest("", 1.0, 0, SamplingOptions(), is_realtime=True)))
    await long.aclose()
    await engine.stop()


async def test_a_piece_beyond_the_cache_is_refused_with_its_field() -> None:
    tight = engine_of(kv_budget_bytes=100_000)
    await tight.start()
    with pytest.raises(InvalidInput) as caught:
        await anext(tight.generate(GenerateRequest("", 10.0, 0, SamplingOptions())))
    assert caught.value.field == "duration_s"
    assert (await anext(tight.generate(GenerateRequest("", 0.1, 0, SamplingOptions())))).num_total_frames == 5
    await tight.stop()


async def test_the_token_engine_tells_what_it_does() -> None:
    metrics = Metrics()
    engine = AcousticEngine(
        {"tiny": lambda: make_loaded("tiny", tiny_model(), digest_sha256="a" * 64)},
        token_meter=functools.partial(TokenStageMetrics, metrics, "acoustic"),
    )
    await engine.start()
    async for _ in engine.generate(GenerateRequest("", 1.0, 0, SamplingOptions())):
        pass
    labels = {"stage": "acoustic", "model": "tiny"}
    paced = labels | {"pace": "best_effort"}

    def value(name: str, **more: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels | more)

    assert value("stretto_tokens_total") == 4 * 50
    assert value("stretto_step_s_count") == value("stretto_step_rows_sum") == 50 + 3
    assert value("stretto_request_ttff_s_count") == 1 and value("stretto_chunk_gap_s_count") == 5
    assert value("stretto_audio_underrun_s_count", **paced) == 1
    continuity = [value("stretto_audio_continuity_total", **paced, ok=ok) or 0 for ok in ("true", "false")]
    assert sum(continuity) == 1
    assert value("stretto_stage_running_requests") == 0 and value("stretto_stage_slots") == 4
    assert value("stretto_kv_cache_bytes") == 0 and value("stretto_kv_cache_budget_bytes") == 4 << 30
    await engine.stop()


async def test_guidance_zero_ignores_the_text(stub: Any) -> None:
    free = model_pb2.SamplingOptions(guidance_scale=0.0)
    np.testing.assert_array_equal(
        await generate(stub, seed=3, text=text(0), sampling=free), await generate(stub, seed=3, sampling=free)
    )


@pytest.mark.parametrize("num_frames", [1, 4, 17, 29])
async def test_a_resumed_piece_equals_the_unbroken_one(stub: Any, num_frames: int) -> None:
    fields: dict[str, Any] = {"seed": 11, "text": text(), "melody": melody()}
    whole = await generate(stub, **fields)
    rest = await generate(stub, **fields, resume_from=matrix(whole[:, :num_frames]))
    np.testing.assert_array_equal(whole[:, num_frames:], rest)


async def test_a_prompt_is_continued_not_sent_back_and_resumes_too(stub: Any) -> None:
    prompt = matrix(np.arange(40).reshape(4, 10))
    fields: dict[str, Any] = {"seed": 2, "text": text(), "prompt": prompt}
    first = await anext(aiter(stub.GenerateTokens(Request(duration_s=DURATION_S, **fields))))
    assert first.first_frame_index == 10 and first.total_frame_count == NUM_FRAMES
    new = await generate(stub, **fields)
    assert new.shape == (4, NUM_FRAMES - 10)
    rest = await generate(stub, **fields, resume_from=matrix(new[:, :6]))
    np.testing.assert_array_equal(new[:, 6:], rest)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("duration_s", {"duration_s": 0}),
        ("duration_s", {"duration_s": -1}),
        ("duration_s", {"duration_s": float("nan")}),
        ("duration_s", {"duration_s": 10.1}),
        ("text.encoder_id", {"text": text(encoder_id="t5-base@abc")}),
        ("text.dimension", {"text": text(dimension=8)}),
        ("melody", {"model": "deaf", "melody": melody()}),
        ("melody.pitch_classes", {"melody": features_pb2.Chromagram(frame_rate_hz=8, pitch_classes=[12])}),
        ("prompt.codec_id", {"prompt": matrix(np.zeros((4, 2)), codec_id="soundstream@abc")}),
        ("prompt.codec_id", {"prompt": matrix(np.zeros((4, 2)), codec_id="framecodec@ffffffffffff")}),
        ("prompt.codebook_count", {"prompt": matrix(np.zeros((2, 2)))}),
        ("prompt.codes", {"prompt": matrix(np.full((4, 2), 64))}),
        ("prompt.frame_rate_hz", {"prompt": matrix(np.zeros((4, 2)), frame_rate_hz=75)}),
        ("prompt", {"prompt": matrix(np.zeros((4, NUM_FRAMES)))}),
        ("resume_from", {"resume_from": matrix(np.zeros((4, NUM_FRAMES)))}),
        ("resume_from.codec_id", {"resume_from": matrix(np.zeros((4, 2)), codec_id="dac@1")}),
        ("sampling.top_k", {"sampling": model_pb2.SamplingOptions(top_k=65)}),
        ("priority", {"priority": 10}),
        ("priority", {"priority": -1}),
        ("sampling.temperature", {"sampling": model_pb2.SamplingOptions(temperature=-1)}),
    ],
)
async def test_what_cannot_work_is_refused_with_its_field(stub: Any, field: str, fields: dict[str, Any]) -> None:
    assert bad_field(await refusal(stub, **fields)) == field


async def test_an_unknown_model_is_not_found_and_the_next_request_works(stub: Any) -> None:
    error = await refusal(stub, model="nobody")
    assert error.code() == grpc.StatusCode.NOT_FOUND and "tiny" in str(error.details())
    assert (await generate(stub)).shape == (4, NUM_FRAMES)


async def test_a_full_service_says_so_with_a_delay_and_recovers(stub: Any, engine: AcousticEngine) -> None:
    calls = [stub.GenerateTokens(Request(duration_s=10, text=text())) for _ in range(4)]
    readers = [asyncio.ensure_future(anext(aiter(call))) for call in calls]
    await until(lambda: engine.num_running() == 2 and engine.num_waiting() == 2)
    error = await refusal(stub)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = rpc_status.from_call(error).details
    assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)
    for call in calls:
        call.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await until(lambda: engine.num_running() == 0 and engine.num_waiting() == 0)
    assert (await generate(stub)).shape == (4, NUM_FRAMES)


async def test_those_who_wait_are_seen_at_once_and_those_who_gave_up_are_not(
    stub: Any, engine: AcousticEngine, metrics: Metrics
) -> None:
    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"stage": "acoustic"})

    calls = [stub.GenerateTokens(Request(duration_s=10, text=text())) for _ in range(4)]
    readers = [asyncio.ensure_future(anext(aiter(call))) for call in calls]
    await until(lambda: engine.num_running() == 2 and engine.num_waiting() == 2)
    assert value("stretto_stage_waiting_requests") == 2
    assert value("stretto_request_queue_wait_s_count") == 2
    for call in calls:
        call.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await until(lambda: engine.num_running() == 0 and engine.num_waiting() == 0)
    assert value("stretto_stage_waiting_requests") == 0


async def test_the_wait_for_a_slot_is_no_work(metrics: Metrics) -> None:
    busy = engine_of(metrics, max_slots=1)
    await busy.start()
    long = busy.generate(GenerateRequest("", 10.0, 0, SamplingOptions()))
    await anext(long)

    short_s = 0.1

    async def generate_short() -> None:
        async for _ in busy.generate(GenerateRequest("", short_s, 1, SamplingOptions())):
            pass

    short = asyncio.create_task(generate_short())
    await until(lambda: busy.num_waiting() == 1)
    await asyncio.sleep(3.0)
    await long.aclose()
    await short
    await busy.stop()
    stage = {"stage": "acoustic"}
    wait_s = metrics.registry.get_sample_value("stretto_request_queue_wait_s_sum", stage)
    real_time_factor = metrics.registry.get_sample_value("stretto_audio_rtf_sum", stage)
    assert wait_s is not None and real_time_factor is not None
    assert wait_s >= 2.9 and real_time_factor * short_s < wait_s


async def test_a_cancelled_or_late_call_frees_its_slot(stub: Any, engine: AcousticEngine) -> None:
    call = stub.GenerateTokens(Request(duration_s=10, text=text()))
    await anext(aiter(call))
    assert engine.num_running() == 1
    call.cancel()
    late = stub.GenerateTokens(Request(duration_s=10, text=text()), timeout=0.3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in late:
            pass
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: engine.num_running() == 0)


async def test_the_service_is_not_ready_until_its_models_are_loaded() -> None:
    idle = engine_of()
    with pytest.raises(Exception, match="are not loaded") as caught:
        idle.list_models()
    assert type(caught.value).__name__ == "NotReady"
