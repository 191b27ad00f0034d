"""A channel that takes up renewed certificates while calls run.

gRPC fixes a channel's certificate when it is opened. So a second channel is opened with the new one, and calls move to
it once it is connected, or once the first no longer is: where the servers have not yet their part of the rotation, the
connection that stands goes on serving. The first is closed when its last call has ended; none is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from stretto_shared.grpc.certificates import Certificates, WatchedCertificates

_OUT_OF_USE = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.TRANSIENT_FAILURE)


@dataclass(eq=False)
class _Opened:
    """One of the channels, and how many calls it has."""

    channel: grpc.aio.Channel
    num_calls: int = 0
    is_retired: bool = False


class RenewedChannel(grpc.aio.Channel):  # type: ignore[misc]  # grpc has no types
    """A channel to the servers that `open_one` knows, always with certificates that were whole.

    Args:
        watched: The certificates.
        open_one: Opens a channel with them.
    """

    def __init__(self, watched: WatchedCertificates, open_one: Callable[[Certificates], grpc.aio.Channel]) -> None:
        self._watched, self._open_one = watched, open_one
        self._wanted = watched.latest()
        self._current = _Opened(open_one(self._wanted))
        self._next: _Opened | None = None
        self._retired: set[_Opened] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel`."""
        return self._renewed("unary_unary", args, kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel`."""
        return self._renewed("unary_stream", args, kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel`."""
        return self._renewed("stream_unary", args, kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel`."""
        return self._renewed("stream_stream", args, kwargs)

    async def close(self, grace: float | None = None) -> None:
        """See `grpc.aio.Channel`."""
        opened = [self._current, *self._retired, *([] if self._next is None else [self._next])]
        await asyncio.gather(*(each.channel.close(grace) for each in opened), *self._closing)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See `grpc.aio.Channel`."""
        return self._newest().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See `grpc.aio.Channel`."""
        await self._newest().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See `grpc.aio.Channel`."""
        await self._newest().channel.channel_ready()

    async def __aenter__(self) -> RenewedChannel:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _renewed(self, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any]:
        """A method of whichever channel is in use when it is called."""
        made: tuple[_Opened, Callable[..., Any]] | None = None

        def start(*call_args: Any, **call_kwargs: Any) -> Any:
            nonlocal made
            opened = self._newest()
            if made is None or made[0] is not opened:
                made = opened, getattr(opened.channel, kind)(*args, **kwargs)
            call = made[1](*call_args, **call_kwargs)
            opened.num_calls += 1
            call.add_done_callback(lambda _: self._ended(opened))
            return call

        return start

    def _newest(self) -> _Opened:
        """The channel for the next call."""
        latest = self._watched.latest()
        if latest is not self._wanted:
            if self._next is not None:
                self._retire(self._next)
            self._wanted, self._next = latest, _Opened(self._open_one(latest))
        if self._next is not None:
            is_connected = self._next.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY
            if is_connected or self._current.channel.get_state() in _OUT_OF_USE:
                self._retire(self._current)
                self._current, self._next = self._next, None
        return self._current

    def _retire(self, opened: _Opened) -> None:
        opened.is_retired = True
        self._retired.add(opened)
        self._close_unused(opened)

    def _ended(self, opened: _Opened) -> None:
        opened.num_calls -= 1
        self._close_unused(opened)

    def _close_unused(self, opened: _Opened) -> None:
        if opened.is_retired and not opened.num_calls and opened in self._retired:
            self._retired.remove(opened)
            closing = asyncio.ensure_future(opened.channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
