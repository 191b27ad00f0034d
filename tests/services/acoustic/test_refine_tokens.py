"""RefineTokens over a real channel, with stages whose network is a hash of all that they read."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from google.rpc import error_details_pb2
from numpy.typing import NDArray
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from served_stages import detail_of, hash_stage, until, write_stage
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto.common.v1 import features_pb2, model_pb2, tokens_pb2
from stretto_acoustic import loading
from stretto_acoustic.engine import AcousticEngine, Refining
from stretto_acoustic.engine.refining import SourceFrames
from stretto_acoustic.loading import make_loaded
from stretto_acoustic.main import build, host
from stretto_acoustic.models.musicgen import PRESETS, MusicGenLM
from stretto_acoustic.settings import AcousticSettings
from stretto_shared.engine.stage_requests import StageRequest
from stretto_shared.engine.token_engine import TokenEngineConfig
from stretto_shared.features import SamplingOptions
from stretto_shared.grpc.hosting import HostContext
from stretto_shared.grpc.metrics import Metrics
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.grpc.streams import exchange
from stretto_shared.nn.stage_lm import StageConfig
from stretto_shared.tokens import TokenMatrix

CODEC_ID, SEMANTIC_ID, STYLE_ID = "framecodec@0123456789ab", "w2vbert@aaaaaaaaaaaa", "mulan@bbbbbbbbbbbb"
TINY = {"dim": 16, "num_layers": 2, "num_heads": 2, "feed_forward_dim": 32, "num_buckets": 8, "table_dim": 8}
COARSE = StageConfig(
    num_codebooks=2,
    cardinality=16,
    frame_rate_hz=12.5,
    window_s=0.64,  # 8 frames
    stride_s=0.32,
    num_style_codes=3,
    style_cardinality=8,
    num_source_codebooks=1,
    source_cardinality=9,
    source_frame_rate_hz=25.0,
    tokens=CODEC_ID,
    source_tokens=SEMANTIC_ID,
    style_encoder=STYLE_ID,
    guidance_scale=2.0,
    **TINY,
)
FINE = StageConfig(
    num_codebooks=3,
    cardinality=16,
    frame_rate_hz=12.5,
    window_s=0.48,  # 6 frames
    stride_s=0.24,
    num_source_codebooks=2,
    source_cardinality=16,
    source_frame_rate_hz=12.5,
    tokens=CODEC_ID,
    source_tokens=CODEC_ID,
    temperature=0.5,
    **TINY,
)
DURATION_S, NUM_FRAMES, NUM_SOURCE = 1.6, 20, 40


def musicgen() -> MusicGenLM:
    torch.manual_seed(0)
    return MusicGenLM(dataclasses.replace(PRESETS["tiny"], max_frames=100))


def engines(metrics: Metrics | None = None, **limits: Any) -> tuple[AcousticEngine, Refining]:
    generating = AcousticEngine(
        {"tiny": lambda: make_loaded("tiny", musicgen(), digest_sha256="a" * 64, is_default=True)}
    )
    stages = {"coarse": COARSE, "fine": FINE}
    refining = Refining(
        {
            name: lambda name=name, config=config: hash_stage(name, config, service="acoustic")  # type: ignore[misc]
            for name, config in stages.items()
        },
        config=TokenEngineConfig(**({"max_slots": 2, "max_queued": 2} | limits)),
        meter=None if metrics is None else metrics.stage("acoustic"),
    )
    return generating, refining


@pytest.fixture
async def refining() -> Refining:
    return engines()[1]


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def stub(refining: Refining, spans: InMemorySpanExporter) -> AsyncIterator[acoustic_pb2_grpc.AcousticServiceStub]:
    async with serving(lambda _: host(engines()[0], refining), spans) as made:
        yield made


class serving:
    """A server with one service, and a stub of it."""

    def __init__(self, make_host: Callable[[HostContext], Any], spans: InMemorySpanExporter | None = None) -> None:
        self._server = StrettoServer(
            GrpcSettings(host="127.0.0.1", port=0, drain_s=0.1), {"acoustic": make_host}, span_exporter=spans
        )

    async def __aenter__(self) -> acoustic_pb2_grpc.AcousticServiceStub:
        port = await self._server.start()
        await self._server.wait_until_ready()
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        return acoustic_pb2_grpc.AcousticServiceStub(self._channel)

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        await self._server.stop()


def matrix(codes: NDArray[Any], codec_id: str = CODEC_ID, frame_rate_hz: float = 12.5) -> tokens_pb2.TokenMatrix:
    return tokens_pb2.TokenMatrix(
        codec_id=codec_id,
        frame_rate_hz=frame_rate_hz,
        codebook_count=codes.shape[0],
        codes=codes.astype(int).ravel().tolist(),
    )


def semantic(num_frames: int = NUM_SOURCE, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 9, (1, num_frames))


def coarse(num_frames: int = NUM_FRAMES, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 16, (2, num_frames))


def style(*codes: int, start_s: float = 0.0, encoder_id: str = STYLE_ID) -> features_pb2.StyleSpan:
    return features_pb2.StyleSpan(start_s=start_s, encoder_id=encoder_id, codes=codes)


def config(**fields: Any) -> acoustic_pb2.RefineTokensRequest:
    wanted = {"model": "coarse", "duration_s": DURATION_S, "seed": 1} | fields
    return acoustic_pb2.RefineTokensRequest(config=acoustic_pb2.RefineConfig(**wanted))


def source(codes: NDArray[Any], *, cuts: Iterable[int] = (), **changes: Any) -> list[acoustic_pb2.RefineTokensRequest]:
    """The source in messages, cut at the frames given; coarse tokens, or semantic ones where there is one codebook."""
    kind = {"codec_id": SEMANTIC_ID, "frame_rate_hz": 25.0} if codes.shape[0] == 1 else {}
    parts = np.split(codes, list(cuts), axis=1)
    return [acoustic_pb2.RefineTokensRequest(source=matrix(part, **(kind | changes))) for part in parts]


async def refine(
    stub: Any, codes: NDArray[Any] | None = None, *, cuts: Iterable[int] = (16,), **fields: Any
) -> NDArray[Any]:
    """All new frames [G, T] of one piece."""
    codes = (semantic() if fields.get("model", "coarse") == "coarse" else coarse()) if codes is None else codes
    parts = []
    async for response in responses(stub, [config(**fields), *source(codes, cuts=cuts)]):
        parts.append(np.array(response.tokens.codes).reshape(response.tokens.codebook_count, -1))
    return np.concatenate(parts, axis=1)


def responses(stub: Any, messages: Iterable[Any] | AsyncIterator[Any], **options: Any) -> AsyncIterator[Any]:
    """What one call answers while the messages are sent beside; its own status where it fails."""

    async def requests() -> AsyncIterator[bytes]:
        if hasattr(messages, "__aiter__"):
            async for message in messages:
                yield message.SerializeToString()
        else:
            for message in messages:
                yield message.SerializeToString()

    return exchange(stub.RefineTokens(**options), requests())


async def refusal(stream: AsyncIterator[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stream:
            pass
    return caught.value


def bad_field(error: grpc.aio.AioRpcError) -> str:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    return str(detail_of(error, error_details_pb2.BadRequest).field_violations[0].field)


async def test_a_coarse_piece_has_its_frames_in_order_in_growing_blocks_and_a_receipt_first(stub: Any) -> None:
    got = [response async for response in responses(stub, [config(), *source(semantic())])]
    sizes = [len(response.tokens.codes) // 2 for response in got]
    assert sizes == [5, 3, 4, 4, 4]  # growing blocks, cut where a window of 8 frames ends, and then every 4
    assert [r.first_frame_index for r in got] == [0, 5, 8, 12, 16]
    assert {r.total_frame_count for r in got} == {NUM_FRAMES}
    assert [r.HasField("model") for r in got] == [True, False, False, False, False]
    assert got[0].model.name == "coarse" and got[0].model.codebook_count == 2
    assert got[0].sampling.guidance_scale == 2.0
    assert {(r.tokens.codec_id, r.tokens.codebook_count) for r in got} == {(CODEC_ID, 2)}
    codes = np.concatenate([np.array(r.tokens.codes).reshape(2, -1) for r in got], axis=1)
    assert codes.min() >= 0 and codes.max() < 16 and len(np.unique(codes)) > 2


async def test_a_fine_piece_has_its_source_on_top_and_its_own_codebooks_below(stub: Any) -> None:
    codes = await refine(stub, model="fine")
    assert codes.shape == (5, NUM_FRAMES)
    np.testing.assert_array_equal(codes[:2], coarse())
    assert len(np.unique(codes[2:])) > 2


async def test_models_are_listed_beside_those_that_generate(stub: Any) -> None:
    models = (await stub.ListModels(acoustic_pb2.ListModelsRequest())).models
    listed = [(m.name, m.service, m.is_default, m.codebook_count, m.frame_rate_hz, m.sample_rate_hz) for m in models]
    assert listed == [
        ("coarse", "acoustic", False, 2, 12.5, 24000),
        ("fine", "acoustic", False, 5, 12.5, 24000),
        ("tiny", "acoustic", True, 4, 50.0, 24000),
    ]


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("coarse", {"seed": 2}),
        ("coarse", {"styles": [style(7, 5, 6)]}),
        ("coarse", {"codes": semantic(seed=1)}),
        ("coarse", {"sampling": model_pb2.SamplingOptions(temperature=0.0)}),
        ("coarse", {"sampling": model_pb2.SamplingOptions(guidance_scale=0.0)}),
        ("coarse", {"prompt": matrix(coarse(3, seed=5))}),
        ("fine", {"seed": 2}),
        ("fine", {"codes": coarse(seed=1)}),
        ("fine", {"prompt": matrix(np.concatenate([coarse()[:, :3], np.full((3, 3), 7)]))}),
    ],
)
async def test_each_input_changes_the_tokens(stub: Any, model: str, change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"model": model} | ({"styles": [style(1, 2, 3)]} if model == "coarse" else {})
    plain, changed = await refine(stub, **base), await refine(stub, **(base | change))
    num_read = 2 if model == "fine" else 0
    assert not np.array_equal(plain[num_read:, -changed.shape[1] :], changed[num_read:])


async def test_a_window_hears_its_own_part_of_the_source_and_no_more(stub: Any) -> None:
    other = semantic()
    other[:, 24:] = (other[:, 24:] + 1) % 9  # from frame 12 on, where the third window begins to draw
    plain, changed = await refine(stub), await refine(stub, other)
    np.testing.assert_array_equal(plain[:, :12], changed[:, :12])
    assert not np.array_equal(plain[:, 12:], changed[:, 12:])


async def test_a_style_holds_from_its_moment_on(stub: Any) -> None:
    first = style(1, 2, 3)
    plain = await refine(stub, styles=[first, style(1, 2, 3, start_s=0.8)])
    np.testing.assert_array_equal(plain, await refine(stub, styles=[first]))
    changed = await refine(stub, styles=[first, style(5, 5, 5, start_s=0.8)])
    np.testing.assert_array_equal(plain[:, :8], changed[:, :8])
    assert not np.array_equal(plain[:, 10:], changed[:, 10:])


async def test_the_first_window_comes_as_soon_as_its_source_is_there(stub: Any, refining: Refining) -> None:
    go_on = asyncio.Event()

    async def requests() -> AsyncIterator[Any]:
        yield config()
        yield source(semantic()[:, :16])[0]  # what the first window of 8 frames needs
        await go_on.wait()
        yield source(semantic()[:, 16:])[0]

    parts = []
    async for response in responses(stub, requests()):
        parts.append(np.array(response.tokens.codes).reshape(2, -1))
        if sum(part.shape[1] for part in parts) == 8:
            await until(lambda: refining.num_running("coarse") == 0)  # it waits without a slot
            go_on.set()
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), await refine(stub))


async def test_the_last_window_runs_though_the_sender_never_says_that_it_is_done(stub: Any) -> None:
    async def requests() -> AsyncIterator[Any]:
        for message in (config(), *source(semantic())):
            yield message
        await asyncio.Event().wait()

    assert sum([len(response.tokens.codes) // 2 async for response in responses(stub, requests())]) == NUM_FRAMES


@pytest.mark.parametrize("model", ["coarse", "fine"])
async def test_a_piece_resumes_after_a_prompt_with_the_bytes_of_an_unbroken_run(stub: Any, model: str) -> None:
    num_given = {"coarse": 2, "fine": 5}[model]
    prompt = np.random.default_rng(3).integers(0, 16, (num_given, 3))
    whole = await refine(stub, model=model, prompt=matrix(prompt))
    assert whole.shape == (num_given, NUM_FRAMES - 3)
    for known in (1, 5, 9, 16):
        resumed = await refine(stub, model=model, prompt=matrix(prompt), resume_from=matrix(whole[:, :known]))
        np.testing.assert_array_equal(resumed, whole[:, known:])


CODES, FIELDS = semantic(), config().config


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("config.model", {"model": ""}),
        ("config.model", {"model": "tiny"}),
        ("config.duration_s", {"duration_s": 0.0}),
        ("config.duration_s", {"duration_s": 601.0}),
        ("config.duration_s", {"duration_s": float("nan")}),
        ("config.priority", {"priority": 10}),
        ("config.pace", {"pace": 9}),
        ("config.sampling.top_k", {"sampling": model_pb2.SamplingOptions(top_k=17)}),
        ("config.sampling.temperature", {"sampling": model_pb2.SamplingOptions(temperature=-1.0)}),
        ("config.styles[0].encoder_id", {"styles": [style(1, 2, 3, encoder_id="mulan@cccccccccccc")]}),
        ("config.styles[0].codes", {"styles": [style(1, 2)]}),
        ("config.styles[0].codes", {"styles": [style(1, 2, 8)]}),
        ("config.styles[1].start_s", {"styles": [style(1, 2, 3), style(1, 2, 3)]}),
        ("config.styles", {"model": "fine", "styles": [style(1, 2, 3)]}),
        ("config.prompt.codec_id", {"prompt": matrix(coarse(3), codec_id="framecodec@ffffffffffff")}),
        ("config.prompt.codebook_count", {"prompt": matrix(np.zeros((3, 2)))}),
        ("config.prompt.frame_rate_hz", {"prompt": matrix(coarse(3), frame_rate_hz=25.0)}),
        ("config.prompt.codes", {"prompt": matrix(np.full((2, 3), 16))}),
        ("config.prompt", {"prompt": matrix(coarse(NUM_FRAMES))}),
        ("config.resume_from.codec_id", {"resume_from": matrix(coarse(3), codec_id="other")}),
        ("config.resume_from", {"prompt": matrix(coarse(10)), "resume_from": matrix(coarse(10))}),
        ("config.prompt.codebook_count", {"model": "fine", "prompt": matrix(np.zeros((3, 2)))}),
    ],
)
async def test_a_config_that_does_not_fit_names_its_field(stub: Any, field: str, fields: dict[str, Any]) -> None:
    assert bad_field(await refusal(responses(stub, [config(**fields), *source(CODES)]))) == field


@pytest.mark.parametrize(
    ("field", "messages"),
    [
        ("config", source(CODES)),
        ("config", []),
        ("config", [config(), config()]),
        ("source", [config()]),
        ("source", [config(), acoustic_pb2.RefineTokensRequest()]),
        ("source", [config(), *source(CODES[:, :-1])]),
        ("source.codec_id", [config(), *source(CODES, codec_id="w2vbert@ffffffffffff")]),
        ("source.codebook_count", [config(), *source(coarse(), codec_id=SEMANTIC_ID, frame_rate_hz=25.0)]),
        ("source.frame_rate_hz", [config(), *source(CODES, frame_rate_hz=50.0)]),
        ("source.codes", [config(), *source(CODES + 9)]),
        ("source.codes", [config(), *source(CODES[:, :0])]),
        ("source.codec_id", [config(), *source(CODES[:, :20]), *source(CODES[:, 20:], codec_id="other@aaaaaaaaaaaa")]),
        ("source.codec_id", [config(model="fine"), *source(coarse(), codec_id="soundstream@0123456789ab")]),
    ],
)
async def test_a_source_that_does_not_fit_names_its_field(stub: Any, field: str, messages: list[Any]) -> None:
    assert bad_field(await refusal(responses(stub, messages))) == field


async def test_an_early_end_says_how_much_is_missing_after_the_frames_that_it_allowed(stub: Any) -> None:
    call = responses(stub, [config(), *source(CODES[:, :30])])
    codes = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for response in call:
            codes += response.tokens.codes
    assert len(codes) == 2 * 12  # two windows: 8 and 4 frames
    assert "expected 40 frames" in (caught.value.details() or "") and "got 30" in (caught.value.details() or "")


async def test_each_kind_of_model_is_refused_by_the_other_method_with_a_word_on_which_to_call(stub: Any) -> None:
    generate = acoustic_pb2.GenerateTokensRequest(model="fine", duration_s=1.0)
    error = await refusal(stub.GenerateTokens(generate))
    assert bad_field(error) == "model" and "RefineTokens" in (error.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CheckAdmission(acoustic_pb2.CheckAdmissionRequest(model="coarse", duration_s=1.0))
    assert bad_field(caught.value) == "model"
    error = await refusal(responses(stub, [config(model="tiny")]))
    assert bad_field(error) == "config.model" and "GenerateTokens" in (error.details() or "")
    error = await refusal(responses(stub, [config(model="other")]))
    assert error.code() is grpc.StatusCode.NOT_FOUND and "coarse, fine" in (error.details() or "")


async def test_cancelling_closes_the_source_and_frees_the_slot(stub: Any, refining: Refining) -> None:
    calls = [stub.RefineTokens(iter([config(duration_s=600.0), *source(semantic(15000))])) for _ in range(2)]
    for call in calls:
        await call.read()
    for call in calls:
        call.cancel()
    assert (await refine(stub)).shape == (2, NUM_FRAMES)
    await until(
        lambda: refining.num_running("coarse") + refining.num_waiting("coarse") + refining.num_idle("coarse") == 0
    )


async def test_a_deadline_ends_a_piece_whose_source_does_not_come(stub: Any, refining: Refining) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield config()
        await asyncio.Event().wait()

    error = await refusal(responses(stub, requests(), timeout=0.3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: refining.num_idle("coarse") == 0)


async def test_pieces_that_wait_for_their_source_count_and_one_more_is_told_when_to_come_again(
    stub: Any, refining: Refining
) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield config()
        await asyncio.Event().wait()

    calls = [stub.RefineTokens(requests()) for _ in range(4)]  # two slots and two places in the queue
    await until(lambda: refining.num_idle("coarse") == 4)
    error = await refusal(responses(stub, [config()]))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail_of(error, error_details_pb2.RetryInfo).retry_delay.ToTimedelta().total_seconds() > 0
    for call in calls:
        call.cancel()
    await until(lambda: refining.num_idle("coarse") == 0)
    assert (await refine(stub)).shape == (2, NUM_FRAMES)


async def test_no_more_of_the_source_is_taken_than_the_reader_lets_be_made(stub: Any, refining: Refining) -> None:
    num_taken = 0

    async def runs() -> AsyncIterator[TokenMatrix]:
        nonlocal num_taken
        for _ in range(15000):
            num_taken += 1
            yield TokenMatrix(np.zeros((1, 1), dtype=np.int32), 25.0, SEMANTIC_ID)

    wanted = StageRequest("coarse", 600.0, 0, SamplingOptions())
    async with aclosing(refining.refine(wanted, runs())) as stream:
        await anext(stream)
        await until(lambda: refining.num_running("coarse") == 0)
        assert num_taken == 16  # for the first window of 8 frames; the rest stays with its sender
        while (await anext(stream)).first_frame < 8:
            pass
        assert num_taken == 24


async def test_a_piece_of_ten_minutes_keeps_a_window_of_its_source_and_no_more() -> None:
    async def runs() -> AsyncIterator[TokenMatrix]:
        for _ in range(1500):
            yield TokenMatrix(coarse(5).astype(np.int32), 12.5, CODEC_ID)

    frames, most = SourceFrames(runs(), FINE, 7500), 0
    for start in range(0, 7494, 3):
        assert (await frames.take(start, start + 6)).shape == (2, 6)
        most = max(most, frames._codes.shape[1])
        assert frames._codes.base is None  # not a view of all that there was
    assert most <= 11


async def test_a_call_is_a_span_with_its_code(stub: Any, spans: InMemorySpanExporter) -> None:
    await refine(stub)
    await refusal(responses(stub, [config(duration_s=0.0)]))
    await until(lambda: len(spans.get_finished_spans()) >= 2)
    named = [span for span in spans.get_finished_spans() if span.name.endswith("AcousticService/RefineTokens")]
    assert [dict(span.attributes or {})["rpc.grpc.status_code"] for span in named] == [0, 3]


async def test_pace_and_priority_change_no_token(stub: Any) -> None:
    usual = await refine(stub)
    for fields in ({"pace": model_pb2.PACE_REALTIME}, {"priority": 9}):
        np.testing.assert_array_equal(usual, await refine(stub, **fields))


async def test_the_meters_see_the_waiting_the_tokens_and_the_time(tmp_path: Path) -> None:
    write_stage(tmp_path, "coarse", COARSE)
    metrics = Metrics()
    settings = AcousticSettings(models="coarse", weights_dir=tmp_path)
    async with serving(lambda _: build(HostContext(metrics=metrics), settings)) as stub:
        await refine(stub)
        sample = metrics.registry.get_sample_value
        of_model = {"stage": "acoustic", "model": "coarse"}
        assert sample("stretto_tokens_total", of_model) == 2 * NUM_FRAMES
        assert sample("stretto_request_ttff_s_count", of_model) == 1
        assert sample("stretto_stage_waiting_requests", {"stage": "acoustic"}) == 0
        assert sample("stretto_request_queue_wait_s_count", {"stage": "acoustic"}) == 1
        await until(lambda: sample("stretto_audio_rtf_count", {"stage": "acoustic"}) == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GenerateTokens(acoustic_pb2.GenerateTokensRequest(duration_s=1.0)).read()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_stages_in_the_weights_folder_are_served_beside_musicgen_and_nothing_else_is(tmp_path: Path) -> None:
    assert loading.list_default_names(tmp_path) == ["musicgen"]
    for name in ("musiclm_fine", "musiclm_coarse"):
        write_stage(tmp_path, name, FINE)
    write_stage(tmp_path, "unknown", FINE, architecture="Other")
    assert loading.list_default_names(tmp_path) == ["musicgen", "musiclm_coarse", "musiclm_fine"]
    assert not loading.is_stage("musicgen", "hf://facebook/musicgen-small", tmp_path)
    assert loading.is_stage("any", f"file://{tmp_path / 'musiclm_fine'}", Path("/nowhere"))
