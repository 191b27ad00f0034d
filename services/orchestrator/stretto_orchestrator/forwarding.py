"""Calls for the stages themselves, passed on byte by byte: the orchestrator's port is the only one that clients know.

Needed only where the orchestrator runs without the stages on its own server. Every method is passed on as a stream in
both directions, which on the wire is what a unary call is too. Metadata, deadline, cancellation and the rich status
travel through; no message is parsed. Only the methods that the published protos name are passed on, so that no caller
can make up the names under which calls are counted; what failed without a rich status of the stage's own is answered in
the words of this server, which name the service and no address.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from stretto_shared.errors import NotReady
from stretto_shared.grpc.status import STATUS_DETAILS_KEY, error_from_rpc
from stretto_shared.grpc.streams import exchange

from stretto_orchestrator.clients import shut, unreachable

_OF_THIS_SERVER = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)  # who calls a stage is us
_TRAILERS = (STATUS_DETAILS_KEY,)
_OWN_HEADERS = ("user-agent", "content-type", "te", "host", "accept-encoding", "traceparent", "authorization")


@dataclass(frozen=True)
class ForwardedStage:
    """A stage by its one word, the service that it offers, and the channel that reaches it."""

    name: str
    service: ServiceDescriptor
    channel: grpc.aio.Channel


class StageForwarder(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers for services that live elsewhere."""

    def __init__(self, stages: Sequence[ForwardedStage]) -> None:
        self._stages = {
            f"/{stage.service.full_name}/{method.name}": stage for stage in stages for method in stage.service.methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """A handler for the methods of those services; None for all others."""
        method: str = handler_call_details.method
        stage = self._stages.get(method)
        if stage is None:
            return None
        open_call = stage.channel.stream_stream(method)

        async def forward(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            metadata = [(key, value) for key, value in context.invocation_metadata() or () if _is_passed_on(key)]
            call = open_call(metadata=metadata, timeout=context.time_remaining())
            try:
                async with aclosing(exchange(call, requests)) as responses:
                    async for response in responses:
                        yield response
            except grpc.aio.AioRpcError as error:
                trailers = tuple((key, value) for key, value in error.trailing_metadata() or () if key in _TRAILERS)
                if error.code() in _OF_THIS_SERVER:
                    raise shut(stage.name) from error
                if not trailers:
                    await _raise_in_own_words(stage.name, error, context)
                await context.abort(error.code(), error.details() or "", trailers)

        return grpc.stream_stream_rpc_method_handler(forward)


async def _raise_in_own_words(stage: str, error: grpc.aio.AioRpcError, context: Any) -> None:
    """Raise what a failure means that the stage itself did not explain; its details are gRPC's, and name addresses."""
    if isinstance(error_from_rpc(error), NotReady):
        raise unreachable(stage) from error
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:  # an older stage than this door
        await context.abort(error.code(), f"The {stage} service does not offer this method.")
    raise error


def _is_passed_on(key: str) -> bool:
    return not key.startswith((":", "grpc-")) and key not in _OWN_HEADERS
