"""Which services of a server can work: health for those who watch, and a gate for those who call anyway."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from stretto_shared.errors import NotReady
from stretto_shared.grpc.call import ServedCall

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WHOLE_SERVER = ""
QUIET_S = 0.2
MAX_LINGER_S = 2.0


class EndingHealthServicer(health_aio.HealthServicer):  # type: ignore[misc]  # grpc has no types
    """gRPC's health service, whose watches can be ended: otherwise they would outlast every drain."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = asyncio.Event()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext) -> None:
        """Send the health of one service now and at each change, until `end_watches`."""
        tasks = {asyncio.create_task(super().Watch(request, context)), asyncio.create_task(self._ended.wait())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def end_watches(self) -> None:
        """Let every watch finish with OK."""
        self._ended.set()


class Readiness:
    """The state of each service from `loading` to `serving` or `failed`, and of the server from open to draining."""

    def __init__(self) -> None:
        self.health = EndingHealthServicer()
        self._waiting: dict[str, str] = {}
        self._draining = False
        self._num_in_flight = 0
        self._last_arrival_s = -math.inf
        self._idle = asyncio.Event()
        self._idle.set()

    async def expect(self, full_names: Sequence[str]) -> None:
        """All of these are loading; the server as a whole serves once each of them does."""
        self._waiting = dict.fromkeys(full_names, "is still loading its models. Try again in a moment.")
        for name in (WHOLE_SERVER, *full_names):
            await self.health.set(name, NOT_SERVING)

    async def mark_serving(self, full_name: str) -> None:
        """The service has loaded."""
        del self._waiting[full_name]
        await self.health.set(full_name, SERVING)
        if not self._waiting:
            await self.health.set(WHOLE_SERVER, SERVING)

    def mark_failed(self, full_name: str) -> None:
        """The service could not load; it will never serve."""
        self._waiting[full_name] = "could not load its models. The server's log has the cause."

    async def drain(self, timeout_s: float) -> bool:
        """Turn health to NOT_SERVING, refuse new calls, and wait for those in flight.

        Calls over the loopback still pass: they belong to requests in flight.

        Returns:
            Whether all calls ended in time.
        """
        self._draining = True
        await self.health.enter_graceful_shutdown()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
                await self._until_quiet()
        except TimeoutError:
            pass
        return self._idle.is_set()

    async def _until_quiet(self) -> None:
        """Wait until callers have noticed, so that no call is underway when the port closes.

        gRPC answers a call that it has not begun at that moment with CANCELLED, which no client tries again; the
        gate's UNAVAILABLE is tried again.
        """
        give_up_s = time.monotonic() + MAX_LINGER_S
        # not polling: each sleep lasts until the silence would be long enough
        while (wait_s := min(self._last_arrival_s + QUIET_S, give_up_s) - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def gate(self, call: ServedCall) -> AsyncIterator[None]:
        """The layer that refuses calls which cannot be served now."""
        if not call.is_infrastructure:
            if self._draining and not call.is_loopback:
                raise NotReady("The server is stopping. Try again: another one may answer.", reason="DRAINING")
            if call.service in self._waiting:
                raise NotReady(f"{call.service} {self._waiting[call.service]}", reason="LOADING")
        yield

    @asynccontextmanager
    async def in_flight(self, call: ServedCall) -> AsyncIterator[None]:
        """The layer that counts the calls which a drain waits for."""
        if call.is_infrastructure:
            yield
            return
        self._last_arrival_s = time.monotonic()
        self._num_in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._num_in_flight -= 1
            if self._num_in_flight == 0:
                self._idle.set()
