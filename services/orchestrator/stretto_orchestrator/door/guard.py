"""`Guard`: the layer that every call from outside goes through before any work is done for it.

It asks for a key where a file of keys is set, knows callers by their certificates otherwise, and holds each to its
limits. Health is for all, since who probes and who balances has no key. Reflection and channelz need a key, but are not
counted. Calls over the loopback are this server's own and belong to a request that has passed.

What is refused is UNAUTHENTICATED (no key, an unknown one, one that has ended), PERMISSION_DENIED (a service that the
key is not for) or RESOURCE_EXHAUSTED with a retry time. Of keys that are unknown nothing is told or written, not even
how they differ.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from stretto_shared.errors import PermissionDenied, StrettoError, Unauthenticated
from stretto_shared.grpc.api_keys import shown_key
from stretto_shared.grpc.call import ServedCall
from stretto_shared.grpc.metrics import Metrics
from stretto_shared.grpc.tls import HEALTH, peer_names

from stretto_orchestrator.door.keys import Caller, KeyFile
from stretto_orchestrator.door.limits import Limits, Meter

ANYBODY = "anybody"
MAX_METERS = 10_000  # of certificates: their authority decides how many names there are


class Guard:
    """Knows callers, and counts what they do.

    Args:
        keys: Who is known by a key; None asks nobody for one.
        defaults: The limits of callers without a key.
        metrics: Where refusals are counted.
    """

    def __init__(self, keys: KeyFile | None, defaults: Limits, metrics: Metrics) -> None:
        self._keys = keys
        self._defaults = defaults
        self._meters: dict[str, Meter] = {}
        self._refusals = metrics.counter("stretto_door_refusals", "Calls that the door refused, by reason", ("reason",))

    @asynccontextmanager
    async def around(self, call: ServedCall) -> AsyncIterator[None]:
        """The layer."""
        if call.is_loopback or call.service == HEALTH:
            yield
            return
        with ExitStack() as request:
            with self._counting():
                caller = self._known(call)
                call.caller = caller.name
                _check_service(caller, call)
                if not call.is_infrastructure:
                    request.enter_context(self._meter(caller).admitted())
            call.max_request_bytes = caller.limits.request_bytes or None
            yield

    @contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except StrettoError as error:
            self._refusals.labels(error.reason).inc()
            raise

    def _known(self, call: ServedCall) -> Caller:
        """Who calls.

        Raises:
            Unauthenticated: If a key is needed, and there is none that is known and has not ended.
        """
        if self._keys is None:
            names = peer_names(call)
            return Caller(names[0] if names else ANYBODY, self._defaults)
        key = shown_key(call.metadata)
        if not key:
            raise Unauthenticated(
                "This server asks for an API key. Send it as metadata 'authorization: Bearer KEY', or set "
                "STRETTO_CHANNEL_API_KEY.",
                reason="API_KEY_MISSING",
            )
        caller = self._keys.caller_of(key)
        if caller is None:
            raise Unauthenticated("The API key is not known here. Ask the operator for one.", reason="API_KEY_UNKNOWN")
        if caller.has_expired():
            raise Unauthenticated(
                f"The API key of '{caller.name}' has ended. Ask the operator for a new one.", reason="API_KEY_EXPIRED"
            )
        return caller

    def _meter(self, caller: Caller) -> Meter:
        meter = self._meters.get(caller.name)
        if meter is None:
            if len(self._meters) >= MAX_METERS:
                self._meters = {name: kept for name, kept in self._meters.items() if kept.num_in_flight}
            meter = self._meters[caller.name] = Meter(caller.limits)
        meter.limits = caller.limits  # those of the file as it is now
        return meter


def _check_service(caller: Caller, call: ServedCall) -> None:
    if caller.services is None or call.is_infrastructure:
        return
    word = call.service.split(".")[1] if call.service.startswith("stretto.") else call.service
    if word not in caller.services:
        raise PermissionDenied(
            f"The API key of '{caller.name}' is for {', '.join(sorted(caller.services)) or 'no service'}, and not for "
            f"{word}. Ask the operator for another.",
            reason="SERVICE_NOT_ALLOWED",
        )
