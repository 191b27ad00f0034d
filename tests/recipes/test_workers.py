"""Workers of one training run agree, average and exchange."""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2] / "services/acoustic/recipes"))

from workers import Workers, start


def one_round(workers: Workers) -> None:
    """What two workers must find; an assertion that fails in either fails the test."""
    assert workers.agree(5.0 + workers.rank) == 5.0
    gradients = [torch.full((2, 3), float(workers.rank)), torch.full((4,), 2.0 * workers.rank)]
    workers.average(gradients)
    assert [float(gradient.mean()) for gradient in gradients] == [0.5, 1.0]
    weights = [torch.full((3,), 10.0 * workers.rank + index) for index in range(3)]
    workers.exchange(weights)
    assert [float(weight[0]) for weight in weights] == [0.0, 11.0, 2.0]
    assert workers.share("abcde") == (list("ace") if workers.is_first else list("bd"))


def test_two_workers_agree_average_and_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    # Left to itself, gloo looks up this machine's name, which some machines cannot resolve.
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    start(one_round, 2)


def test_a_worker_starts_also_where_no_core_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    assert not Workers(1, 2, tmp_path / "meeting").is_first


def test_one_worker_alone_changes_nothing() -> None:
    workers, gradient = Workers(), torch.ones(3)
    workers.average([gradient])
    workers.exchange([gradient])
    assert workers.agree(3.0) == 3.0 and gradient.tolist() == [1.0, 1.0, 1.0] and workers.share([1, 2]) == [1, 2]
