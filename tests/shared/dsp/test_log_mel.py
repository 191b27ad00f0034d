"""The log-mel spectrogram of the joint encoders and the semantic tokenizer."""

from __future__ import annotations

import math

import pytest
import torch
from stretto_shared.dsp.log_mel import HOP_LENGTH, NUM_MEL_BANDS, SAMPLE_RATE_HZ, log_mel


def sine(frequency_hz: float, num_samples: int = 24_000) -> torch.Tensor:
    time_s = torch.arange(num_samples) / SAMPLE_RATE_HZ
    return torch.sin(2 * math.pi * frequency_hz * time_s)[None]


def test_there_is_a_frame_for_each_hop_and_a_clip_is_the_same_alone_and_beside_others() -> None:
    audio = torch.randn(3, 10 * HOP_LENGTH)
    frames = log_mel(audio)
    assert frames.shape == (3, 10, NUM_MEL_BANDS)
    torch.testing.assert_close(log_mel(audio[1:2]), frames[1:2])


def test_a_higher_tone_is_loudest_in_a_higher_band() -> None:
    loudest = [int(log_mel(sine(hz))[0, 50].argmax()) for hz in (110, 220, 440, 880, 1760, 3520)]
    assert loudest == sorted(set(loudest))


def test_ten_times_the_amplitude_is_the_same_step_everywhere() -> None:
    step = log_mel(10 * sine(440))[0, 50].amax() - log_mel(sine(440))[0, 50].amax()
    assert float(step) == pytest.approx(math.log(100) / 4, abs=1e-4)


def test_silence_is_finite_and_below_everything() -> None:
    silence = log_mel(torch.zeros(1, HOP_LENGTH))
    assert torch.isfinite(silence).all()
    assert float(silence.max()) < float(log_mel(sine(440) * 1e-3)[0, 50].max())


@pytest.mark.parametrize("shape", [(240,), (1, 0), (1, 241), (1, 1, 240)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[B, S\]"):
        log_mel(torch.zeros(shape))
