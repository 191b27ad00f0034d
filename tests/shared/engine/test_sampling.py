"""Drawing tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from stretto_shared.engine.sampling import Sampling, guide, sample, stage_key, uniform_noise
from stretto_shared.features import SamplingOptions

STAGE = stage_key("test")
PLAIN = Sampling(temperature=1.0, top_k=0, top_p=1.0)


def draw(logits: torch.Tensor, sampling: Sampling, *, seed: int = 0, num_draws: int = 1) -> np.ndarray:
    """Draw `num_draws` tokens, one a frame, from the same logits [V]."""
    return sample(
        logits.expand(num_draws, -1),
        sampling,
        seed=seed,
        stage=STAGE,
        frames=np.arange(num_draws),
        codebooks=np.zeros(num_draws, dtype=np.int64),
    )


def test_frequencies_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.25, 0.15, 0.1])
    counts = np.bincount(draw(probabilities.log(), PLAIN, num_draws=20_000), minlength=4) / 20_000
    np.testing.assert_allclose(counts, probabilities, atol=0.015)
    sharper = dataclasses.replace(PLAIN, temperature=0.5)
    expected = probabilities**2 / (probabilities**2).sum()
    counts = np.bincount(draw(probabilities.log(), sharper, num_draws=20_000), minlength=4) / 20_000
    np.testing.assert_allclose(counts, expected, atol=0.015)


def test_top_k_and_top_p_leave_only_what_they_should() -> None:
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()
    assert set(draw(logits, dataclasses.replace(PLAIN, top_k=2), num_draws=500)) == {1, 2}
    assert set(draw(logits, dataclasses.replace(PLAIN, top_p=0.65), num_draws=500)) == {1, 2}
    assert set(draw(logits, dataclasses.replace(PLAIN, top_p=0.75), num_draws=500)) == {1, 2, 3}
    assert set(draw(logits, dataclasses.replace(PLAIN, top_p=1e-9), num_draws=50)) == {1}
    assert set(draw(logits, dataclasses.replace(PLAIN, top_k=99), num_draws=2000)) == {0, 1, 2, 3}


def test_temperature_zero_is_the_argmax_whatever_the_seed() -> None:
    logits = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    greedy = dataclasses.replace(PLAIN, temperature=0.0)
    places = {"stage": STAGE, "frames": np.arange(3), "codebooks": np.arange(3)}
    for seed in range(3):
        assert sample(logits, greedy, seed=seed, **places).tolist() == logits.argmax(dim=1).tolist()


def test_noise_is_a_pure_function_of_its_place_and_every_part_of_the_place_counts() -> None:
    def noise(seed: int = 1, stage: int = 2, frame: int = 3, codebook: int = 4, index: int = 5) -> float:
        return float(uniform_noise(seed, stage, np.array([frame]), np.array([codebook]), np.array([[index]]))[0, 0])

    assert noise() == noise()
    others = [noise(seed=9), noise(stage=9), noise(frame=9), noise(codebook=9), noise(index=9), noise(2, 1), noise()]
    assert len(set(others)) == len(others)
    assert noise(seed=2**64 - 1) != noise(seed=0)


def test_noise_of_one_entry_does_not_depend_on_its_neighbours() -> None:
    frames, codebooks = np.array([7, 8]), np.array([0, 1])
    whole = uniform_noise(3, STAGE, frames, codebooks, np.tile(np.arange(50), (2, 1)))
    part = uniform_noise(3, STAGE, frames[1:], codebooks[1:], np.array([[49, 10]]))
    assert part[0].tolist() == [whole[1, 49], whole[1, 10]]


def test_rows_of_several_pieces_get_together_what_each_gets_alone() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(6, 40, generator=generator)
    seeds = np.array([3, 3, 2**64 - 1, 2**64 - 1, 0, 7], dtype=np.uint64)
    frames, codebooks = np.array([0, 1, 0, 1, 9, 9]), np.array([0, 1, 0, 1, 2, 2])
    options = Sampling(top_k=30, top_p=0.9)
    together = sample(logits, options, seed=seeds, stage=STAGE, frames=frames, codebooks=codebooks)
    alone = [
        sample(
            logits[r : r + 1],
            options,
            seed=int(seeds[r]),
            stage=STAGE,
            frames=frames[r : r + 1],
            codebooks=codebooks[r : r + 1],
        )[0]
        for r in range(6)
    ]
    assert together.tolist() == alone


def test_noise_is_uniform_and_uncorrelated_between_neighbours() -> None:
    words = uniform_noise(0, STAGE, np.arange(200), np.zeros(200, dtype=np.int64), np.tile(np.arange(200), (200, 1)))
    assert words.min() > 0 and words.max() < 1
    counts, _ = np.histogram(words, bins=20, range=(0, 1))
    chi_square = float(((counts - 2000) ** 2 / 2000).sum())
    assert chi_square < 50  # 19 degrees of freedom: beyond 50 once in ten thousand
    assert abs(np.corrcoef(words[:-1].ravel(), words[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(words[:, :-1].ravel(), words[:, 1:].ravel())[0, 1]) < 0.02


def test_guidance_spans_unconditional_conditional_and_beyond() -> None:
    conditional, unconditional = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    assert guide(conditional, unconditional, 0.0).tolist() == [0.0, 4.0]
    assert guide(conditional, unconditional, 1.0).tolist() == [1.0, 2.0]
    assert guide(conditional, unconditional, 3.0).tolist() == [3.0, -2.0]


def test_defaults_fill_only_what_is_not_set() -> None:
    filled = Sampling(0.9, 10, 0.8, 2.0).filled_from(SamplingOptions(temperature=0.0, guidance_scale=0.0))
    assert filled == Sampling(0.0, 10, 0.8, 0.0)
