"""Errors that only a client meets, beside those of `stretto_shared.errors`: all are `StrettoError`s."""

from __future__ import annotations

from stretto_shared.errors import NotReady, StrettoError


class DeadlineExceeded(StrettoError):
    """The call's timeout passed before the server was done. The server has stopped working on it."""

    reason = "DEADLINE_EXCEEDED"


class RequestCancelled(StrettoError):
    """The server, or something between, cancelled the call."""

    reason = "CANCELLED"


class Unreachable(NotReady):
    """No server answered at the address, or the connection was lost."""

    reason = "UNREACHABLE"


class ServerFailure(StrettoError):
    """The server failed in a way that it did not foresee; its log has the reason."""

    reason = "SERVER_FAILURE"
