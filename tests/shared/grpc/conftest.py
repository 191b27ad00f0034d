"""A real server on port 0 with a codec service that each test programs for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings

FULL_NAME = "stretto.codec.v1.CodecService"


async def _nothing() -> None:
    return None


async def _empty_reply(request: Any, context: Any) -> Any:
    return codec_pb2.EncodeAudioResponse()


async def _echo(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield codec_pb2.DecodeTokensResponse(first_sample_index=len(request.tokens.codes))


@dataclass
class FakeCodec(codec_pb2_grpc.CodecServiceServicer):
    """The codec service with its methods as fields."""

    encode: Callable[[Any, Any], Awaitable[Any]] = _empty_reply
    decode: Callable[[Any, Any], AsyncIterator[Any]] = _echo
    start: Callable[[], Awaitable[None]] = _nothing
    stop: Callable[[], Awaitable[None]] = _nothing
    full_name: str = FULL_NAME
    contexts: list[HostContext] = field(default_factory=list)

    async def EncodeAudio(self, request: Any, context: Any) -> Any:
        return await self.encode(request, context)

    async def DecodeTokens(self, request_iterator: Any, context: Any) -> Any:
        async for response in self.decode(request_iterator, context):
            yield response

    async def ListModels(self, request: Any, context: Any) -> Any:
        return codec_pb2.ListModelsResponse()

    def build(self, context: HostContext) -> ServiceHost:
        self.contexts.append(context)

        def add_to_server(server: Any) -> None:
            codec_pb2_grpc.add_CodecServiceServicer_to_server(self, server)

        return ServiceHost("codec", self.full_name, add_to_server, self.start, self.stop)


@dataclass(frozen=True)
class Served:
    server: StrettoServer
    address: str
    channel: Any
    codec: Any
    """The stub of the fake codec."""


class Serve:
    """Starts servers and channels, and stops them all in the end."""

    fake = FakeCodec

    def __init__(self) -> None:
        self._servers: list[StrettoServer] = []
        self._channels: list[Any] = []

    async def __call__(
        self,
        codec: FakeCodec | None = None,
        *,
        channel: dict[str, Any] | None = None,
        ready: bool = True,
        log: Any = None,
        span_exporter: Any = None,
        **settings: Any,
    ) -> Served:
        made = GrpcSettings(**{"port": 0, "log_level": "error", "drain_s": 5.0, **settings})
        builders = {"codec": (codec or FakeCodec()).build}
        server = StrettoServer(made, builders, log=log, span_exporter=span_exporter)
        self._servers.append(server)
        address = f"127.0.0.1:{await server.start()}"
        if ready:
            await server.wait_until_ready()
        opened = self.open(address, **{"health_checking": False, "max_attempts": 1, **(channel or {})})
        return Served(server, address, opened, codec_pb2_grpc.CodecServiceStub(opened))

    def open(self, address: str, **settings: Any) -> Any:
        opened = open_channel(address, ChannelSettings(**settings))
        self._channels.append(opened)
        return opened

    @staticmethod
    async def eventually(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
        """Wait for what a server does after its answer is already here."""
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110  # any condition, not only ours
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        for server in self._servers:
            await server.stop()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    starter = Serve()
    yield starter
    await starter.close()
