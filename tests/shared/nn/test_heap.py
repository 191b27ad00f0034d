"""Memory that loading frees is the system's again, and loads that overlap do not end each other's setting."""

from __future__ import annotations

import ctypes
import os
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stretto_shared.nn import heap
from stretto_shared.nn.heap import (
    HugePages,
    SpareRoom,
    as_single,
    giving_memory_back,
    on_huge_pages,
    page_out,
    zeros_on_huge_pages,
)


class FakeLibc:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.thresholds: list[int] = []
        self.num_trims = 0

    def mallopt(self, parameter: int, value: int) -> None:
        if parameter == heap._MMAP_THRESHOLD:
            self.thresholds.append(value)

    def malloc_trim(self, padding: int) -> None:
        self.num_trims += 1


def test_the_last_of_overlapping_loads_puts_the_setting_back(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = FakeLibc()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    first, second = giving_memory_back(), giving_memory_back()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert heap._USUAL_BYTES not in libc.thresholds and libc.num_trims == 1
    second.__exit__(None, None, None)
    assert libc.thresholds[-1] == heap._USUAL_BYTES and libc.num_trims == 2


def test_a_load_that_fails_puts_the_setting_back(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = FakeLibc()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    with pytest.raises(RuntimeError), giving_memory_back():
        raise RuntimeError
    assert libc.thresholds[-1] == heap._USUAL_BYTES


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def missing(name: str) -> Any:
        raise error(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with giving_memory_back():
        ran = True
    assert ran


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_the_real_libc_takes_the_settings() -> None:
    with giving_memory_back():
        assert ctypes.CDLL("libc.so.6").mallopt(heap._MMAP_THRESHOLD, heap._SMALL_BYTES) == 1


def test_tensors_of_fewer_bits_are_widened_and_the_others_not_copied() -> None:
    given = {
        "half": torch.ones(2, dtype=torch.float16),
        "single": torch.ones(2),
        "count": torch.ones(2, dtype=torch.int64),
    }
    found = as_single(given)
    assert found["half"].dtype == torch.float32
    assert found["single"] is given["single"] and found["count"] is given["count"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which pages are resident")
def test_pages_of_a_checkpoint_that_were_read_are_given_back_and_still_read_the_same(tmp_path: Path) -> None:
    written = torch.randn(512, 1024)
    save_file({"weight": written}, tmp_path / "model.safetensors")
    with (tmp_path / "model.safetensors").open("rb") as file:
        os.fsync(file.fileno())  # a page that is not on the disk yet cannot be dropped
    tensor = load_file(tmp_path / "model.safetensors")["weight"]
    total = tensor.sum()
    read_bytes = resident_bytes("model.safetensors")
    for _ in range(100):  # the system drops no page that another of its own lists still holds
        page_out([tensor])
        if resident_bytes("model.safetensors") < read_bytes / 4:
            break
        time.sleep(0.02)
    assert resident_bytes("model.safetensors") < read_bytes / 4
    assert tensor.sum() == total and torch.equal(tensor, written)


def test_tensors_of_no_file_keep_their_values_when_paged_out() -> None:
    tensor, odd = torch.arange(1 << 20), torch.arange(1 << 20)[::2]
    page_out([tensor, odd, torch.zeros(0), torch.ones(3)])
    assert torch.equal(tensor, torch.arange(1 << 20)) and odd[-1] == (1 << 20) - 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what was asked of it")
def test_huge_pages_are_asked_for_what_is_read_over_and_over() -> None:
    tensor = zeros_on_huge_pages((3, 4 << 20), torch.uint8)
    assert tensor.shape == (3, 4 << 20) and tensor.dtype == torch.uint8 and not tensor.any()
    assert "hg" in flags_at(tensor.data_ptr() + (6 << 20))
    assert "hg" not in flags_at(torch.zeros(12 << 20, dtype=torch.uint8).data_ptr() + (6 << 20))


def test_zeros_are_zeros_where_no_huge_pages_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert torch.equal(zeros_on_huge_pages((5,), torch.float32), torch.zeros(5))


def test_copies_lie_one_after_another_on_huge_pages() -> None:
    tensors = [torch.arange(700_000), torch.ones(3, 5, dtype=torch.uint8), torch.randn(4, 9).t()]
    pages = HugePages(sum(map(HugePages.size, tensors)))
    copies = [pages.copy(tensor) for tensor in tensors]
    assert all(torch.equal(copy, tensor) and copy.is_contiguous() for copy, tensor in zip(copies, tensors, strict=True))
    addresses = [copy.data_ptr() for copy in copies]
    assert addresses[0] % (2 << 20) == 0
    assert addresses[1:] == [addresses[0] + 5_600_000, addresses[0] + 5_600_064]
    if sys.platform == "linux":
        assert "hg" in flags_at(addresses[0] + (1 << 20))
    with pytest.raises(ValueError, match="at most 0 more bytes"):
        pages.copy(torch.ones(1))


def test_a_large_tensor_alone_goes_to_huge_pages_and_a_small_one_stays() -> None:
    large, small = torch.randn(1200, 1000).t(), torch.randn(30, 40).t()
    copies = [on_huge_pages(tensor) for tensor in (large, small)]
    assert all(torch.equal(*pair) for pair in zip(copies, (large, small), strict=True))
    assert all(copy.is_contiguous() for copy in copies)
    assert copies[0].data_ptr() % (2 << 20) == 0
    assert on_huge_pages(copies[1]).data_ptr() == copies[1].data_ptr()


def flags_at(address: int) -> list[str]:
    """What the system notes of the mapping around an address."""
    is_around = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            low, high = (int(end, 16) for end in first.split("-"))
            is_around = low <= address < high
        elif is_around and first == "VmFlags:":
            return rest
    raise LookupError(f"nothing lies at {address:#x}")


def resident_bytes(file_name: str) -> int:
    """Of this process' mappings of a file."""
    total, is_of_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            is_of_file = bool(rest) and rest[-1].endswith(file_name)
        elif is_of_file and first == "Rss:":
            total += 1024 * int(rest[0])
    return total


def test_room_that_comes_back_is_lent_again_as_zeros() -> None:
    room = SpareRoom(10_000)
    first = room.zeros(3_000)
    address = first.data_ptr()
    first.fill_(7)
    other = room.zeros(3_000)
    assert other.data_ptr() != address and not other.any()
    room.give_back(first)
    del first
    again = room.zeros(3_000)
    assert again.data_ptr() == address and not again.any() and room.num_bytes == 6_000


def test_no_more_room_is_kept_than_allowed_and_the_oldest_goes_first() -> None:
    room = SpareRoom(10_000)
    several = [room.zeros(size) for size in (2_000, 3_000, 4_000)]
    addresses = [each.data_ptr() for each in several]
    for each in several:
        room.give_back(each)
    del several, each
    assert room.num_bytes == 9_000
    held = room.zeros(4_500)
    assert room.num_bytes == 8_500, "4,500 lent, 4,000 kept; 2,000 and 3,000 had to go"
    assert room.zeros(4_000).data_ptr() == addresses[2]
    room.give_back(held)


def test_no_room_is_held_where_none_may_be_kept() -> None:
    room = SpareRoom(0)
    lent = room.zeros(5)
    assert lent.tolist() == [0] * 5 and room.num_bytes == 5
    held = weakref.ref(lent)
    room.give_back(lent)
    del lent
    assert held() is None and room.num_bytes == 0


def test_what_is_lent_may_be_more_than_what_is_kept() -> None:
    room = SpareRoom(1_000)
    several = [room.zeros(800) for _ in range(3)]
    assert room.num_bytes == 2_400
    for each in several:
        room.give_back(each)
    del several, each
    assert room.num_bytes == 800
