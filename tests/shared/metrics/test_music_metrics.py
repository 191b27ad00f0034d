import numpy as np
import pytest
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_shared.metrics.codebooks import codebook_perplexity, codebook_use
from stretto_shared.metrics.melody import chroma_cosine
from stretto_shared.metrics.tempo import estimate_tempo_bpm, tempo_agrees

RATE_HZ = 16_000


def clicks(tempo_bpm: float, duration_s: float = 10.0) -> np.ndarray:
    random = np.random.default_rng(0)
    samples = 0.001 * random.standard_normal(int(duration_s * RATE_HZ))
    burst = random.standard_normal(800) * np.exp(-np.arange(800) / 150)
    for beat, start_s in enumerate(np.arange(0.1, duration_s - 0.1, 60 / tempo_bpm)):
        start = int(start_s * RATE_HZ)
        samples[start : start + 800] += (0.8 if beat % 4 == 0 else 0.5) * burst
    return samples


def test_codebook_use_counts_what_occurs_and_perplexity_how_evenly() -> None:
    codes = np.array([[0, 1, 2, 3], [0, 0, 0, 1]])
    assert codebook_use(codes, 8).tolist() == [0.5, 0.25]
    even, skewed = codebook_perplexity(codes, 8)
    assert even == pytest.approx(4.0)
    assert skewed == pytest.approx(2 ** -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)))


def test_codes_outside_the_codebook_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\[0, 4\)"):
        codebook_use(np.array([[0, 4]]), 4)
    with pytest.raises(ValueError, match="integers"):
        codebook_use(np.array([[0.0]]), 4)


def test_chroma_cosine_is_the_share_of_agreeing_frames_that_sound() -> None:
    assert chroma_cosine(np.array([0, 4, 7, -1]), np.array([0, 4, 8, 3])) == pytest.approx(2 / 3)
    assert chroma_cosine(np.array([0, 4]), np.array([0, 4, 8, 3])) == 1.0


def test_chroma_cosine_with_a_silent_reference_is_an_error() -> None:
    with pytest.raises(ValueError, match="sound"):
        chroma_cosine(np.array([-1, -1]), np.array([0, 1]))


@pytest.mark.parametrize("tempo_bpm", [62.0, 75.0, 90.0, 108.0, 120.0, 137.0, 160.0])
def test_the_tracker_hears_the_tempo_of_clicks(tempo_bpm: float) -> None:
    heard_bpm = estimate_tempo_bpm(clicks(tempo_bpm), RATE_HZ)
    assert tempo_agrees(tempo_bpm, heard_bpm, octaves=True), heard_bpm
    if 70 <= tempo_bpm <= 150:
        assert tempo_agrees(tempo_bpm, heard_bpm), heard_bpm


def test_silence_has_no_tempo() -> None:
    with pytest.raises(ValueError, match="onset"):
        estimate_tempo_bpm(np.zeros(10 * RATE_HZ), RATE_HZ)


def test_tempo_tolerance_is_four_percent_and_octaves_are_asked_for() -> None:
    assert tempo_agrees(100, 103.9) and not tempo_agrees(100, 104.5)
    assert tempo_agrees(100, 51, octaves=True) and not tempo_agrees(100, 51)
    assert not tempo_agrees(100, 75, octaves=True)


def test_bootstrap_interval_holds_the_mean_and_narrows_with_more_values() -> None:
    values = np.random.default_rng(1).standard_normal(400) + 2.0
    few, many = bootstrap_mean(values[:20], num_resamples=2000), bootstrap_mean(values, num_resamples=2000)
    for interval in (few, many):
        assert interval.low < interval.mean < interval.high
    assert many.high - many.low < few.high - few.low
    assert many.high - many.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert bootstrap_mean(values, num_resamples=2000) == many


def test_bootstrap_of_one_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_mean([1.0])
