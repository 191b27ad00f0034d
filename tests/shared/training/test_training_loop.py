"""Budgets, learning rates, logs, and checkpoints of a training run."""

import json
from pathlib import Path

import pytest
import torch
from stretto_shared.training import checkpoint
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate


def test_a_step_budget_ends_after_its_steps() -> None:
    assert list(Budget(60, max_steps=4).steps()) == [0, 1, 2, 3]


def test_a_resumed_budget_continues_where_it_was() -> None:
    budget = Budget(1, max_steps=10, elapsed_s=30, step=7)
    assert budget.progress == pytest.approx(0.7)
    assert list(budget.steps()) == [7, 8, 9]


def test_a_used_budget_still_gives_one_step() -> None:
    assert list(Budget(1, elapsed_s=120).steps()) == [0]


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(1.0, step, step / 100, warmup_steps=10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == rates[9]
    assert rates[100] == pytest.approx(0.02)


def test_averages_start_over_when_taken() -> None:
    averages = Averages()
    averages.add({"loss": 1.0})
    averages.add({"loss": 3.0})
    assert averages.take() == {"loss": 2.0}
    assert averages.take() == {}


def test_the_log_is_one_json_object_a_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run")
    log.write({"step": 1, "loss": 0.123456789})
    log.write({"step": 2, "loss": 0.1})
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 0.12346}, {"step": 2, "loss": 0.1}]


def test_a_checkpoint_comes_back_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "run" / "state.pt"
    assert checkpoint.load(path) is None
    checkpoint.save(path, {"model": {"w": torch.arange(3)}, "step": 5})
    state = checkpoint.load(path)
    assert state is not None and state["step"] == 5
    assert torch.equal(state["model"]["w"], torch.arange(3))
    assert not path.with_suffix(".part").exists()
