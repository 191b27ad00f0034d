"""What the plain stubs of all tests have in common: a call that the server ends keeps the server's own status.

Where a write meets the end of a call, `grpc.aio` puts `INTERNAL: Internal error from Core` in its place by chance
(`stretto_shared.grpc.streams`), the likelier the busier the machine. What a refusal says is then no question of ours.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from grpc import _common
from grpc.aio import _call
from stretto_shared.grpc import streams

if TYPE_CHECKING:
    from stretto_shared.nn.lowbit import NativeKernel

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


@pytest.fixture(scope="session")
def native_kernel(tmp_path_factory: pytest.TempPathFactory) -> NativeKernel:
    """The kernel for integer weights, compiled once; skips only where there can be none."""
    from stretto_shared.nn.lowbit import load_native_kernel  # torch, which most tests do without

    return _kernel(load_native_kernel, tmp_path_factory.mktemp("kernel"), "avx512_vnni")


@pytest.fixture(scope="session")
def bands_kernel(tmp_path_factory: pytest.TempPathFactory) -> NativeKernel:
    """The same kernel where it multiplies bfloat16; skips only where there can be none."""
    from stretto_shared.nn.lowbit import load_bands

    return _kernel(load_bands, tmp_path_factory.mktemp("bands"), "avx512_bf16")


@pytest.fixture(params=[True, False], ids=["tiles", "vectors"])
def either_bands_kernel(bands_kernel: NativeKernel, request: pytest.FixtureRequest) -> Iterator[NativeKernel]:
    """That kernel by AMX tiles, where there are any, and by AVX-512: its two roundings."""
    bands_kernel.use_tiles(request.param)
    if bands_kernel.has_bfloat16_tiles() != request.param:
        pytest.skip("no AMX tiles of bfloat16 here: tested by AVX-512")
    yield bands_kernel
    bands_kernel.use_tiles(True)


def _kernel(load: Callable[[Path], NativeKernel | None], folder: Path, instructions: str) -> NativeKernel:
    found = load(folder)
    if found is None:
        assert not _can_compile_for(instructions), "no kernel in spite of a compiler: see the warning in the log"
        pytest.skip(f"this machine has no compiler, or no {instructions}")
    return found


def _can_compile_for(instructions: str) -> bool:
    from stretto_shared.nn.lowbit.kernel import COMPILERS

    info = Path("/proc/cpuinfo")
    return info.exists() and instructions in info.read_text() and any(map(shutil.which, COMPILERS))
