"""One RPC being served, and the interceptor that puts layers (spans, logs, metrics, errors) around every one.

Each layer is an async context manager over the same `ServedCall`; all of them, and the handler inside, run in the
RPC's own task, so that context variables hold for the whole RPC and a cancellation reaches the handler's own
`finally` at once, also when it waits in a write.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from stretto_shared.errors import InvalidInput

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_current_call: ContextVar[ServedCall | None] = ContextVar("stretto_current_call", default=None)


@dataclass
class ServedCall:
    """What the layers know of one RPC; those with a value of their own are filled in while it runs.

    `caller` is the name that the door knows the caller by, never what proves it; `max_request_bytes` is what all
    messages of the request may measure.
    """

    method: str
    context: grpc.aio.ServicerContext
    metadata: dict[str, str]
    request_id: str
    deadline_at_s: float | None
    started_at_s: float = field(default_factory=time.monotonic)
    on_first_response: Callable[[], None] = field(default=lambda: None)
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    num_responses: int = 0
    caller: str = ""
    max_request_bytes: int | None = None
    num_request_bytes: int = 0

    @property
    def service(self) -> str:
        """Full name of the service, as in `stretto.codec.v1.CodecService`."""
        return self.method.removeprefix("/").rpartition("/")[0]

    @property
    def is_infrastructure(self) -> bool:
        """Whether the method belongs to gRPC's own services: health, reflection, channelz."""
        return self.service.startswith("grpc.")

    @property
    def is_loopback(self) -> bool:
        """Whether the call comes over a unix socket, that is, from this machine."""
        return str(self.context.peer()).startswith("unix")

    @property
    def remaining_s(self) -> float | None:
        """Time left until the deadline, at least 0; None without a deadline."""
        return None if self.deadline_at_s is None else max(0.0, self.deadline_at_s - time.monotonic())

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_at_s


Layer = Callable[[ServedCall], AbstractAsyncContextManager[None]]


def current_call() -> ServedCall | None:
    """The RPC that the running task serves; None outside of one."""
    return _current_call.get()


class PeerGone(Exception):
    """A message could not be written, because the caller cancelled or its connection is lost."""


@dataclass(frozen=True)
class _Malformed:
    """What stands for a message that could not be parsed, until the layers are there to answer it."""

    num_bytes: int

    def error(self) -> InvalidInput:
        return InvalidInput(
            "request",
            f"{self.num_bytes} bytes do not parse as the method's message. Use the published protos.",
            reason="MALFORMED_MESSAGE",
        )


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Runs every RPC inside the given layers, the first one outermost."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Wrap the handler of one RPC; unknown methods stay UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        metadata = {
            key: value for key, value in handler_call_details.invocation_metadata or () if isinstance(value, str)
        }
        behaviour, make_handler = _parts(handler)

        async def serve(request: Any, context: grpc.aio.ServicerContext) -> Any:
            call = _served_call(method, context, metadata)
            token = _current_call.set(call)
            try:
                async with AsyncExitStack() as stack:
                    for layer in self._layers:
                        await stack.enter_async_context(layer(call))
                    checked = _checked_stream(request, call) if handler.request_streaming else _checked(request, call)
                    if handler.response_streaming:
                        await _stream(behaviour(checked, context), call)
                        return None
                    response = await behaviour(checked, context)
                    call.num_responses = 1
                    return response
            finally:
                _current_call.reset(token)

        return make_handler(
            serve,
            request_deserializer=_tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )


def _parts(handler: grpc.RpcMethodHandler) -> tuple[Callable[..., Any], Callable[..., grpc.RpcMethodHandler]]:
    """The handler's function, and gRPC's constructor for handlers of the same kind."""
    match bool(handler.request_streaming), bool(handler.response_streaming):
        case False, False:
            return handler.unary_unary, grpc.unary_unary_rpc_method_handler
        case False, True:
            return handler.unary_stream, grpc.unary_stream_rpc_method_handler
        case True, False:
            return handler.stream_unary, grpc.stream_unary_rpc_method_handler
        case _:
            return handler.stream_stream, grpc.stream_stream_rpc_method_handler


def _served_call(method: str, context: grpc.aio.ServicerContext, metadata: dict[str, str]) -> ServedCall:
    asked = metadata.get(REQUEST_ID_KEY, "")
    remaining_s = context.time_remaining()
    return ServedCall(
        method=method,
        context=context,
        metadata=metadata,
        request_id=asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex,
        deadline_at_s=None if remaining_s is None else time.monotonic() + remaining_s,
    )


async def _stream(produced: Any, call: ServedCall) -> None:
    """Write what an async generator yields, or await a handler that writes for itself."""
    if not hasattr(produced, "__aiter__"):
        await produced
        return
    async with aclosing(produced) as responses:
        async for response in responses:
            try:
                await call.context.write(response)
            except grpc.aio.InternalError as error:
                raise PeerGone from error
            if call.num_responses == 0:
                call.on_first_response()
            call.num_responses += 1


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Turn a parse failure into a value, so that it is answered inside the layers."""
    if deserialize is None:
        return None

    def parse(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except DecodeError:
            return _Malformed(len(raw))

    return parse


def _checked(request: Any, call: ServedCall) -> Any:
    if isinstance(request, _Malformed):
        raise request.error()
    if call.max_request_bytes is not None:
        call.num_request_bytes += len(request) if isinstance(request, bytes) else request.ByteSize()
        if call.num_request_bytes > call.max_request_bytes:
            raise InvalidInput(
                "request",
                f"expected at most {call.max_request_bytes} bytes in all, got {call.num_request_bytes}. Send less.",
                reason="REQUEST_TOO_LARGE",
            )
    return request


async def _checked_stream(requests: AsyncIterator[Any], call: ServedCall) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request, call)
