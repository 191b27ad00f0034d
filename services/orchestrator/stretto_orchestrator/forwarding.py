"""Calls for the stages themselves, passed on byte by byte: the orchestrator's port is the only one that clients know.

Needed only where the orchestrator runs without the stages on its own server. Every method is passed on as a stream in
both directions, which on the wire is what a unary call is too. Metadata, deadline, cancellation and the rich status
travel through; no message is parsed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import grpc
from stretto_shared.grpc.status import STATUS_DETAILS_KEY
from stretto_shared.grpc.streams import exchange

_TRAILERS = (STATUS_DETAILS_KEY,)
_OWN_HEADERS = ("user-agent", "content-type", "te", "host", "accept-encoding", "traceparent")


class StageForwarder(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers for services that live elsewhere.

    Args:
        channels: Full name of a service, as in `stretto.codec.v1.CodecService`, to the channel that reaches it.
    """

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._channels = dict(channels)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """A handler for any method of those services; None for all others."""
        method: str = handler_call_details.method
        channel = self._channels.get(method.removeprefix("/").rpartition("/")[0])
        if channel is None:
            return None
        open_call = channel.stream_stream(method)

        async def forward(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            metadata = [(key, value) for key, value in context.invocation_metadata() or () if _is_passed_on(key)]
            call = open_call(metadata=metadata, timeout=context.time_remaining())
            try:
                async with aclosing(exchange(call, requests)) as responses:
                    async for response in responses:
                        yield response
            except grpc.aio.AioRpcError as error:
                trailers = [(key, value) for key, value in error.trailing_metadata() or () if key in _TRAILERS]
                await context.abort(error.code(), error.details() or "", tuple(trailers))

        return grpc.stream_stream_rpc_method_handler(forward)


def _is_passed_on(key: str) -> bool:
    return not key.startswith((":", "grpc-")) and key not in _OWN_HEADERS
