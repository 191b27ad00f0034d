"""Data-parallel workers of one training run, one process each.

A process with one thread on a core of its own uses a small machine better than one process with many threads.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor

T = TypeVar("T")


class Workers:
    """This process among those that train one model; every worker must make the same calls in the same order."""

    def __init__(self, rank: int = 0, count: int = 1, meeting: Path | None = None) -> None:
        self.rank, self.count = rank, count
        if count > 1:
            dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
            if hasattr(os, "sched_setaffinity"):  # only Linux has it; elsewhere the system places the workers
                cores = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, {cores[rank % len(cores)]})

    @property
    def is_first(self) -> bool:
        """Whether this one logs, validates and writes."""
        return self.rank == 0

    def agree(self, value: float) -> float:
        """What the first worker says."""
        if self.count == 1:
            return value
        said = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(said, 0)
        return float(said)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their means over the workers, in place."""
        if self.count == 1:
            return
        own = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in own])
        dist.all_reduce(flat)
        flat /= self.count
        for tensor, part in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def share(self, items: Sequence[T], rank: int | None = None) -> list[T]:
        """The items that are this worker's to look after, or those of worker `rank`."""
        return list(items[self.rank if rank is None else rank :: self.count])

    def exchange(self, tensors: Sequence[Tensor]) -> None:
        """Give every worker the values of each tensor of the one whose share it is in, in place."""
        if self.count == 1:
            return
        for rank in range(self.count):
            own = self.share(tensors, rank)
            flat = torch.cat([tensor.reshape(-1) for tensor in own])
            dist.broadcast(flat, rank)
            for tensor, part in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def close(self) -> None:
        """Leave the group once every worker is done."""
        if self.count > 1:
            dist.barrier()
            dist.destroy_process_group()


def start(run: Callable[[Workers], None], count: int) -> None:
    """Call `run` in `count` processes that know each other; here, where it is one."""
    if count == 1:
        run(Workers())
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_join, (count, Path(folder) / "meeting", run), nprocs=count)


def _join(rank: int, count: int, meeting: Path, run: Callable[[Workers], None]) -> None:
    workers = Workers(rank, count, meeting)
    run(workers)
    workers.close()
