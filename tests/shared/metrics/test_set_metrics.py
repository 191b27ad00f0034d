import numpy as np
import pytest
from stretto_shared.metrics.frechet import Gaussian, fit_gaussian, fit_projection, frechet_distance
from stretto_shared.metrics.onsets import onset_density_hz, onset_times_s

RATE_HZ = 16_000


def notes(starts_s: list[float], duration_s: float = 5.0) -> np.ndarray:
    samples = 1e-4 * np.random.default_rng(0).standard_normal(int(duration_s * RATE_HZ))
    for number, start_s in enumerate(starts_s):
        time_s = np.arange(int(0.4 * RATE_HZ)) / RATE_HZ
        note = 0.3 * np.exp(-20 * time_s) * np.sin(2 * np.pi * 220 * 2 ** (number % 12 / 12) * time_s)
        start = int(start_s * RATE_HZ)
        samples[start : start + len(note)] += note[: len(samples) - start]
    return samples


def test_frechet_distance_of_shifted_and_scaled_gaussians_is_known() -> None:
    first = Gaussian(np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    second = Gaussian(np.array([1.0, 2.0, 2.0]), np.diag([4.0, 4.0, 1.0]))
    assert frechet_distance(first, second) == pytest.approx(9.0 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2)


def test_frechet_distance_agrees_with_a_matrix_square_root_where_covariances_do_not_commute() -> None:
    from scipy.linalg import sqrtm

    random = np.random.default_rng(0)
    first, second = (fit_gaussian(random.standard_normal((50, 6)) @ random.standard_normal((6, 6))) for _ in range(2))
    root = np.trace(sqrtm(first.covariance @ second.covariance).real)
    expected = np.square(first.mean - second.mean).sum() + np.trace(first.covariance + second.covariance) - 2 * root
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)


def test_projection_keeps_the_axes_that_vary() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((400, 5)) * [0.01, 3.0, 0.01, 1.0, 0.01] + 7.0
    projection = fit_projection(rows, 2)
    assert projection.explained > 0.999
    assert np.abs(projection.axes[1, 0]) > 0.99 and np.abs(projection.axes[3, 1]) > 0.99
    assert projection(rows).mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-9)


def test_projection_of_too_few_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_dims"):
        fit_projection(np.random.default_rng(0).standard_normal((4, 10)), 4)
    with pytest.raises(ValueError, match="vary"):
        fit_projection(np.ones((9, 3)), 2)


def test_onsets_are_heard_where_notes_begin() -> None:
    starts_s = [0.5, 1.0, 1.25, 2.0, 3.1, 4.2]
    heard_s = onset_times_s(notes(starts_s), RATE_HZ)
    assert len(heard_s) == len(starts_s)
    assert np.abs(heard_s - starts_s).max() < 0.04


def test_onset_density_grows_with_notes_and_is_none_in_silence_and_in_a_held_tone() -> None:
    few, many = (onset_density_hz(notes(list(np.arange(0.3, 4.7, gap))), RATE_HZ) for gap in (1.0, 0.25))
    assert few == pytest.approx(1.0, abs=0.21)
    assert many == pytest.approx(3.6, abs=0.3)
    assert onset_density_hz(np.zeros(RATE_HZ), RATE_HZ) == 0.0
    held = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE_HZ) / RATE_HZ)
    assert onset_density_hz(held, RATE_HZ) <= 0.5
