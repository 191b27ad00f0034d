"""What every client does with a call: read its answer, and raise its failure as the error that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from stretto_shared.errors import InvalidInput, NotFound, NotReady, PermissionDenied, Unauthenticated
from stretto_shared.features import ModelInfo
from stretto_shared.grpc import convert
from stretto_shared.grpc.call import current_call
from stretto_shared.grpc.status import error_from_rpc

STAGE_MISSING = "STAGE_MISSING"
M = TypeVar("M")
T = TypeVar("T")


def remaining_s() -> float | None:
    """The time that the request being served has left for its stages; None without a deadline."""
    served = current_call()
    return None if served is None else served.remaining_s


def unreachable(stage: str) -> NotReady:
    """The error of a stage that nobody answers for: by its name, and not by the address that failed."""
    return NotReady(f"The {stage} service cannot be reached. Try again.", reason="UNREACHABLE")


def shut(stage: str) -> NotReady:
    """The error of a stage that does not answer this server: whoever called here can do nothing about it."""
    return NotReady(
        f"The {stage} service does not answer this server. Its operator has to let it in.", reason="STAGE_SHUT"
    )


def missing(stage: str) -> NotReady:
    """The error of a stage that is not served where this server looks for it, or is older than the call."""
    return NotReady(
        f"No server that answers for the {stage} service has this call. Its operator has to serve it there.",
        reason=STAGE_MISSING,
    )


@contextmanager
def errors_of(stage: str, fields: Mapping[str, str] | None = None) -> Iterator[None]:
    """Raise a failed call as the error that it stands for.

    Args:
        stage: Whom the call went to.
        fields: The stage's name to the client's own, of every field that holds what the client sent. An error in any
            other is the cascade's: its stages do not go together. None leaves names alone.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        known = error_from_rpc(error)
        match known:
            case None if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise missing(stage) from error
            case None:
                raise
            case NotReady(reason="UNREACHABLE"):
                raise unreachable(stage) from error
            case Unauthenticated() | PermissionDenied():
                raise shut(stage) from error
            case InvalidInput() | NotFound() if fields is not None:
                raise _in_clients_words(known, stage, fields) from error
        raise known from error


def _in_clients_words(error: InvalidInput | NotFound, stage: str, fields: Mapping[str, str]) -> InvalidInput | NotFound:
    """The error of a stage with the field that the client knows."""
    for stage_field, field in fields.items():
        rest = error.field.removeprefix(stage_field)
        if error.field.startswith(stage_field) and rest[:1] in ("", ".", "["):
            return type(error)(field + rest, error.description, reason=error.reason)
    description = f"its stages do not go together: {stage} answers '{error.message}' Choose another cascade."
    return type(error)("cascade", description, reason=error.reason)


def read(from_proto: Callable[[M], T], message: M, stage: str) -> T:
    """Read what a stage answered; a malformed answer is the stage's fault, never the client's."""
    try:
        return from_proto(message)
    except InvalidInput as error:
        raise RuntimeError(f"The {stage} stage gave a malformed answer: {error}") from error


def read_model(response: Any, stage: str) -> ModelInfo | None:
    """The model that an answer names, if it does."""
    return read(convert.model_info_from_proto, response.model, stage) if response.HasField("model") else None
