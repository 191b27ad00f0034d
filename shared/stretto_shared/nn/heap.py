"""Memory that a model needs only while it is loaded goes back to the system: a pod's limit is what it serves with.

glibc keeps freed blocks for later, and the larger they were the larger the ones it keeps: turning 1.6 GB of float32
into integers one matrix at a time left 1.8 GB behind that nobody used. Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_SMALL_BYTES = 256 << 10
_USUAL_BYTES = 32 << 20  # where glibc's own threshold ends up in a process that frees large tensors


def as_single(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as a module of float32 takes them without a copy of those that are: others that float are widened."""
    return {key: each.float() if each.is_floating_point() else each for key, each in tensors.items()}


class _Loading:
    """How many loads go on: the setting is the process's, so the last one to end puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def begin(self, libc: Any) -> None:
        with self._lock:
            self._count += 1
            libc.mallopt(_MMAP_THRESHOLD, _SMALL_BYTES)

    def end(self, libc: Any) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                libc.mallopt(_MMAP_THRESHOLD, _USUAL_BYTES)
                libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL_BYTES)
        libc.malloc_trim(0)


_loading = _Loading()


@contextmanager
def giving_memory_back() -> Iterator[None]:
    """Have the system take every block of 256 KiB or more as soon as it is freed, and at the end what else is free."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt, libc.malloc_trim  # noqa: B018 (AttributeError: another libc under that name)
    except (OSError, AttributeError):
        yield
        return
    _loading.begin(libc)
    try:
        yield
    finally:
        _loading.end(libc)
