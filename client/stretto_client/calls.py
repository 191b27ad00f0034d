"""One gRPC call as Python sees it: its answer or its stream, and every failure as a `StrettoError`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from stretto_shared.errors import InvalidInput, StrettoError
from stretto_shared.grpc.status import error_from_rpc
from stretto_shared.grpc.streams import exchange, submit

from stretto_client.errors import DeadlineExceeded, RequestCancelled, ServerFailure, Unreachable


async def answer(call: Any) -> Any:
    """The one reply of a unary call.

    Raises:
        StrettoError: For every failure of the call.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise as_stretto_error(error) from error


async def stream(call: Any, requests: AsyncIterator[bytes] | None = None) -> AsyncGenerator[Any, None]:
    """The replies of a streaming call. Closing the iterator early cancels the call on the server.

    Args:
        call: A call of a stub.
        requests: Serialized messages, where the call takes a stream of them.

    Raises:
        StrettoError: For every failure of the call.
        Exception: What `requests` raised.
    """
    try:
        if requests is None:
            async for message in call:
                yield message
        else:
            async with aclosing(exchange(call, requests)) as messages:
                async for message in messages:
                    yield message
    except grpc.aio.AioRpcError as error:
        raise as_stretto_error(error) from error
    finally:
        call.cancel()


async def submitted(call: Any, requests: AsyncIterator[bytes]) -> Any:
    """The one reply of a call that takes a stream of serialized messages.

    Raises:
        StrettoError: For every failure of the call.
        Exception: What `requests` raised.
    """
    try:
        return await submit(call, requests)
    except grpc.aio.AioRpcError as error:
        raise as_stretto_error(error) from error


def as_stretto_error(error: grpc.aio.AioRpcError) -> StrettoError:
    """What a failed call means to a client."""
    typed = error_from_rpc(error)
    details = error.details() or "the server gave no details"
    if typed is not None and typed.message.endswith(details):
        return typed  # in the server's own words; where no server answered, `typed` is only a guess
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"The call took longer than its timeout ({details}). Allow more seconds.")
        case grpc.StatusCode.CANCELLED:
            return RequestCancelled(f"The call was cancelled ({details}).")
        case grpc.StatusCode.UNAVAILABLE:
            return Unreachable(f"No server answers ({details}). Check the address and that `stretto serve` runs.")
        case grpc.StatusCode.UNIMPLEMENTED:
            return Unreachable(f"The server does not offer this call ({details}). Address the orchestrator's port.")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return InvalidInput("request", f"expected a smaller message ({details}). Send less in one call.")
        case _:
            return ServerFailure(f"The server failed: {error.code().name}: {details}. Its log has the reason.")
