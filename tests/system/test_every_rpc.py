"""Every RPC of every service: malformed, oversized, late and cancelled requests get their error; the next one works."""

import asyncio
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from google.rpc import error_details_pb2, status_pb2
from real_server import tune
from stretto.acoustic.v1 import acoustic_pb2
from stretto.codec.v1 import codec_pb2
from stretto.common.v1 import audio_pb2, features_pb2, model_pb2, tokens_pb2
from stretto.embedding.v1 import embedding_pb2
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto.semantic.v1 import semantic_pb2
from stretto_client import StrettoClient
from stretto_shared.features import ModelInfo
from stretto_shared.grpc import convert

MAX_RECEIVE_BYTES = 64 * 1024 * 1024
GARBAGE = b"\x0a\xff\xff\xff\xff\x0f garbage"
AUDIO = convert.waveform_to_proto(tune(("A", 440.0)))
AUDIO_48 = convert.waveform_to_proto(tune(("A", 440.0), sample_rate_hz=48_000))
NAN_AUDIO = audio_pb2.Waveform(sample_rate_hz=24_000, channel_count=1, samples=np.full(9, np.nan, "<f4").tobytes())
SLOW_RATE_AUDIO = audio_pb2.Waveform(sample_rate_hz=100, channel_count=1, samples=bytes(400))
WRONG_MELODY = features_pb2.Chromagram(frame_rate_hz=7.8125, pitch_classes=[12])
GUARD_S = 300.0  # against hanging only: a starved machine is slow, and no test here is about that
HOT = model_pb2.SamplingOptions(temperature=99.0)


@dataclass(frozen=True)
class Rpc:
    """One method: a good request, bad ones with the field that their error must name, and a long one to cut short."""

    method: str
    good: Any
    bad: tuple[tuple[Any, str], ...] = ()
    long: Any = None
    streams_requests: bool = False
    works_at: str = "/stretto.acoustic.v1.AcousticService/GenerateTokens"  # the method that a long one keeps busy


def rpcs(models: Mapping[str, ModelInfo]) -> list[Rpc]:
    """The table, with tokens and codes of the server's own models."""
    codec, encoder_id, tokenizer_id = models["codec"], models["mulan"].model_id, models["w2vbert"].model_id
    num_codebooks, rate_hz = codec.num_codebooks, codec.frame_rate_hz
    music, onward = orchestrator_pb2.GenerateMusicRequest, orchestrator_pb2.ContinueMusicRequest
    tokens, decode = acoustic_pb2.GenerateTokensRequest, codec_pb2.DecodeTokensRequest
    check, tokenize = acoustic_pb2.CheckAdmissionRequest, semantic_pb2.TokenizeAudioRequest
    tokenizer = tokenize(config=semantic_pb2.TokenizeConfig())
    config = decode(config=codec_pb2.DecodeConfig())
    shape = {"codec_id": codec.model_id, "frame_rate_hz": rate_hz, "codebook_count": num_codebooks}
    matrix = tokens_pb2.TokenMatrix(**shape, codes=[1] * num_codebooks * 10)
    ragged = tokens_pb2.TokenMatrix(**shape, codes=[1] * (num_codebooks * 10 + 1))
    rank, tag = embedding_pb2.RankAudioRequest, embedding_pb2.TagAudioRequest
    quantize, hear = embedding_pb2.QuantizeEmbeddingsRequest, embedding_pb2.EmbedAudioRequest
    point = features_pb2.JointEmbedding(encoder_id=encoder_id, values=[1.0] * 128)
    foreign_point = features_pb2.JointEmbedding(encoder_id="other@0", values=[1.0] * 128)
    style = features_pb2.StyleSpan(encoder_id=encoder_id, codes=[1] * 8)
    late_style = features_pb2.StyleSpan(start_s=1.0, encoder_id=encoder_id, codes=[1] * 8)
    foreign_style = features_pb2.StyleSpan(encoder_id="other@0", codes=[1] * 8)
    story = [orchestrator_pb2.PromptSpan(start_s=0.3, prompt="a storm")]
    think, refine = semantic_pb2.GenerateTokensRequest, acoustic_pb2.RefineTokensRequest
    happened = {"codec_id": tokenizer_id, "frame_rate_hz": 25.0, "codebook_count": 1}
    source = refine(source=tokens_pb2.TokenMatrix(**happened, codes=[1] * 24))  # 0.96 s
    foreign_source = refine(source=tokens_pb2.TokenMatrix(**happened | {"codec_id": "other@0"}, codes=[1] * 24))
    coarse = acoustic_pb2.RefineConfig(model="musiclm_coarse", styles=[style], duration_s=0.96)
    longer = acoustic_pb2.RefineConfig(model="musiclm_coarse", styles=[style], duration_s=9.6)
    return [
        Rpc(
            "/stretto.orchestrator.v1.OrchestratorService/GenerateMusic",
            music(prompt="a flute", duration_s=0.5),
            (
                (music(prompt=""), "prompt"),
                (music(prompt="x" * 2001), "prompt"),
                (music(prompt="x", duration_s=31), "duration_s"),
                (music(prompt="x", duration_s=float("nan")), "duration_s"),
                (music(prompt="x", sampling=HOT), "sampling.temperature"),
                (music(prompt="x", melody=NAN_AUDIO), "melody.samples"),
                (music(prompt="x", pace=99), "pace"),
                (music(prompt="x", priority=10), "priority"),
                (music(prompt="x", cascade="nobody"), "cascade"),
                (music(prompt="x", story=story), "story"),
                (music(prompt="x", cascade="musiclm", duration_s=301), "duration_s"),
                (music(prompt="x", cascade="musiclm", duration_s=0.2, story=story), "story[0].start_s"),
                (music(prompt="x", candidate_count=9), "candidate_count"),
            ),
            music(prompt="a flute", duration_s=30),
        ),
        Rpc(
            "/stretto.orchestrator.v1.OrchestratorService/ContinueMusic",
            onward(audio=AUDIO, duration_s=0.5),
            (
                (onward(duration_s=1), "audio"),
                (onward(audio=SLOW_RATE_AUDIO), "audio.sample_rate_hz"),
                (onward(audio=AUDIO, duration_s=21), "duration_s"),
                (onward(audio=AUDIO, pace=99), "pace"),
                (onward(audio=AUDIO, priority=-1), "priority"),
                (onward(audio=AUDIO, cascade="nobody"), "cascade"),
            ),
            onward(audio=AUDIO, duration_s=20),
        ),
        Rpc("/stretto.orchestrator.v1.OrchestratorService/ListModels", orchestrator_pb2.ListModelsRequest()),
        Rpc(
            "/stretto.codec.v1.CodecService/EncodeAudio",
            codec_pb2.EncodeAudioRequest(waveform=AUDIO),
            (
                (codec_pb2.EncodeAudioRequest(), "waveform"),
                (codec_pb2.EncodeAudioRequest(waveform=NAN_AUDIO), "waveform.samples"),
                (codec_pb2.EncodeAudioRequest(waveform=AUDIO, codebook_count=99), "codebook_count"),
                (codec_pb2.EncodeAudioRequest(waveform=AUDIO, model="nobody"), "model"),
            ),
        ),
        Rpc(
            "/stretto.codec.v1.CodecService/DecodeTokens",
            [config, decode(tokens=matrix)],
            (
                ([decode(tokens=matrix)], "config"),
                ([config, decode(tokens=ragged)], "tokens"),
                ([decode(config=codec_pb2.DecodeConfig(model="nobody"))], "config.model"),
            ),
            streams_requests=True,
        ),
        Rpc("/stretto.codec.v1.CodecService/ListModels", codec_pb2.ListModelsRequest()),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/EmbedText",
            embedding_pb2.EmbedTextRequest(texts=["a flute"]),
            (
                (embedding_pb2.EmbedTextRequest(), "texts"),
                (embedding_pb2.EmbedTextRequest(texts=["x"] * 65), "texts"),
                (embedding_pb2.EmbedTextRequest(texts=["good", ""]), "texts[1]"),
                (embedding_pb2.EmbedTextRequest(texts=["a"], model="nobody"), "model"),
            ),
        ),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/EmbedMelody",
            embedding_pb2.EmbedMelodyRequest(waveform=AUDIO),
            (
                (embedding_pb2.EmbedMelodyRequest(), "waveform"),
                (embedding_pb2.EmbedMelodyRequest(waveform=NAN_AUDIO), "waveform.samples"),
            ),
        ),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/EmbedAudio",
            hear(waveform=AUDIO),
            (
                (hear(), "waveform"),
                (hear(waveform=NAN_AUDIO), "waveform.samples"),
                (hear(waveform=AUDIO, model="minilm"), "model"),
                (hear(waveform=AUDIO, model="nobody"), "model"),
            ),
        ),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/RankAudio",
            rank(text="a flute", candidates=[AUDIO, AUDIO_48]),
            (
                (rank(text="a flute"), "candidates"),
                (rank(text=" ", candidates=[AUDIO]), "text"),
                (rank(text="a flute", candidates=[AUDIO, NAN_AUDIO]), "candidates[1].samples"),
                (rank(reference=SLOW_RATE_AUDIO, candidates=[AUDIO]), "reference.sample_rate_hz"),
            ),
        ),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/TagAudio",
            tag(waveform=AUDIO, tags=["a flute", "a drum"]),
            (
                (tag(tags=["a flute"]), "waveform"),
                (tag(waveform=AUDIO, tags=["a flute", ""]), "tags[1]"),
                (tag(waveform=AUDIO, tags=["x"] * 257), "tags"),
            ),
        ),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/QuantizeEmbeddings",
            quantize(embeddings=[point]),
            (
                (quantize(), "embeddings"),
                (quantize(embeddings=[point, foreign_point]), "embeddings[1].encoder_id"),
                (quantize(embeddings=[point] * 1025), "embeddings"),
            ),
        ),
        Rpc("/stretto.embedding.v1.EmbeddingService/ListModels", embedding_pb2.ListModelsRequest()),
        Rpc(
            "/stretto.semantic.v1.SemanticService/TokenizeAudio",
            [tokenizer, tokenize(waveform=AUDIO)],
            (
                ([tokenize(waveform=AUDIO)], "config"),
                ([tokenizer, tokenizer], "config"),
                ([tokenizer, tokenize(waveform=NAN_AUDIO)], "waveform.samples"),
                ([tokenizer, tokenize(waveform=AUDIO), tokenize(waveform=AUDIO_48)], "waveform.sample_rate_hz"),
                ([tokenize(config=semantic_pb2.TokenizeConfig(model="nobody"))], "config.model"),
            ),
            streams_requests=True,
        ),
        Rpc(
            "/stretto.semantic.v1.SemanticService/GenerateTokens",
            think(styles=[style], duration_s=0.5),
            (
                (think(), "duration_s"),
                (think(duration_s=601), "duration_s"),
                (think(duration_s=1, styles=[late_style]), "styles[0].start_s"),
                (think(duration_s=1, styles=[foreign_style]), "styles[0].encoder_id"),
                (think(duration_s=1, prompt=matrix), "prompt"),
                (think(duration_s=1, sampling=HOT), "sampling.temperature"),
                (think(duration_s=1, pace=99), "pace"),
                (think(duration_s=1, priority=10), "priority"),
                (think(duration_s=1, model="w2vbert"), "model"),
                (think(duration_s=1, model="nobody"), "model"),
            ),
            think(styles=[style], duration_s=300),
            works_at="/stretto.semantic.v1.SemanticService/GenerateTokens",
        ),
        Rpc("/stretto.semantic.v1.SemanticService/ListModels", semantic_pb2.ListModelsRequest()),
        Rpc(
            "/stretto.acoustic.v1.AcousticService/GenerateTokens",
            tokens(duration_s=0.5),
            (
                (tokens(), "duration_s"),
                (tokens(duration_s=1, sampling=HOT), "sampling.temperature"),
                (tokens(duration_s=1, prompt=ragged), "prompt"),
                (tokens(duration_s=1, melody=WRONG_MELODY), "melody"),
                (tokens(duration_s=1, pace=99), "pace"),
                (tokens(duration_s=1, model="nobody"), "model"),
            ),
            tokens(duration_s=30),
        ),
        Rpc(
            "/stretto.acoustic.v1.AcousticService/RefineTokens",
            [refine(config=coarse), source],
            (
                ([source], "config"),
                ([refine(config=coarse), refine(config=coarse)], "config"),
                ([refine(config=longer), source], "source"),
                ([refine(config=coarse), foreign_source], "source.codec_id"),
                ([refine(config=acoustic_pb2.RefineConfig(model="musicgen", duration_s=1))], "config.model"),
                ([refine(config=acoustic_pb2.RefineConfig(model="nobody", duration_s=1))], "config.model"),
                ([refine(config=acoustic_pb2.RefineConfig(model="musiclm_coarse"))], "config.duration_s"),
            ),
            [refine(config=longer), source],  # which waits for more
            streams_requests=True,
            works_at="/stretto.acoustic.v1.AcousticService/RefineTokens",
        ),
        Rpc(
            "/stretto.acoustic.v1.AcousticService/CheckAdmission",
            check(duration_s=0.5),
            (
                (check(), "duration_s"),
                (check(duration_s=1, sampling=HOT), "sampling.temperature"),
                (check(duration_s=1, pace=99), "pace"),
                (check(duration_s=1, priority=10), "priority"),
                (check(duration_s=1, model="nobody"), "model"),
            ),
        ),
        Rpc("/stretto.acoustic.v1.AcousticService/ListModels", acoustic_pb2.ListModelsRequest()),
    ]  # fmt: skip


def by_name(models: Mapping[str, ModelInfo]) -> dict[str, Rpc]:
    return {rpc.method.rpartition(".")[2]: rpc for rpc in rpcs(models)}


NEEDED = ("codec", "mulan", "w2vbert")
ANY = by_name({name: ModelInfo(name, "any", "0" * 64, "", num_codebooks=1) for name in NEEDED})
every_rpc = pytest.mark.parametrize("name", ANY)


@pytest.fixture
async def rpc(door: Any, name: str) -> Rpc:
    async with StrettoClient(door.address) as client:
        models = (await client.list_models()).models
    codec = next(model for model in models if model.service == "codec" and model.is_default)
    return by_name({model.name: model for model in models} | {"codec": codec})[name]


@pytest.fixture
async def channel(door: Any) -> AsyncIterator[grpc.aio.Channel]:
    """A plain channel without limits of its own: what is refused, the server refuses."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(door.address, options=options) as opened:
        await opened.channel_ready()
        yield opened


def start(
    channel: grpc.aio.Channel, rpc: Rpc, messages: list[bytes], timeout_s: float = GUARD_S, pause_s: float = 0
) -> Any:
    """Begin a call with ready bytes. On the wire every call is a stream in both directions.

    With `pause_s` the stream of requests stays open for so long after the last.
    """

    async def sent() -> AsyncIterator[bytes]:
        for message in messages:
            yield message
        await asyncio.sleep(pause_s)

    return channel.stream_stream(rpc.method)(sent(), timeout=timeout_s)


def messages(request: Any) -> list[Any]:
    return request if isinstance(request, list) else [request]


def written(request: Any) -> list[bytes]:
    return [message.SerializeToString() for message in messages(request)]


async def replies(call: Any) -> list[bytes]:
    return [reply async for reply in call]


async def failure(channel: grpc.aio.Channel, rpc: Rpc, requests: list[bytes]) -> grpc.aio.AioRpcError:
    """The server's word on a call that it refuses; one that strikes a write is not it (`grpc/streams.py`)."""
    for _ in range(50):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await replies(start(channel, rpc, requests))
        if caught.value.details() != "Internal error from Core":
            break
    return caught.value


def details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, list[str]]:
    """The ErrorInfo of a failed call, and the fields that its BadRequest names."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for packed in status_pb2.Status.FromString(value).details:
                _ = packed.Unpack(info) or packed.Unpack(bad)
    return info, [violation.field for violation in bad.field_violations]


def resolves(descriptor: Descriptor, path: str) -> bool:
    """Whether a path such as `texts[1]` or `config.model` names a field of that message."""
    name, _, rest = path.partition(".")
    field = descriptor.fields_by_name.get(re.sub(r"\[\d+\]$", "", name))
    if field is None or (field.is_repeated != name.endswith("]") and bool(rest)):
        return False
    return not rest or (field.message_type is not None and resolves(field.message_type, rest))


def model_paths(descriptor: Descriptor) -> list[str]:
    """Every field of a request, or of the service's own messages in it, that names a model or a cascade."""
    paths = [name for name in ("model", "cascade") if name in descriptor.fields_by_name]
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type.file is descriptor.file:
            paths += [f"{field.name}.{path}" for path in model_paths(field.message_type)]
    return paths


async def works(channel: grpc.aio.Channel, rpc: Rpc) -> None:
    assert await replies(start(channel, rpc, written(rpc.good)))


Page = dict[str, float]
PIECES_MADE = 'stretto_audio_rtf_count{{stage="{}"}}'
PIECES_IN_FLIGHT = 'stretto_rpc_in_flight{{method="{}"}}'
BUSY = ('stretto_rpc_in_flight{method="/stretto.', "stretto_stage_waiting_requests{")


async def page_once(door: Any, is_so: Callable[[Page], bool]) -> Page:
    """The server's metrics page, by name and labels, as soon as it is so."""

    def read() -> Page:
        with urllib.request.urlopen(f"http://127.0.0.1:{door.metrics_port}/metrics", timeout=GUARD_S) as response:
            lines = response.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    async with asyncio.timeout(GUARD_S):
        while not is_so(page := await asyncio.to_thread(read)):  # noqa: ASYNC110 - the page tells nobody of a change
            await asyncio.sleep(0.05)
    return page


def is_idle(page: Page) -> bool:
    """Whether no call of any service is in flight and none waits for a place."""
    return not any(value for name, value in page.items() if name.startswith(BUSY))


@every_rpc
async def test_a_malformed_request_names_its_field_and_the_next_works(channel: Any, rpc: Rpc) -> None:
    garbage = await failure(channel, rpc, [GARBAGE])
    assert garbage.code() is grpc.StatusCode.INVALID_ARGUMENT
    for request, field in rpc.bad:
        error = await failure(channel, rpc, written(request))
        info, fields = details(error)
        expected = grpc.StatusCode.NOT_FOUND if "nobody" in str(request) else grpc.StatusCode.INVALID_ARGUMENT
        assert error.code() is expected, (field, error.details())
        assert info.domain == "stretto.dev"
        assert info.metadata["field"].startswith(field), error.details()
        assert resolves(messages(request)[0].DESCRIPTOR, info.metadata["field"]), error.details()
        assert expected is grpc.StatusCode.NOT_FOUND or fields == [info.metadata["field"]]
        assert error.details()
    await works(channel, rpc)


def test_the_table_has_every_method() -> None:
    modules = (orchestrator_pb2, codec_pb2, embedding_pb2, semantic_pb2, acoustic_pb2)
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    assert set(ANY) == {f"{service.name}/{method.name}" for service in services for method in service.methods}
    paths = {name: model_paths(messages(rpc.good)[0].DESCRIPTOR) for name, rpc in ANY.items()}
    assert {name: found for name, found in paths.items() if found} == {
        "OrchestratorService/GenerateMusic": ["cascade"],
        "OrchestratorService/ContinueMusic": ["cascade"],
        "CodecService/EncodeAudio": ["model"],
        "CodecService/DecodeTokens": ["config.model"],
        "EmbeddingService/EmbedText": ["model"],
        "EmbeddingService/EmbedMelody": ["model"],
        "EmbeddingService/EmbedAudio": ["model"],
        "EmbeddingService/RankAudio": ["model"],
        "EmbeddingService/TagAudio": ["model"],
        "EmbeddingService/QuantizeEmbeddings": ["model"],
        "SemanticService/TokenizeAudio": ["config.model"],
        "SemanticService/GenerateTokens": ["model"],
        "AcousticService/GenerateTokens": ["model"],
        "AcousticService/RefineTokens": ["config.model"],
        "AcousticService/CheckAdmission": ["model"],
    }


@every_rpc
async def test_an_unknown_model_is_not_found_by_its_path_in_the_request(channel: Any, rpc: Rpc) -> None:
    first, *others = messages(rpc.good)
    for path in model_paths(first.DESCRIPTOR):
        asked = type(first).FromString(first.SerializeToString())
        *parents, name = path.split(".")
        target = asked
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, name, "nobody")
        error = await failure(channel, rpc, written([asked, *others]))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert details(error)[0].metadata["field"] == path


@every_rpc
async def test_an_oversized_request_is_refused_and_the_next_works(channel: Any, rpc: Rpc) -> None:
    first = written(rpc.good)[:-1] if rpc.streams_requests else []
    error = await failure(channel, rpc, [*first, bytes(MAX_RECEIVE_BYTES + 1)])
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_RECEIVE_BYTES) in (error.details() or "")
    await works(channel, rpc)


@every_rpc
async def test_a_late_request_ends_at_its_deadline_and_the_next_works(channel: Any, rpc: Rpc) -> None:
    timeout_s = 0.5 if rpc.long is not None or rpc.streams_requests else 0.0005
    pause_s = 5.0 if rpc.streams_requests else 0
    codes = set()
    for attempt in range(200):
        # A quick answer may come in time; a deadline that strikes before the call is on its way is a plain cancellation
        # to grpc.aio, raised or as a status, and one that strikes a write an "Internal error from Core" (see
        # stretto_shared.grpc.streams). None of these is the server's word, so ask again.
        try:
            answer = asyncio.ensure_future(
                replies(start(channel, rpc, written(rpc.long or rpc.good), timeout_s, pause_s))
            )
            # Hold this side's event loop at one moment after another until the deadline is past; the server is a
            # process of its own and goes on, so that at some of these moments the call is on its way.
            for _ in range(attempt % 20):
                await asyncio.sleep(0)
            time.sleep(2 * timeout_s if timeout_s < 0.01 else 0)  # noqa: ASYNC251
            await answer
        except asyncio.CancelledError:
            continue
        except grpc.aio.AioRpcError as error:
            if error.details() == "Internal error from Core" or error.code() is grpc.StatusCode.CANCELLED:
                continue
            codes.add(error.code())
            break
    assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
    await works(channel, rpc)


@every_rpc
async def test_a_cancelled_request_frees_its_place_and_the_next_works(channel: Any, door: Any, rpc: Rpc) -> None:
    before = await page_once(door, is_idle)
    pause_s = GUARD_S if rpc.streams_requests else 0
    calls = [start(channel, rpc, written(rpc.long or rpc.good), pause_s=pause_s) for _ in range(8)]
    readers = [asyncio.create_task(replies(call)) for call in calls]
    if rpc.long is not None:
        in_flight = PIECES_IN_FLIGHT.format(rpc.works_at)
        await page_once(door, lambda page: page.get(in_flight) == 8)  # some in slots, some waiting for one
    else:
        await asyncio.sleep(0.002)
    for call in calls:
        call.cancel()
    ended = await asyncio.gather(*readers, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError | list) for end in ended)
    after = await page_once(door, is_idle)
    if rpc.long is not None:
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
        made = PIECES_MADE.format(rpc.works_at.split(".")[1])
        assert after.get(made, 0) == before.get(made, 0), "a piece was made to its end that nobody waited for"
    await works(channel, rpc)  # with all slots still taken it would wait for good
