"""Structured logs: one line for each RPC. Never a prompt, never audio: only what the RPC is, not what it says."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TextIO

import grpc
import structlog

from stretto_shared.grpc.call import Layer, ServedCall
from stretto_shared.grpc.tracing import trace_ids

_SERVER_FAULTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})


def make_logger(level: str, *, as_json: bool, stream: TextIO | None = None) -> Any:
    """A structlog logger of its own, without touching any global configuration.

    Tracebacks are written without local variables, which hold prompts and audio.

    Args:
        level: The least severe level written: `debug`, `info`, `warning` or `error`.
        as_json: One JSON object a line instead of console text.
        stream: Where lines go; None is standard error.
    """
    renderer: Any
    if as_json:
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    else:
        renderer = [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
    return structlog.wrap_logger(
        structlog.PrintLogger(stream if stream is not None else sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )


def rpc_logs(log: Any) -> Layer:
    """The layer that writes one line when an RPC ends: errors of ours as `error`, gRPC's own services as `debug`."""

    @asynccontextmanager
    async def around(call: ServedCall) -> AsyncIterator[None]:
        deadline_s = call.remaining_s
        try:
            yield
        finally:
            if call.code in _SERVER_FAULTS:
                write = log.error
            else:
                write = log.debug if call.is_infrastructure else log.info
            write(
                "rpc",
                method=call.method,
                code=call.code.name,
                latency_s=round(call.elapsed_s, 6),
                peer=call.context.peer(),
                request_id=call.request_id,
                **trace_ids(),
                **({"caller": call.caller} if call.caller else {}),
                responses=call.num_responses,
                **({} if deadline_s is None else {"deadline_s": round(deadline_s, 3)}),
                **({"reason": call.reason} if call.reason else {}),
            )

    return around
