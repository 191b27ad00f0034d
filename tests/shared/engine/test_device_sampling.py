"""Drawing where the logits are: the CPU's draws, whoever is beside a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stretto_shared.engine.device_sampling import sample_on_device
from stretto_shared.engine.program import Program, TokenRequest, draw_all
from stretto_shared.engine.sampling import Sampling, sample, stage_key
from torch import Tensor

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here"),
        ],
    ),
]
STAGE = stage_key("test")
NUM_ROWS, NUM_ENTRIES = 40, 300
SAMPLINGS = [Sampling(), Sampling(temperature=0.0), Sampling(top_k=0), Sampling(temperature=0.3, top_k=7)]
SAMPLINGS += [Sampling(top_k=1), Sampling(temperature=2.5, top_k=999)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def rows_of(sampling: Sampling, count: int = NUM_ROWS) -> dict[str, Any]:
    """The same way of drawing for rows whose seeds and places differ, some beyond 63 bits."""
    rng = np.random.default_rng(3)
    return {
        "temperatures": np.full(count, sampling.temperature),
        "top_ks": np.full(count, sampling.top_k),
        "seeds": rng.integers(0, 2**64, count, dtype=np.uint64),
        "frames": rng.integers(0, 5000, count),
        "codebooks": np.arange(count) % 4,
    }


def logits_of(count: int = NUM_ROWS) -> Tensor:
    return 3 * torch.randn(count, NUM_ENTRIES, generator=torch.Generator().manual_seed(1))


def on_cpu(logits: Tensor, sampling: Sampling, rows: dict[str, Any]) -> list[int]:
    places = {"stage": STAGE, "frames": rows["frames"], "codebooks": rows["codebooks"]}
    return sample(logits, sampling, seed=rows["seeds"], **places).tolist()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_it_draws_what_the_cpu_draws(sampling: Sampling, device: str) -> None:
    rows = rows_of(sampling, 500)
    got = sample_on_device(logits_of(500).to(device), stage=STAGE, **rows)
    assert got.dtype == np.int64
    assert got.tolist() == on_cpu(logits_of(500), sampling, rows)


def test_rows_that_draw_in_their_own_ways_get_what_they_get_alone(device: str) -> None:
    ways = [rows_of(sampling) for sampling in SAMPLINGS]
    mixed = {name: np.array([ways[i % len(ways)][name][i] for i in range(NUM_ROWS)]) for name in ways[0]}
    logits = logits_of().to(device)
    together = sample_on_device(logits, stage=STAGE, **mixed)
    for i in range(NUM_ROWS):
        one = {name: each[i : i + 1] for name, each in mixed.items()}
        assert sample_on_device(logits[i : i + 1], stage=STAGE, **one).tolist() == [together[i]]
        assert on_cpu(logits[i : i + 1].cpu(), SAMPLINGS[i % len(ways)], one) == [together[i]]


def test_ties_go_to_the_lower_index(device: str) -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0, 5.0, 5.0]], device=device).expand(200, -1)
    two = sample_on_device(logits, stage=STAGE, **rows_of(Sampling(top_k=2), 200))
    assert set(two.tolist()) == {1, 3}
    assert set(sample_on_device(logits, stage=STAGE, **rows_of(Sampling(temperature=0.0), 200)).tolist()) == {1}


def test_a_row_of_nan_disturbs_none_beside_it(device: str) -> None:
    logits, rows = logits_of().to(device), rows_of(Sampling())
    expected = sample_on_device(logits, stage=STAGE, **rows)
    logits[3] = torch.nan
    got = sample_on_device(logits, stage=STAGE, **rows)
    assert 0 <= got[3] < NUM_ENTRIES
    assert np.delete(got, 3).tolist() == np.delete(expected, 3).tolist()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here")
def test_programs_draw_the_same_on_a_gpu() -> None:
    ways = [*SAMPLINGS, Sampling(top_p=0.7), Sampling(top_p=0.7, top_k=0, temperature=1.5)]
    found = [drawn(ways, device) for device in ("cpu", "cuda")]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_programs_draw_the_same_where_the_logits_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [*SAMPLINGS, Sampling(top_p=0.7)]
    expected = drawn(ways, "cpu")
    calls: list[int] = []

    def count(logits: Tensor, **rows: Any) -> Any:
        calls.append(len(logits))
        return sample_on_device(logits, **rows)

    monkeypatch.setattr("stretto_shared.engine.program.sample_on_device", count)
    monkeypatch.setattr("stretto_shared.engine.program._is_on_device", lambda logits: True)
    got = drawn(ways, "cpu")
    assert calls == [4 * len(SAMPLINGS)] * 12
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def drawn(ways: list[Sampling], device: str) -> list[np.ndarray]:
    """The frames of pieces of four delayed codebooks, one for each way of drawing, drawn together."""
    generator = torch.Generator().manual_seed(2)
    none = np.zeros((4, 0), dtype=np.int32)
    programs = [
        Program(
            TokenRequest(None, 9, none, none, way, 2**64 - 1 - seed, noise_offset=11),
            delays=(0, 1, 2, 3),
            special_token=NUM_ENTRIES,
            stage=STAGE,
        )
        for seed, way in enumerate(ways)
    ]
    while programs[0].num_steps_left:
        draws = []
        for program in programs:
            draws.append(program.read(torch.randn(4, NUM_ENTRIES, generator=generator).to(device)))
        draw_all([draw for draw in draws if draw is not None])
    return [program.take_frames().codes for program in programs]
