"""A peer that falls silent without closing its connection: keepalive finds out, and the next call works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc

KEEPALIVE_TIME_S, KEEPALIVE_TIMEOUT_S = 1.0, 1.0
# Without keepalive a call hangs until its deadline of 120 s, so a starved machine may well be ten times late.
ENOUGH_S = 10 * (KEEPALIVE_TIME_S + KEEPALIVE_TIMEOUT_S)
REQUEST = codec_pb2.EncodeAudioRequest()


class BlackHole:
    """A TCP proxy that forwards until it is told to swallow everything; its connections stay open."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.num_connections = 0

    async def __aenter__(self) -> BlackHole:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    def swallow(self) -> None:
        self._flowing.clear()

    def heal(self) -> None:
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        other_reader, other_writer = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, other_writer]
        for source, target in ((reader, other_writer), (other_reader, writer)):
            task = asyncio.create_task(self._forward(source, target))
            self._tasks.add(task)

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                await self._flowing.wait()
                target.write(data)
                await target.drain()
        except OSError:
            pass  # one side is gone; the other learns it from the close below
        target.close()


async def one_answer_then_nothing(requests: object, context: object) -> AsyncIterator[codec_pb2.DecodeTokensResponse]:
    yield codec_pb2.DecodeTokensResponse(first_sample_index=7)
    await asyncio.sleep(600)


def through(serve, hole, **settings):
    settings = {"max_attempts": 1, "health_checking": False} | settings
    keepalive = {"keepalive_time_s": KEEPALIVE_TIME_S, "keepalive_timeout_s": KEEPALIVE_TIMEOUT_S}
    return codec_pb2_grpc.CodecServiceStub(serve.open(hole.address, **keepalive, **settings))


async def works(stub):
    """A call that goes through; one may meet a connection from the time of silence, or one struck by keepalive."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await stub.EncodeAudio(REQUEST, wait_for_ready=True, timeout=60)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE


async def begun(stub):
    """A stream after its first answer; on a starved machine keepalive may strike a peer that is well."""
    async with asyncio.timeout(60):
        while True:
            call = stub.DecodeTokens(iter([codec_pb2.DecodeTokensRequest()]), wait_for_ready=True, timeout=120)
            try:
                assert (await call.read()).first_sample_index == 7
                return call
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_whose_peer_falls_silent_is_unavailable_soon_and_the_next_call_works(serve):
    served = await serve(serve.fake(decode=one_answer_then_nothing))
    async with BlackHole(served.address) as hole:
        stub = through(serve, hole)
        call = await begun(stub)
        hole.swallow()
        began_s = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began_s < ENOUGH_S
        hole.heal()
        await works(stub)
        assert hole.num_connections >= 2


@pytest.mark.parametrize("settings", [{"max_attempts": 1}, {"max_attempts": 2, "health_checking": True}])
async def test_a_call_into_the_silence_is_unavailable_soon(serve, settings):
    served = await serve()
    async with BlackHole(served.address) as hole:
        stub = through(serve, hole, **settings)
        await works(stub)
        hole.swallow()
        began_s = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.EncodeAudio(REQUEST, timeout=120)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began_s < ENOUGH_S + 20, "a connection that nobody answers is given up after 5 s"


async def test_a_caller_that_vanishes_without_a_word_ends_its_call(serve):
    codec, begun, ended = serve.fake(), asyncio.Event(), asyncio.Event()

    async def wait_for_ever(requests, context):
        try:
            begun.set()
            await asyncio.Event().wait()
            yield codec_pb2.DecodeTokensResponse()
        finally:
            ended.set()

    codec.decode = wait_for_ever
    served = await serve(codec, keepalive_time_s=KEEPALIVE_TIME_S, keepalive_timeout_s=KEEPALIVE_TIMEOUT_S)
    async with BlackHole(served.address) as hole:
        channel = serve.open(hole.address, health_checking=False, max_attempts=1)
        call = codec_pb2_grpc.CodecServiceStub(channel).DecodeTokens(timeout=120)
        await call.write(codec_pb2.DecodeTokensRequest())
        await begun.wait()
        hole.swallow()
        async with asyncio.timeout(ENOUGH_S):
            await ended.wait()
        call.cancel()
        hole.heal()


async def test_a_caller_that_does_not_read_holds_the_handler_back_and_may_go_on_later(serve):
    codec, num_messages, num_made = serve.fake(), 400, 0

    async def make(requests, context):
        nonlocal num_made
        for _ in range(num_messages):
            num_made += 1
            yield codec_pb2.DecodeTokensResponse(waveform={"samples": bytes(256 * 1024)})

    codec.decode = make
    served = await serve(codec)
    call = served.codec.DecodeTokens(timeout=120)
    await call.write(codec_pb2.DecodeTokensRequest())
    await call.done_writing()
    await call.read()
    seen = 0
    while seen != num_made:  # it goes on until all buffers between are full
        seen = num_made
        await asyncio.sleep(1.0)
    assert seen < num_messages / 2, "hundreds of megabytes wait for somebody who does not read"
    num_read = 1
    while await call.read() is not grpc.aio.EOF:
        num_read += 1
    assert num_read == num_messages
