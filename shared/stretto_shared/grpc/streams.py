"""Sending and receiving at once in a call that takes a stream, and writing to one that the server may end first.

When a write fails because the call has just ended, `grpc.aio` replaces the status that the server sent by
`INTERNAL: Internal error from Core` (https://github.com/grpc/grpc/issues/36066, open in 1.85), so that a typed refusal
would be lost by chance. `write` leaves the status alone; it reaches below `call.write` for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
from grpc._cython import cygrpc


async def write(call: Any, message: bytes) -> bool:
    """Send one serialized message.

    Args:
        call: A call of a `grpc.aio` stub with a request stream, which is read elsewhere.
        message: What travels, as `SerializeToString` gives it.

    Returns:
        False if the call has ended; reading it tells why.
    """
    if call.done():
        return False
    try:
        await call.wait_for_connection()
        await call._cython_call.send_serialized_message(message)
    except (grpc.aio.AioRpcError, cygrpc.InternalError):
        return False
    return True


async def exchange(call: Any, requests: AsyncIterator[bytes]) -> AsyncGenerator[Any, None]:
    """The responses of a call while the requests, which are serialized messages, are written beside.

    Closing this iterator cancels the call. The requests stay their owner's to close.

    Raises:
        AioRpcError: If the call fails, with the server's own status.
        Exception: What `requests` raised, which cancels the call.
    """
    sender = asyncio.create_task(_send(call, requests))
    try:
        async for response in call:
            yield response
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if sender.done() and not sender.cancelled() and not (task and task.cancelling()):
            sender.result()
        raise
    finally:
        call.cancel()
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)


async def _send(call: Any, requests: AsyncIterator[bytes]) -> None:
    """Write every request; when the server ends the call first, its own status says why."""
    try:
        async for request in requests:
            if not await write(call, request):
                return
        await call.done_writing()
    except Exception:
        call.cancel()
        raise


async def submit(call: Any, requests: AsyncIterator[bytes]) -> Any:
    """The one response of a call that takes a stream of requests, which are serialized messages.

    The requests stay their owner's to close; a call that answers or fails before they end takes no more of them.

    Raises:
        AioRpcError: If the call fails, with the server's own status.
        Exception: What `requests` raised, which cancels the call.
    """
    sender = asyncio.create_task(_send(call, requests))
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if sender.done() and not sender.cancelled() and not (task and task.cancelling()):
            sender.result()
        raise
    finally:
        call.cancel()
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
