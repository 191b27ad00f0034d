import numpy as np
import pytest
from stretto_shared.metrics.distortion import align, best_lag, si_sdr_db
from stretto_shared.metrics.level import clipped_share, rms_dbfs
from stretto_shared.metrics.spectral import (
    log_mel,
    log_mel_distance,
    mel_filter_bank,
    multi_resolution_stft_distance,
    peak_concentration,
    spectral_flatness,
)

RATE_HZ = 16_000


def noise(num_samples: int = RATE_HZ, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(num_samples) * 0.1


def tone(frequency_hz: float = 440.0, num_samples: int = RATE_HZ) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(num_samples) / RATE_HZ)


def test_si_sdr_is_the_ratio_of_signal_and_orthogonal_noise() -> None:
    reference = tone()
    error = noise()
    error -= error.mean()
    error -= (error @ reference) / (reference @ reference) * reference
    error *= np.linalg.norm(reference) / np.linalg.norm(error) / 10  # 20 dB
    assert si_sdr_db(reference, reference + error) == pytest.approx(20.0, abs=0.01)


def test_si_sdr_does_not_see_gain_and_offset() -> None:
    reference, estimate = tone(), tone() + noise()
    assert si_sdr_db(reference, 3 * estimate + 0.2) == pytest.approx(si_sdr_db(reference, estimate), abs=1e-9)
    assert si_sdr_db(reference, reference) > 100


def test_si_sdr_of_silence_is_minus_infinity_and_to_silence_undefined() -> None:
    assert si_sdr_db(tone(), np.zeros(RATE_HZ)) == -np.inf
    with pytest.raises(ValueError, match="silent"):
        si_sdr_db(np.zeros(100), np.ones(100))


@pytest.mark.parametrize("lag", [-120, 0, 7, 300])
def test_alignment_finds_the_delay_of_a_codec(lag: int) -> None:
    reference = noise()
    late = np.roll(reference, lag)
    assert best_lag(reference, late, 400) == lag
    first, second = align(reference, late, 400)
    overlap = slice(0, len(first) - abs(lag)) if lag >= 0 else slice(0, len(first))
    assert np.allclose(first[overlap], second[overlap])


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="equally long"):
        log_mel_distance(noise(5000), noise(5001))


def test_log_mel_distance_of_a_gain_is_its_logarithm() -> None:
    reference = noise()
    assert log_mel_distance(reference, reference) == 0.0
    assert log_mel_distance(reference, reference / 2) == pytest.approx(np.log10(2), abs=1e-3)


def test_log_mel_puts_a_tone_into_its_band() -> None:
    bands = log_mel(tone(1000.0), RATE_HZ).mean(axis=0)
    centre = np.argmax(mel_filter_bank(RATE_HZ, 1024, 80)[64])  # bin 64 of 1024 at 16 kHz is 1000 Hz
    assert np.argmax(bands) == centre
    assert bands.shape == (80,)


def test_log_mel_distance_grows_with_the_noise() -> None:
    reference = tone() + noise(seed=1)
    distances = [log_mel_distance(reference, reference + gain * noise(seed=2)) for gain in (0.1, 1.0, 10.0)]
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_mel_filters_cover_the_asked_band_only() -> None:
    bank = mel_filter_bank(RATE_HZ, 512, 64, min_hz=125.0, max_hz=7500.0)
    frequencies_hz = np.linspace(0, RATE_HZ / 2, 257)
    assert bank.shape == (257, 64)
    assert not bank[(frequencies_hz <= 125.0) | (frequencies_hz >= 7500.0)].any()
    assert bank[(frequencies_hz > 300.0) & (frequencies_hz < 7000.0)].any(axis=1).all()


def test_stft_distance_of_a_gain_is_known_in_both_parts() -> None:
    distance = multi_resolution_stft_distance(noise(), noise() / 2)
    assert distance.spectral_convergence == pytest.approx(0.5, abs=1e-9)
    assert distance.log_magnitude == pytest.approx(np.log(2), abs=1e-6)
    assert distance.total == pytest.approx(0.5 + np.log(2), abs=1e-6)


def test_flatness_and_concentration_tell_noise_from_tones() -> None:
    assert 0.5 < spectral_flatness(noise()) < 0.65
    assert spectral_flatness(tone()) < 0.01
    assert 0.15 < peak_concentration(noise()) < 0.25
    assert peak_concentration(tone()) > 0.95


def test_silence_is_neither_tonal_nor_concentrated() -> None:
    assert spectral_flatness(np.zeros(RATE_HZ)) == 1.0
    assert peak_concentration(np.zeros(RATE_HZ)) == 0.0


def test_level_of_a_full_sine_is_minus_three_decibels() -> None:
    assert rms_dbfs(2 * tone()) == pytest.approx(-3.01, abs=0.01)
    assert rms_dbfs(np.zeros(10)) == -np.inf


def test_clipping_counts_samples_at_the_ceiling() -> None:
    assert clipped_share(np.array([0.5, 1.0, -1.0, 0.0])) == 0.5
    assert clipped_share(tone()) == 0.0
