"""The one table between Stretto's errors and gRPC's: `StrettoError` to `google.rpc.Status`, and back.

| error | code | details |
|---|---|---|
| `InvalidInput` | INVALID_ARGUMENT | BadRequest with the field, ErrorInfo |
| `NotFound` | NOT_FOUND | ErrorInfo |
| `NotReady` | UNAVAILABLE | ErrorInfo |
| `Overloaded` | RESOURCE_EXHAUSTED | RetryInfo, ErrorInfo |
| `Conflict` | FAILED_PRECONDITION | ErrorInfo |
| `Unauthenticated` | UNAUTHENTICATED | ErrorInfo |
| `PermissionDenied` | PERMISSION_DENIED | ErrorInfo |
| anything else | INTERNAL | ErrorInfo with the request id; the traceback goes to the log only |
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from stretto_shared.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
    StrettoError,
    Unauthenticated,
)
from stretto_shared.grpc.call import REQUEST_ID_KEY, Layer, PeerGone, ServedCall

ERROR_DOMAIN = "stretto.dev"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
MAX_MESSAGE_BYTES = 1_000  # the message travels thrice in trailers, whose sum gRPC limits to 8 KiB
DEFAULT_RETRY_AFTER_S = 1.0
DEADLINE_TOLERANCE_S = 0.05

_CODES: dict[type[StrettoError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
}
_OF_REASON_ALONE: dict[grpc.StatusCode, type[StrettoError]] = {
    code: kind for kind, code in _CODES.items() if kind not in (InvalidInput, NotFound, Overloaded)
}
_PASSED_ON = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "The deadline passed while another service worked on this request.",
    grpc.StatusCode.CANCELLED: "Another service cancelled its part of this request.",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "Another service refused its part of this request: a message is too large.",
}


class DeadlineExpired(Exception):
    """The server's own default deadline passed."""


def code_of(error: StrettoError) -> grpc.StatusCode:
    """The status code of a deliberate error; INTERNAL for a class without a row in the table."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def status_from_error(error: StrettoError) -> status_pb2.Status:
    """The error as `google.rpc.Status`, its details most specific first."""
    message = _shortened(error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN)
    details: list[Message] = []
    match error:
        case InvalidInput():
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=error.field, description=_shortened(error.description), reason=error.reason
            )
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
            info.metadata["field"] = error.field
        case NotFound():
            info.metadata["field"] = error.field
        case Overloaded():
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(error.retry_after_s * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    details.append(info)
    return status_pb2.Status(code=code_of(error).value[0], message=message, details=[_packed(d) for d in details])


def error_from_rpc(error: grpc.aio.AioRpcError) -> StrettoError | None:
    """The deliberate error that a failed call stands for.

    Returns:
        The error, with the field, reason and retry time that the server sent; for UNAVAILABLE without details
        (nobody there), `NotReady`; None for everything that is not one of ours.
    """
    code, details = error.code(), _details(error)
    info = details.get(error_details_pb2.ErrorInfo)
    if info is None or info.domain != ERROR_DOMAIN:
        if code is grpc.StatusCode.UNAVAILABLE:
            return NotReady("A service that this request needs cannot be reached. Try again.", reason="UNREACHABLE")
        return None
    message, reason, field = error.details() or "", info.reason, info.metadata.get("field", "")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidInput(field, message.removeprefix(f"{field}: "), reason=reason)
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFound(field, message.removeprefix(f"{field}: "), reason=reason)
    if code in _OF_REASON_ALONE:
        return _OF_REASON_ALONE[code](message, reason=reason)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        retry = details.get(error_details_pb2.RetryInfo)
        retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9 if retry is not None else DEFAULT_RETRY_AFTER_S
        return Overloaded(message, retry_after_s=retry_after_s, reason=reason)
    return None


def typed_errors(log: Any) -> Layer:
    """The layer that answers every exception of a handler by the table above, and notes the code of the RPC.

    Failed calls to other services pass on what they say: the typed error, or that the deadline passed.

    Args:
        log: Where tracebacks of unexpected errors go, a structlog logger.
    """

    @asynccontextmanager
    async def answer(call: ServedCall) -> AsyncIterator[None]:
        call.context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        try:
            yield
        except StrettoError as error:
            await _abort_typed(call, error, log)
        except grpc.aio.AioRpcError as error:
            await _abort_for_failed_call(call, error, log)
        except DeadlineExpired:
            call.code = grpc.StatusCode.DEADLINE_EXCEEDED
            await call.context.abort(call.code, "The server's default deadline passed. Send a longer one.")
        except grpc.aio.AbortError:
            call.code = _code_in(call.context)
            raise
        except asyncio.CancelledError:
            call.code = _code_of_cancellation(call)
            raise
        except PeerGone as error:
            call.code = _code_of_cancellation(call)
            raise asyncio.CancelledError from error
        except Exception as error:
            await _abort_internal(call, error, log)
        else:
            call.code = _code_in(call.context)

    return answer


async def _abort_typed(call: ServedCall, error: StrettoError, log: Any) -> None:
    if code_of(error) is grpc.StatusCode.INTERNAL:
        await _abort_internal(call, error, log)
    await _abort(call, status_from_error(error), error.reason)


async def _abort_for_failed_call(call: ServedCall, error: grpc.aio.AioRpcError, log: Any) -> None:
    typed = error_from_rpc(error)
    if typed is not None:
        await _abort(call, status_from_error(typed), typed.reason)
    elif error.code() in _PASSED_ON:
        call.code = error.code()
        await call.context.abort(call.code, _PASSED_ON[call.code])
    await _abort_internal(call, error, log)


async def _abort_internal(call: ServedCall, error: Exception, log: Any) -> NoReturn:
    log.error("rpc_crashed", method=call.method, request_id=call.request_id, exc_info=error)
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN)
    info.metadata["request_id"] = call.request_id
    status = status_pb2.Status(
        code=grpc.StatusCode.INTERNAL.value[0],
        message=f"The server failed. Its log has the cause under request id {call.request_id}.",
        details=[_packed(info)],
    )
    await _abort(call, status, "INTERNAL")


async def _abort(call: ServedCall, status: status_pb2.Status, reason: str) -> NoReturn:
    call.code, call.reason = _code(status.code), reason
    trailers = ((STATUS_DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, call.request_id))
    await call.context.abort(call.code, status.message, trailers)
    raise AssertionError("abort always raises")


def _details(error: grpc.aio.AioRpcError) -> dict[type[Message], Any]:
    """The known details of a failed call, by class; empty when there are none or they do not parse."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY:
            try:
                packed = status_pb2.Status.FromString(value).details
            except DecodeError:
                return {}
            return {kind: found for kind in _DETAILS for found in _unpacked(packed, kind)}
    return {}


_DETAILS: tuple[type[Message], ...] = (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo)


def _unpacked(packed: Any, kind: type[Message]) -> list[Message]:
    found = []
    for item in packed:
        message = kind()
        if item.Unpack(message):
            found.append(message)
    return found


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def _code_of_cancellation(call: ServedCall) -> grpc.StatusCode:
    """Why gRPC stopped the handler.

    The caller's timer fires a little before ours, which began when the request arrived, and whose length the wire
    rounds up.
    """
    late = call.remaining_s is not None and call.remaining_s < DEADLINE_TOLERANCE_S + 0.02 * call.elapsed_s
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


def _code_in(context: grpc.aio.ServicerContext) -> grpc.StatusCode:
    """The code that a handler set by itself; gRPC gives it as a number or as a `StatusCode`."""
    code = context.code()
    return code if isinstance(code, grpc.StatusCode) else _code(int(code or 0))


def _shortened(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= MAX_MESSAGE_BYTES else encoded[: MAX_MESSAGE_BYTES - 3].decode(errors="ignore") + "…"
