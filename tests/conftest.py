"""What the plain stubs of all tests have in common: a call that the server ends keeps the server's own status.

Where a write meets the end of a call, `grpc.aio` puts `INTERNAL: Internal error from Core` in its place by chance
(`stretto_shared.grpc.streams`), the likelier the busier the machine. What a refusal says is then no question of ours.
"""

import asyncio
import importlib
import sys
from types import ModuleType

import pytest
from grpc import _common
from grpc.aio import _call
from stretto_shared.grpc import streams

_plain_write = _call._StreamRequestMixin._write


async def _write(self, request):
    if self.done() or self._done_writing_flag:
        return await _plain_write(self, request)
    try:
        is_sent = await streams.write(self, _common.serialize(request, self._request_serializer))
    except asyncio.CancelledError:
        if not self.cancelled():
            self.cancel()
        raise
    if not is_sent:
        await self._raise_for_status()


_call._StreamRequestMixin._write = _write


@pytest.fixture(scope="session")
def partitura() -> ModuleType:
    """The library partitura, kept from the SoundFont that it would download where pyfluidsynth is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "fluidsynth", None)
        return importlib.import_module("partitura")
