"""What a service gives to the server that hosts it, and how the installed services are found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import grpc

from stretto_shared.errors import NotFound
from stretto_shared.grpc.call import Layer
from stretto_shared.grpc.metrics import Metrics

ENTRY_POINT_GROUP = "stretto.services"


@dataclass(frozen=True)
class HostContext:
    """What the server tells a service when it builds it.

    Args:
        loopback_address: All-in-one: the address (`unix:...`) of this very server, always insecure. None when the
            service runs alone.
        metrics: The server's metrics registry, for the numbers that only an engine knows.
        log: The server's structlog logger, for what an operator has to know beside the RPCs.
    """

    loopback_address: str | None = None
    metrics: Metrics | None = None
    log: Any = None


@dataclass(frozen=True)
class ServiceHost:
    """One service, ready to be put on a server.

    Args:
        name: The one word, for example `codec`.
        full_name: The service's full name on the wire, for example `stretto.codec.v1.CodecService`.
        add_to_server: Registers the servicer.
        start: Loads the models. Called once the port is bound; the health of `full_name` turns SERVING when it returns.
        stop: Frees everything, after the drain.
        extra_handlers: Further handlers, asked last, for methods that no service on this server has.
        layers: Around every call of the server that hosts this service, those of other services too: so the door
            guards all that stands behind it on its port.
    """

    name: str
    full_name: str
    add_to_server: Callable[[grpc.aio.Server], None]
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]
    extra_handlers: tuple[grpc.GenericRpcHandler, ...] = ()
    layers: tuple[Layer, ...] = ()


BuildService = Callable[[HostContext], ServiceHost]


def load_builders(names: Sequence[str] | None = None) -> dict[str, BuildService]:
    """The `build` functions of installed services, by name.

    Args:
        names: The services wanted; None takes every installed one.

    Returns:
        Name to build function, in the order of `names`, or sorted by name.

    Raises:
        NotFound: If a name is not installed; the message lists those that are.
    """
    installed = {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    wanted = sorted(installed) if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if name not in installed:
            raise NotFound(
                "services",
                f"no service '{name}' is installed; installed are: {', '.join(sorted(installed)) or 'none'}. "
                f"Install stretto-{name}, or name another.",
            )
    return {name: installed[name].load() for name in wanted}
