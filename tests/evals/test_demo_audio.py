"""Each check of the demo's sound can fail: sounds that break one promise each."""

import numpy as np
import pytest
from quality.demo_audio import is_different, measure, sound_claims
from stretto_shared.audio import Waveform

RATE_HZ = 24_000
TIME_S = np.arange(5 * RATE_HZ) / RATE_HZ


def chord(gain: float = 0.2, root_hz: float = 220.0) -> np.ndarray:
    partials = sum(np.sin(2 * np.pi * root_hz * ratio * TIME_S) / 3 for ratio in (1.0, 1.26, 1.5))
    return gain * partials + 1e-4 * np.random.default_rng(0).standard_normal(len(TIME_S))


def failed(samples: np.ndarray, duration_s: float = 5.0) -> set[str]:
    claims = sound_claims(measure(Waveform(samples.astype(np.float32), RATE_HZ)), duration_s)
    return {claim for claim, holds in claims.items() if not holds}


def test_a_chord_keeps_every_promise() -> None:
    assert failed(chord()) == set()


@pytest.mark.parametrize(
    ("samples", "broken"),
    [
        (np.zeros(len(TIME_S)), {"not_silent", "not_noise", "tonal"}),
        (np.where((TIME_S > 2) & (TIME_S < 3), 0, 1) * chord(), {"not_silent"}),
        (0.2 * np.random.default_rng(0).standard_normal(len(TIME_S)), {"not_noise", "tonal"}),
        (np.clip(chord(gain=3.0), -1, 1), {"not_clipped"}),
        (0.98 * np.tanh(chord(gain=3.0)), {"not_clipped"}),
        (chord()[: 4 * RATE_HZ], {"as_long_as_asked"}),
    ],
    ids=["silence", "a second of silence", "white noise", "clipped", "limited", "short"],
)
def test_what_is_not_music_is_found_out(samples: np.ndarray, broken: set[str]) -> None:
    assert failed(samples) == broken


def test_the_same_sound_and_one_that_differs_by_rounding_are_not_different() -> None:
    clip = Waveform(chord().astype(np.float32), RATE_HZ)
    nearly = Waveform((chord() * (1 + 1e-6)).astype(np.float32), RATE_HZ)
    other = Waveform(chord(root_hz=311.0).astype(np.float32), RATE_HZ)
    assert not is_different(clip, clip)
    assert not is_different(clip, nearly)
    assert is_different(clip, other)
