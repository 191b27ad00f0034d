"""The melody extractor: known pitches, its frame count, and audiocraft's arithmetic."""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from stretto_shared.audio import Waveform
from stretto_shared.dsp.chroma import chroma_filter_bank, extract_chroma, num_chroma_frames


def tone(pitch_midi: int, duration_s: float = 1.5, sample_rate_hz: int = 24_000) -> np.ndarray:
    """A sine of one pitch."""
    time_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    return 0.3 * np.sin(2 * np.pi * 440 * 2 ** ((pitch_midi - 69) / 12) * time_s)


@pytest.mark.parametrize("sample_rate_hz", [16_000, 24_000, 32_000, 44_100, 48_000])
def test_each_pitch_class_is_heard_at_any_sample_rate(sample_rate_hz):
    for pitch_midi in range(55, 67):
        melody = extract_chroma(Waveform(tone(pitch_midi, sample_rate_hz=sample_rate_hz), sample_rate_hz))
        assert set(melody.pitch_classes.tolist()) == {pitch_midi % 12}


def test_a_melody_is_heard_in_order():
    pitches = [60, 64, 67, 71]
    melody = extract_chroma(Waveform(np.concatenate([tone(pitch, 1.024) for pitch in pitches]), 24_000))
    heard = melody.pitch_classes[4::8].tolist()
    assert heard == [pitch % 12 for pitch in pitches]


def test_silence_is_minus_one_and_only_silence():
    clip = np.concatenate([np.zeros(48_000), tone(69, 2.0)])
    classes = extract_chroma(Waveform(clip, 24_000)).pitch_classes
    assert (classes[:12] == -1).all()
    assert (classes[20:] == 9).all()


@pytest.mark.parametrize("num_samples", [1, 800, 2_400, 3_072, 12_288, 240_000, 719_999])
def test_frame_count_is_one_and_one_more_each_hop(num_samples):
    melody = extract_chroma(Waveform(np.full(num_samples, 0.1), 24_000))
    assert melody.pitch_classes.shape == (1 + num_samples // 3072,)
    assert num_chroma_frames(num_samples, 24_000) == 1 + num_samples // 3072
    assert melody.frame_rate_hz == 7.8125


@pytest.mark.parametrize("num_samples", [5_000, 160_000])
def test_agrees_with_audiocraft_arithmetic_in_torch(num_samples):
    noise = np.random.default_rng(3).normal(0, 0.1, num_samples).astype(np.float32)
    wav = torch.from_numpy(noise)
    missing = max(0, 2**14 - num_samples)
    wav = torch.nn.functional.pad(wav, (missing // 2, missing - missing // 2))
    spectrum = torch.stft(wav, 2**14, 4096, 2**14, torch.hann_window(2**14), center=True, return_complex=True)
    bank = torch.from_numpy(chroma_filter_bank(32_000, 2**14))
    expected = (bank @ spectrum.abs().square()).argmax(0).numpy()
    got = extract_chroma(Waveform(noise, 32_000)).pitch_classes
    assert got.tolist() == expected[: len(got)].tolist()


def test_filter_bank_is_loudest_at_its_own_pitch_near_octave_five():
    bank = chroma_filter_bank(32_000, 2**14)
    a5 = round(880 / 32_000 * 2**14)
    assert bank.shape == (12, 8193)
    assert bank[:, a5].argmax() == 9
    assert bank[9, a5] > 2 * bank[9, round(7040 / 32_000 * 2**14)]


def test_stereo_is_heard_as_its_mean():
    left, right = tone(60), tone(67)
    stereo = extract_chroma(Waveform(np.stack([left, right]), 24_000))
    mono = extract_chroma(Waveform((left + right) / 2, 24_000))
    assert stereo.pitch_classes.tolist() == mono.pitch_classes.tolist()


def taken_s(work: Callable[[], object]) -> float:
    """Processor time of this thread: neither other programs nor threads that spin beside it count."""
    started_s = time.thread_time()
    work()
    return time.thread_time() - started_s


@pytest.mark.parametrize("sample_rate_hz", [24_000, 44_100])  # at 44.1 kHz a window's length is no handy one for an FFT
def test_extraction_takes_a_few_times_what_fourier_transforms_of_as_many_frames_take(sample_rate_hz):
    clip = Waveform(np.random.default_rng(0).normal(0, 0.1, 10 * sample_rate_hz), sample_rate_hz)
    frames = np.random.default_rng(1).normal(0, 0.1, (num_chroma_frames(clip.num_samples, sample_rate_hz), 2**14))
    extract_chroma(clip)
    turns = [(taken_s(lambda: extract_chroma(clip)), taken_s(lambda: np.fft.rfft(frames))) for _ in range(7)]
    extraction_s, transforms_s = np.min(turns, axis=0)
    assert extraction_s < 20 * transforms_s
