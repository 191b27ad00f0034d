"""Writing to a bidirectional call that the server may end first.

When a write fails because the call has just ended, `grpc.aio` replaces the status that the server sent by
`INTERNAL: Internal error from Core` (https://github.com/grpc/grpc/issues/36066, open in 1.85), so that a typed refusal
would be lost by chance. `write` leaves the status alone; it reaches below `call.write` for that.
"""

from __future__ import annotations

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
