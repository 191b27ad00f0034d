"""Memory that loading frees is the system's again, and loads that overlap do not end each other's setting."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest
import torch
from stretto_shared.nn import heap
from stretto_shared.nn.heap import as_single, giving_memory_back


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
