"""Every RPC of every service: malformed, oversized, late and cancelled requests get their error; the next one works."""

import asyncio
import json
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from google.rpc import error_details_pb2, status_pb2
from real_server import ROOT, Door
from rpc_table import NEEDED, Rpc, by_name
from stretto.acoustic.v1 import acoustic_pb2
from stretto.codec.v1 import codec_pb2
from stretto.embedding.v1 import embedding_pb2
from stretto.harmony.v1 import harmony_pb2
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto.semantic.v1 import semantic_pb2
from stretto.transcriber.v1 import transcriber_pb2
from stretto_client import StrettoClient
from stretto_shared.features import ModelInfo

MAX_RECEIVE_BYTES = 64 * 1024 * 1024
GARBAGE = b"\x0a\xff\xff\xff\xff\x0f garbage"
GUARD_S = 300.0  # against hanging only: a starved machine is slow, and no test here is about that
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
    paths = [name for name in descriptor.fields_by_name if name in ("model", "cascade") or name.endswith("_model")]
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
    modules = (
        orchestrator_pb2, codec_pb2, embedding_pb2, semantic_pb2, acoustic_pb2, transcriber_pb2, harmony_pb2
    )  # fmt: skip
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    assert set(ANY) == {f"{service.name}/{method.name}" for service in services for method in service.methods}
    paths = {name: model_paths(messages(rpc.good)[0].DESCRIPTOR) for name, rpc in ANY.items()}
    assert {name: found for name, found in paths.items() if found} == {
        "OrchestratorService/GenerateMusic": ["cascade"],
        "OrchestratorService/ContinueMusic": ["cascade"],
        "OrchestratorService/AnalyzeMusic": ["config.note_model", "config.beat_model", "config.harmony_model"],
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
        "TranscriberService/TranscribeAudio": ["config.model"],
        "TranscriberService/TrackBeats": ["config.model"],
        "HarmonyService/AnalyzeHarmony": ["model"],
        "HarmonyService/ReanalyzeHarmony": ["model"],
        "HarmonyService/FindChordChanges": ["model"],
        "HarmonyService/ClassifyChords": ["model"],
        "HarmonyService/PredictChord": ["model"],
        "HarmonyService/FindKeyChanges": ["model"],
        "HarmonyService/PredictKey": ["model"],
        "HarmonyService/PredictFirstChord": ["model"],
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
    timeout_s = 0.5 if rpc.streams_requests else 0.1 if rpc.long is not None else 0.0005  # no long one ends in .1 s
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


async def test_models_are_listed_with_as_many_numbers_as_their_cards_count(door: Door) -> None:
    async with StrettoClient(door.address) as client:
        models = (await client.list_models()).models
    written = {path.parent.name: json.loads(path.read_text()) for path in ROOT.glob("services/*/weights/*/config.json")}
    listed = {model.name: model.parameter_count for model in models if model.name in written}
    assert listed == {name: config["parameter_count"] for name, config in written.items()}
