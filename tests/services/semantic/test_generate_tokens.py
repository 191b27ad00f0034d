"""GenerateTokens over a real channel, with language models whose network is a hash of all that they read."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from numpy.typing import NDArray
from served_stages import detail_of, hash_stage, until, write_stage
from stretto.common.v1 import features_pb2, model_pb2, tokens_pb2
from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto_semantic.engine import Generating, SemanticEngine, Tokenizing
from stretto_semantic.servicer import SemanticServicer
from stretto_shared.engine.stage_requests import StageRequest
from stretto_shared.engine.token_engine import TokenEngineConfig
from stretto_shared.features import SamplingOptions
from stretto_shared.grpc.hosting import ServiceHost
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.nn.stage_lm import StageConfig

TOKENS_ID, STYLE_ID, MELODY_ID = "w2vbert@aaaaaaaaaaaa", "mulan@bbbbbbbbbbbb", "melody@cccccccccccc"
CONFIG = StageConfig(
    num_codebooks=1,
    cardinality=24,
    frame_rate_hz=25.0,
    window_s=0.64,  # 16 frames
    stride_s=0.32,
    num_style_codes=3,
    style_cardinality=8,
    num_melody_codebooks=2,
    melody_cardinality=6,
    melody_frame_rate_hz=6.25,
    tokens=TOKENS_ID,
    style_encoder=STYLE_ID,
    melody_encoder=MELODY_ID,
    guidance_scale=2.0,
    top_k=12,
    dim=16,
    num_layers=2,
    num_heads=2,
    feed_forward_dim=32,
    num_buckets=8,
    table_dim=8,
)
DEAF = dataclasses.replace(CONFIG, num_style_codes=0, num_melody_codebooks=0)
NUM_FRAMES, DURATION_S = 40, 1.6


@pytest.fixture
async def generating() -> Generating:
    return Generating(
        {
            name: lambda name=name, config=config: hash_stage(  # type: ignore[misc]
                name, config, service="semantic", is_default=name == "lm"
            )
            for name, config in {"lm": CONFIG, "deaf": DEAF}.items()
        },
        config=TokenEngineConfig(max_slots=2, max_queued=1, max_realtime_wait_s=1e-9),
    )


@pytest.fixture
async def stub(generating: Generating) -> AsyncIterator[semantic_pb2_grpc.SemanticServiceStub]:
    engine = SemanticEngine(Tokenizing({}), generating)
    host = ServiceHost(
        name="semantic",
        full_name="stretto.semantic.v1.SemanticService",
        add_to_server=lambda server: semantic_pb2_grpc.add_SemanticServiceServicer_to_server(
            SemanticServicer(engine), server
        ),
        start=engine.start,
        stop=engine.stop,
    )
    server = StrettoServer(GrpcSettings(host="127.0.0.1", port=0, drain_s=0.1), {"semantic": lambda _: host})
    port = await server.start()
    await server.wait_until_ready()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield semantic_pb2_grpc.SemanticServiceStub(channel)
    await server.stop()


def matrix(codes: NDArray[Any], codec_id: str = TOKENS_ID, frame_rate_hz: float = 25.0) -> tokens_pb2.TokenMatrix:
    return tokens_pb2.TokenMatrix(
        codec_id=codec_id,
        frame_rate_hz=frame_rate_hz,
        codebook_count=codes.shape[0],
        codes=codes.astype(int).ravel().tolist(),
    )


def ids(num_frames: int, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 24, (1, num_frames))


def melody(num_frames: int = 4, seed: int = 0, **changes: Any) -> tokens_pb2.TokenMatrix:
    codes = np.random.default_rng(seed).integers(0, 6, (2, num_frames))
    return matrix(codes, **({"codec_id": MELODY_ID, "frame_rate_hz": 6.25} | changes))


def style(*codes: int, start_s: float = 0.0, encoder_id: str = STYLE_ID) -> features_pb2.StyleSpan:
    return features_pb2.StyleSpan(start_s=start_s, encoder_id=encoder_id, codes=codes)


def request(**fields: Any) -> semantic_pb2.GenerateTokensRequest:
    return semantic_pb2.GenerateTokensRequest(**({"duration_s": DURATION_S, "seed": 1} | fields))


async def generate(stub: Any, **fields: Any) -> NDArray[Any]:
    """All new frames [1, T] of one piece."""
    parts = [np.array(r.tokens.codes).reshape(1, -1) async for r in stub.GenerateTokens(request(**fields))]
    return np.concatenate(parts, axis=1)


async def refusal(stub: Any, **fields: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generate(stub, **fields)
    return caught.value


async def test_a_piece_longer_than_the_window_comes_in_order_with_a_receipt_first(stub: Any) -> None:
    got = [response async for response in stub.GenerateTokens(request(styles=[style(1, 2, 3)]))]
    assert [len(r.tokens.codes) for r in got] == [5, 10, 1, 8, 8, 5, 3]  # windows end at 16, 24, 32 and 40
    assert [r.first_frame_index for r in got] == [0, 5, 15, 16, 24, 32, 37]
    assert {r.total_frame_count for r in got} == {NUM_FRAMES}
    assert [r.HasField("model") for r in got] == [True, *[False] * 6]
    assert got[0].model.name == "lm" and len(got[0].model.digest_sha256) == 64
    assert (got[0].sampling.guidance_scale, got[0].sampling.top_k, got[0].sampling.temperature) == (2.0, 12, 1.0)
    assert {(r.tokens.codec_id, r.tokens.codebook_count, r.tokens.frame_rate_hz) for r in got} == {(TOKENS_ID, 1, 25.0)}
    codes = [code for response in got for code in response.tokens.codes]
    assert min(codes) >= 0 and max(codes) < 24 and len(set(codes)) > 2


async def test_language_models_are_listed_with_their_rates(stub: Any) -> None:
    models = (await stub.ListModels(semantic_pb2.ListModelsRequest())).models
    listed = [(m.name, m.service, m.is_default, m.codebook_count, m.frame_rate_hz, m.channel_count) for m in models]
    assert listed == [("deaf", "semantic", False, 1, 25.0, 1), ("lm", "semantic", True, 1, 25.0, 1)]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"styles": [style(7, 5, 6)]},
        {"styles": []},
        {"melody": melody(seed=1)},
        {"prompt": matrix(ids(6))},
        {"sampling": model_pb2.SamplingOptions(temperature=0.0)},
        {"sampling": model_pb2.SamplingOptions(top_k=2)},
        {"sampling": model_pb2.SamplingOptions(top_p=0.2)},
        {"sampling": model_pb2.SamplingOptions(guidance_scale=1.0)},
        {"model": "deaf", "styles": [], "melody": None},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_each_input_changes_the_tokens(stub: Any, change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"styles": [style(1, 2, 3)], "melody": melody()}
    plain, changed = await generate(stub, **base), await generate(stub, **(base | change))
    assert not np.array_equal(plain[:, -changed.shape[1] :], changed)


async def test_a_style_holds_from_its_moment_on(stub: Any) -> None:
    first = style(1, 2, 3)
    plain = await generate(stub, styles=[first])
    np.testing.assert_array_equal(plain, await generate(stub, styles=[first, style(1, 2, 3, start_s=0.4)]))
    for start_s, frame in ((0.64, 16), (0.96, 24)):  # where windows end anyway
        changed = await generate(stub, styles=[first, style(6, 5, 4, start_s=start_s)])
        np.testing.assert_array_equal(plain[:, :frame], changed[:, :frame])
        assert not np.array_equal(plain[:, frame:], changed[:, frame:])


async def test_a_short_melody_begins_again_and_each_window_hears_its_own_part(stub: Any) -> None:
    once = melody(num_frames=5)
    codes = np.array(once.codes).reshape(2, -1)
    plain = await generate(stub, melody=once)
    np.testing.assert_array_equal(plain, await generate(stub, melody=matrix(np.tile(codes, 3), MELODY_ID, 6.25)))
    longer = np.tile(codes, 2)
    longer[:, 6:] = (longer[:, 6:] + 1) % 6  # column 6 is frame 24, where the second window ends
    changed = await generate(stub, melody=matrix(longer, MELODY_ID, 6.25))
    np.testing.assert_array_equal(plain[:, :24], changed[:, :24])
    assert not np.array_equal(plain[:, 24:], changed[:, 24:])


async def test_a_piece_resumes_after_a_prompt_with_the_bytes_of_an_unbroken_run(stub: Any) -> None:
    fields: dict[str, Any] = {"styles": [style(1, 2, 3), style(3, 2, 1, start_s=0.5)], "melody": melody()}
    fields["prompt"] = matrix(ids(5))
    whole = await generate(stub, **fields)
    assert whole.shape == (1, NUM_FRAMES - 5)
    for known in (1, 8, 11, 20, 34):
        resumed = await generate(stub, resume_from=matrix(whole[:, :known]), **fields)
        np.testing.assert_array_equal(resumed, whole[:, known:])


async def test_company_pace_and_priority_change_no_token(stub: Any) -> None:
    alone = [await generate(stub, seed=seed, styles=[style(1, 2, seed)]) for seed in range(3)]
    together = await asyncio.gather(*(generate(stub, seed=seed, styles=[style(1, 2, seed)]) for seed in range(3)))
    np.testing.assert_array_equal(alone, together)
    live = await generate(stub, seed=0, styles=[style(1, 2, 0)], pace=model_pb2.PACE_REALTIME)
    np.testing.assert_array_equal(alone[0], live)
    np.testing.assert_array_equal(alone[0], await generate(stub, seed=0, styles=[style(1, 2, 0)], priority=9))


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("duration_s", {"duration_s": 0.0}),
        ("duration_s", {"duration_s": 600.1}),
        ("duration_s", {"duration_s": float("inf")}),
        ("priority", {"priority": -1}),
        ("pace", {"pace": 9}),
        ("sampling.top_k", {"sampling": model_pb2.SamplingOptions(top_k=25)}),
        ("sampling.top_p", {"sampling": model_pb2.SamplingOptions(top_p=0.0)}),
        ("styles[0].encoder_id", {"styles": [style(1, 2, 3, encoder_id="clap@bbbbbbbbbbbb")]}),
        ("styles[1].encoder_id", {"styles": [style(1, 2, 3), style(1, 2, 3, start_s=1.0, encoder_id="clap")]}),
        ("styles[0].start_s", {"styles": [style(1, 2, 3, start_s=1.0)]}),
        ("styles[0].codes", {"styles": [style(1, 2, 3, 4)]}),
        ("styles[1].codes", {"styles": [style(1, 2, 3), style(1, 2, 8, start_s=1.0)]}),
        ("styles", {"model": "deaf", "styles": [style(1, 2, 3)]}),
        ("melody", {"model": "deaf", "melody": melody()}),
        ("melody.codec_id", {"melody": melody(codec_id="melody@dddddddddddd")}),
        ("melody.frame_rate_hz", {"melody": melody(frame_rate_hz=12.5)}),
        ("melody.codebook_count", {"melody": matrix(np.zeros((1, 4)), MELODY_ID, 6.25)}),
        ("melody.codes", {"melody": matrix(np.full((2, 4), 6), MELODY_ID, 6.25)}),
        ("melody.codes", {"melody": melody(num_frames=0)}),
        ("prompt.codec_id", {"prompt": matrix(ids(3), codec_id="w2vbert@ffffffffffff")}),
        ("prompt.codebook_count", {"prompt": matrix(np.zeros((2, 3)))}),
        ("prompt.frame_rate_hz", {"prompt": matrix(ids(3), frame_rate_hz=50.0)}),
        ("prompt.codes", {"prompt": matrix(np.full((1, 3), 24))}),
        ("prompt", {"prompt": matrix(ids(NUM_FRAMES))}),
        ("resume_from.codec_id", {"resume_from": matrix(ids(3), codec_id="other")}),
        ("resume_from", {"prompt": matrix(ids(30)), "resume_from": matrix(ids(10))}),
    ],
)
async def test_a_request_that_does_not_fit_names_its_field(stub: Any, field: str, fields: dict[str, Any]) -> None:
    error = await refusal(stub, **fields)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail_of(error, error_details_pb2.BadRequest).field_violations[0].field == field


async def test_an_unknown_model_is_not_found_and_the_known_are_named(stub: Any) -> None:
    error = await refusal(stub, model="other")
    assert error.code() is grpc.StatusCode.NOT_FOUND and "deaf, lm" in (error.details() or "")


async def test_cancelling_frees_the_slot(stub: Any, generating: Generating) -> None:
    calls = [stub.GenerateTokens(request(duration_s=600.0)) for _ in range(2)]
    for call in calls:
        await call.read()
    for call in calls:
        call.cancel()
    await until(lambda: generating.num_running() + generating.num_waiting() + generating.num_idle() == 0)
    assert (await generate(stub)).shape == (1, NUM_FRAMES)


async def test_a_deadline_ends_the_piece_and_frees_its_slot(stub: Any, generating: Generating) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.GenerateTokens(request(duration_s=600.0), timeout=0.2):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: generating.num_running() + generating.num_waiting() + generating.num_idle() == 0)


async def test_one_too_many_is_told_when_to_come_again(stub: Any, generating: Generating) -> None:
    readers = [
        generating.generate(StageRequest("", 600.0, seed, SamplingOptions())) for seed in range(3)
    ]  # two slots, one place in the queue
    for reader in readers:
        await anext(reader)  # and nobody reads on, so that they stay however fast the model is
    await until(lambda: generating.num_idle() == 3)
    error = await refusal(stub)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail_of(error, error_details_pb2.RetryInfo).retry_delay.ToTimedelta().total_seconds() > 0
    for reader in readers:
        await reader.aclose()
    assert (await generate(stub)).shape == (1, NUM_FRAMES)


async def test_the_folders_language_models_are_served_beside_its_tokenizers(serve: Any, weights_dir: Path) -> None:
    for name in ("another", "musiclm_semantic"):
        write_stage(weights_dir, name, CONFIG)
    async with serve() as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        models = (await stub.ListModels(semantic_pb2.ListModelsRequest())).models
        listed = [(model.name, model.is_default) for model in models]
        assert listed == [("another", False), ("first", True), ("musiclm_semantic", True), ("second", False)]
        assert (await generate(stub)).shape == (1, NUM_FRAMES)
        error = await refusal(stub, model="first")
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and "TokenizeAudio" in (error.details() or "")
        config = semantic_pb2.TokenizeAudioRequest(config=semantic_pb2.TokenizeConfig(model="another"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.TokenizeAudio(iter([config])).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "GenerateTokens" in (caught.value.details() or "")
