"""`at_once` and `both`: two halves of a network that do not need each other, on two cores.

Small operations gain little from threads of their own; whole branches do. Each half computes what it would alone, with
as many threads inside an operation as the caller has, so no bit depends on it. Only for inference on a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

First = TypeVar("First")
Second = TypeVar("Second")


def at_once(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """What both make of `x`, which neither changes."""
    if not torch.is_inference_mode_enabled() or x.device.type != "cpu":
        return first(x), second(x)
    return both(lambda: first(x), lambda: second(x))


def both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """What both give in inference mode; neither changes what the other reads."""
    begun = _thread().submit(_inferred, first, torch.get_num_threads())
    try:
        of_second = second()
    finally:
        of_first = begun.result()  # nobody leaves while the other still reads what both have
    return of_first, of_second


@functools.cache
def _thread() -> ThreadPoolExecutor:
    """One for the process: a core beside that of the model thread. It has that thread's priority."""
    return ThreadPoolExecutor(1, thread_name_prefix="beside")


def _inferred(work: Callable[[], First], num_threads: int) -> First:
    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)
    with torch.inference_mode():
        return work()
