"""Channels: balancing, retries, and what a call inherits from the RPC that makes it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path

import grpc
import pytest
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto_shared.errors import InvalidInput
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.settings import ChannelSettings

REQUEST = codec_pb2.EncodeAudioRequest()
# A timeout of 10 to 100 s travels with three digits, rounded up: each hop may add a tenth of a second.
HOP_ROUNDING_S = 0.11


def counting(name, counts):
    async def encode(request, context):
        counts[name] += 1
        return codec_pb2.EncodeAudioResponse()

    return encode


async def test_the_deadline_at_the_door_reaches_the_inner_service(serve):
    seen = {}

    async def inner_encode(request, context):
        seen["inner"] = context.time_remaining()
        return codec_pb2.EncodeAudioResponse()

    inner = await serve(serve.fake(encode=inner_encode))

    async def outer_encode(request, context):
        await asyncio.sleep(0.5)
        seen["outer"] = context.time_remaining()
        return await inner.codec.EncodeAudio(request)

    outer = await serve(serve.fake(encode=outer_encode))
    await outer.codec.EncodeAudio(REQUEST, timeout=60)
    assert seen["outer"] < 60 - 0.5 + HOP_ROUNDING_S
    assert seen["outer"] - 30 < seen["inner"] < seen["outer"] + HOP_ROUNDING_S, "the inner call began with less"
    await inner.codec.EncodeAudio(REQUEST)
    assert seen["inner"] is None or seen["inner"] > 1e6, "a call outside of any RPC has no deadline"


async def test_a_call_may_ask_for_less_time_than_is_left_but_not_for_more(serve):
    seen = []

    async def inner_encode(request, context):
        seen.append(context.time_remaining())
        return codec_pb2.EncodeAudioResponse()

    inner = await serve(serve.fake(encode=inner_encode))

    async def outer_encode(request, context):
        await inner.codec.EncodeAudio(request, timeout=20)
        return await inner.codec.EncodeAudio(request, timeout=600)

    outer = await serve(serve.fake(encode=outer_encode))
    await outer.codec.EncodeAudio(REQUEST, timeout=60)
    less, capped = seen
    assert less < 20 + HOP_ROUNDING_S
    assert 30 < capped < 60 + 2 * HOP_ROUNDING_S, "600 s were asked for when at most 60 were left"


async def test_a_deadline_that_passes_in_the_inner_service_is_deadline_exceeded_at_the_door(serve):
    entered, stopped = asyncio.Event(), asyncio.Event()

    async def inner_decode(requests, context):
        entered.set()
        try:
            await asyncio.sleep(600)
            yield codec_pb2.DecodeTokensResponse()
        finally:
            stopped.set()

    inner = await serve(serve.fake(decode=inner_decode))
    await inner.channel.channel_ready()

    async def outer_encode(request, context):
        async for _ in inner.codec.DecodeTokens(iter([codec_pb2.DecodeTokensRequest()]), timeout=1):
            pass

    outer = await serve(serve.fake(encode=outer_encode))
    for _ in range(20):  # on a starved machine a deadline may pass before the inner server hears of the call
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await outer.codec.EncodeAudio(REQUEST, timeout=60)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if entered.is_set():
            break
    await asyncio.wait_for(stopped.wait(), 20)


async def test_cancelling_at_the_door_cancels_the_inner_stream(serve):
    entered, stopped = asyncio.Event(), asyncio.Event()

    async def inner_decode(requests, context):
        entered.set()
        try:
            await asyncio.sleep(600)
            yield codec_pb2.DecodeTokensResponse()
        finally:
            stopped.set()

    inner = await serve(serve.fake(decode=inner_decode))

    async def outer_encode(request, context):
        async for _ in inner.codec.DecodeTokens(iter([codec_pb2.DecodeTokensRequest()])):
            pass

    outer = await serve(serve.fake(encode=outer_encode))
    call = outer.codec.EncodeAudio(REQUEST)
    await entered.wait()
    call.cancel()
    await asyncio.wait_for(stopped.wait(), 20)


async def test_one_request_id_names_the_whole_cascade(serve):
    seen = []

    async def inner_encode(request, context):
        seen.append(dict(context.invocation_metadata())["x-request-id"])
        return codec_pb2.EncodeAudioResponse()

    inner = await serve(serve.fake(encode=inner_encode))

    async def outer_encode(request, context):
        return await inner.codec.EncodeAudio(request)

    outer = await serve(serve.fake(encode=outer_encode))
    call = outer.codec.EncodeAudio(REQUEST, metadata=(("x-request-id", "order-66"),))
    await call
    assert seen == ["order-66"]
    assert dict(await call.trailing_metadata())["x-request-id"] == "order-66"
    call = outer.codec.EncodeAudio(REQUEST, metadata=(("x-request-id", "no spaces, please"),))
    await call
    made = dict(await call.trailing_metadata())["x-request-id"]
    assert len(made) == 32
    assert seen[1] == made


async def test_calls_go_round_two_servers_and_a_stopped_one_costs_no_error(serve):
    counts = Counter()
    first = await serve(serve.fake(encode=counting("first", counts)))
    second = await serve(serve.fake(encode=counting("second", counts)))
    channel = serve.open(f"ipv4:{first.address},{second.address}", initial_backoff_s=0.05)
    stub = codec_pb2_grpc.CodecServiceStub(channel)
    await stub.EncodeAudio(REQUEST, wait_for_ready=True, timeout=60)
    async with asyncio.timeout(60):
        while not (counts["first"] and counts["second"]):  # the second may be connected, and healthy, a while later
            await asyncio.sleep(0.02)
            await stub.EncodeAudio(REQUEST, timeout=60)
    counts.clear()
    for _ in range(20):
        await stub.EncodeAudio(REQUEST, timeout=60)
    assert counts == {"first": 10, "second": 10}

    stopped = asyncio.Event()
    callers = [asyncio.create_task(call_until(stopped, stub)) for _ in range(16)]
    await asyncio.sleep(0.05)
    await first.server.stop()
    stopped.set()
    await asyncio.gather(*callers)
    counts.clear()
    await many(stub, 10)
    assert counts == {"second": 10}


async def call_until(stopped, stub):
    while not stopped.is_set():
        await stub.EncodeAudio(REQUEST, timeout=60)


async def many(stub, num_calls):
    for _ in range(num_calls):
        await stub.EncodeAudio(REQUEST, timeout=60)
        await asyncio.sleep(0.002)


async def test_a_call_that_meets_unavailable_is_tried_again(serve):
    tries = []

    async def encode(request, context):
        tries.append(1)
        if len(tries) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return codec_pb2.EncodeAudioResponse(sample_count=7)

    served = await serve(serve.fake(encode=encode), channel={"max_attempts": 4, "initial_backoff_s": 0.01})
    assert (await served.codec.EncodeAudio(REQUEST, timeout=60)).sample_count == 7
    assert len(tries) == 3


async def test_a_call_that_takes_a_stream_is_not_tried_again(serve):
    """gRPC loses messages of such a call around the moment of a retry, and says nothing."""
    tries = []

    async def decode(requests, context):
        tries.append(1)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        yield

    served = await serve(serve.fake(decode=decode), channel={"max_attempts": 4, "initial_backoff_s": 0.01})
    call = served.codec.DecodeTokens(timeout=60)
    await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE and len(tries) == 1


def streamed_to():
    """Full names of all methods of the wire that take a stream, as its protos say."""
    for path in sorted((Path(__file__).parents[3] / "protos/stretto").glob("*/v1/*.proto")):
        text = path.read_text()
        for service, body in re.findall(r"^service (\w+) \{(.*?)^\}", text, re.DOTALL | re.MULTILINE):
            package = re.search(r"^package ([\w.]+);", text, re.MULTILINE).group(1)
            yield from (f"/{package}.{service}/{method}" for method in re.findall(r"rpc (\w+)\(stream", body))


class Unavailable(grpc.GenericRpcHandler):
    """Answers every method that takes a stream with UNAVAILABLE, and counts how often each was tried."""

    def __init__(self):
        self.tried = Counter()

    def service(self, details):
        async def refuse(requests, context):
            self.tried[details.method] += 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Loading.")

        return grpc.stream_stream_rpc_method_handler(refuse)


async def test_no_method_of_the_wire_that_takes_a_stream_is_tried_again():
    handler, server = Unavailable(), grpc.aio.server()
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    methods = list(streamed_to())
    settings = ChannelSettings(health_checking=False, max_attempts=4, initial_backoff_s=0.01)
    async with open_channel(f"127.0.0.1:{port}", settings) as channel:
        for method in methods:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.stream_stream(method)(iter([b""]), timeout=20).read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(None)
    assert len(methods) >= 6 and handler.tried == dict.fromkeys(methods, 1)


async def test_other_errors_are_not_tried_again(serve):
    tries = []

    async def encode(request, context):
        tries.append(1)
        raise InvalidInput("model", "is wrong.")

    served = await serve(serve.fake(encode=encode), channel={"max_attempts": 4, "initial_backoff_s": 0.01})
    with pytest.raises(grpc.aio.AioRpcError):
        await served.codec.EncodeAudio(REQUEST, timeout=60)
    assert len(tries) == 1


async def test_old_connections_are_replaced_without_an_error(serve):
    peers = set()

    async def encode(request, context):
        peers.add(context.peer())
        return codec_pb2.EncodeAudioResponse()

    served = await serve(serve.fake(encode=encode), max_connection_age_s=0.2, channel={"max_attempts": 4})
    async with asyncio.timeout(60):
        while len(peers) < 3:
            await many(served.codec, 5)


async def test_a_server_that_still_loads_gets_no_calls(serve):
    counts = Counter()
    loading = await serve(
        serve.fake(encode=counting("loading", counts), start=asyncio.Event().wait), ready=False, drain_s=0
    )
    ready = await serve(serve.fake(encode=counting("ready", counts)))
    stub = codec_pb2_grpc.CodecServiceStub(serve.open(f"ipv4:{loading.address},{ready.address}", max_attempts=1))
    for _ in range(10):
        await stub.EncodeAudio(REQUEST, wait_for_ready=True, timeout=60)
    assert counts == {"ready": 10}


@pytest.mark.parametrize("address", ["", "localhost", ":50051", "localhost:http"])
def test_an_address_without_host_or_port_is_refused(address):
    with pytest.raises(InvalidInput, match="host:port"):
        open_channel(address)
