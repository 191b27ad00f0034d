"""Memory that a model needs only while it is loaded goes back to the system: a pod's limit is what it serves with.

A checkpoint's tensors lie in the file's own pages, and a page that was read once counts until the system wants it back.

glibc keeps freed blocks for later, and the larger they were the larger the ones it keeps: turning 1.6 GB of float32
into integers one matrix at a time left 1.8 GB behind that nobody used. Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_PAGE_OUT, _HUGE_PAGE = 21, 14  # MADV_PAGEOUT and MADV_HUGEPAGE of madvise(2)
_HUGE_PAGE_BYTES = 2 << 20
_SMALL_BYTES = 256 << 10
_USUAL_BYTES = 32 << 20  # where glibc's own threshold ends up in a process that frees large tensors


def as_single(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as a module of float32 takes them without a copy of those that are: others that float are widened."""
    return {key: each.float() if each.is_floating_point() else each for key, each in tensors.items()}


def page_out(tensors: Iterable[Tensor]) -> None:
    """Have the system drop the pages of tensors on the CPU that will hardly be read again.

    Nothing is lost: pages of a file are read from it again, others stay or go to swap. Where the system cannot, nothing
    is done.
    """
    for tensor in tensors:
        _advise(tensor, _PAGE_OUT)


def zeros_on_huge_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros on the CPU, on pages of 2 MiB where the system gives such to those who ask: for what is read over and over.

    The processor looks up where a page lies for every page that it comes to, and asks ahead within one only.
    """
    tensor = torch.empty(shape, dtype=dtype)
    _advise(tensor, _HUGE_PAGE)  # before anything is written: a page that is there stays as small as it is
    return tensor.zero_()


class SpareRoom:
    """Zeros on huge pages, made of what was given back where it has the size.

    The system may take many times as long to find a page as it takes to zero one that is there, above all a virtual
    machine's, whose host has to find it too: room of 28 MB took 40 ms and takes 1 (by hand).

    Args:
        most_bytes: What is lent and what is kept for later may take together; of what goes beyond, the oldest goes
            back to the system when room is asked for next. 0 keeps nothing.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lent_bytes = 0
        self._spare: list[Tensor] = []
        self._returned: deque[tuple[int, Tensor | None]] = deque()

    @property
    def num_bytes(self) -> int:
        """What is lent and what is kept."""
        self._take_back()
        return self._lent_bytes + sum(room.nbytes for room in self._spare)

    def zeros(self, num_bytes: int) -> Tensor:
        """Bytes [num_bytes]; for one thread."""
        self._take_back()
        found = next((place for place, room in enumerate(self._spare) if room.nbytes == num_bytes), None)
        room = self._spare.pop(found) if found is not None else None
        self._drop_what_goes_beyond(num_bytes)
        room = zeros_on_huge_pages((num_bytes,), torch.uint8) if room is None else room.zero_()
        self._lent_bytes += num_bytes
        return room

    def give_back(self, room: Tensor) -> None:
        """Take what `zeros` gave; from any thread, also while another call is under way."""
        self._returned.append((room.nbytes, room if room.nbytes <= self._most_bytes else None))

    def _take_back(self) -> None:
        while self._returned:
            num_bytes, room = self._returned.popleft()
            self._lent_bytes -= num_bytes
            self._spare += [] if room is None else [room]
        self._drop_what_goes_beyond(0)

    def _drop_what_goes_beyond(self, wanted_bytes: int) -> None:
        taken_bytes = self._lent_bytes + wanted_bytes
        while self._spare and taken_bytes + sum(room.nbytes for room in self._spare) > self._most_bytes:
            del self._spare[0]


class HugePages:
    """Room on pages of 2 MiB, where the system gives such, for tensors on the CPU that are read one after another.

    A page is taken when something is first copied to it, so who copies and frees in turn holds little twice.

    Args:
        num_bytes: Of all copies together, each rounded up to `ALIGNMENT`.
    """

    ALIGNMENT = 64

    def __init__(self, num_bytes: int) -> None:
        room = torch.empty(num_bytes + _HUGE_PAGE_BYTES, dtype=torch.uint8)
        _advise(room, _HUGE_PAGE)
        first = -room.data_ptr() % _HUGE_PAGE_BYTES
        self._room = room[first : first + num_bytes]
        self._num_used = 0

    @classmethod
    def size(cls, tensor: Tensor) -> int:
        """Bytes that a copy takes."""
        return -(-tensor.nbytes // cls.ALIGNMENT) * cls.ALIGNMENT

    def copy(self, tensor: Tensor) -> Tensor:
        """The same numbers in the next place.

        Raises:
            ValueError: If there is no room for them.
        """
        first, last = self._num_used, self._num_used + tensor.nbytes
        if last > self._room.numel():
            raise ValueError(f"expected at most {self._room.numel() - first} more bytes, got {tensor.nbytes}.")
        self._num_used += self.size(tensor)
        return self._room[first:last].view(tensor.dtype).view(tensor.shape).copy_(tensor)


def on_huge_pages(tensor: Tensor) -> Tensor:
    """A copy of a large tensor on huge pages, contiguous; a small one, which they would not serve, as it is."""
    if tensor.nbytes < 2 * _HUGE_PAGE_BYTES:
        return tensor.contiguous()
    return HugePages(HugePages.size(tensor)).copy(tensor)


def _advise(tensor: Tensor, advice: int) -> None:
    """Advise the system on the whole pages of a tensor; nothing is done where it takes no advice."""
    try:
        madvise = ctypes.CDLL("libc.so.6").madvise
    except (OSError, AttributeError):
        return
    first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if tensor.device.type == "cpu" and tensor.is_contiguous() and last > first:
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)


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
