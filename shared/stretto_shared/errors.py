"""The errors that domain code may raise, each with what a caller needs to act on it.

`stretto_shared.grpc.status` maps each class to one gRPC status; nothing else crosses the wire with a message. A
message says what was expected, what came, and what to do.
"""

from __future__ import annotations


class StrettoError(Exception):
    """A deliberate error; `reason` is a stable UPPER_SNAKE word for programs, the message is for people."""

    reason: str = "STRETTO_ERROR"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason


class InvalidInput(StrettoError):
    """The request can never work as it is. `field` is the path of the offending field, as in `sampling.top_p`."""

    reason = "INVALID_INPUT"

    def __init__(self, field: str, message: str, *, reason: str | None = None) -> None:
        super().__init__(f"{field}: {message}", reason=reason)
        self.field = field
        self.description = message


class NotFound(StrettoError):
    """The request names something that this server does not have."""

    reason = "NOT_FOUND"

    def __init__(self, field: str, message: str, *, reason: str | None = None) -> None:
        super().__init__(f"{field}: {message}", reason=reason)
        self.field = field
        self.description = message


class NotReady(StrettoError):
    """The server, or one that it needs, cannot work yet or any more; a retry may meet one that can."""

    reason = "NOT_READY"


class Unauthenticated(StrettoError):
    """Who calls has not shown a key that this server knows."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(StrettoError):
    """Who calls is known, and may not call this."""

    reason = "PERMISSION_DENIED"


class Overloaded(StrettoError):
    """The queue is full. `retry_after_s` is the server's own estimate of when there will be room."""

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after_s: float, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class Conflict(StrettoError):
    """The request contradicts the present state, or what the caller sent before on the same stream."""

    reason = "CONFLICT"
