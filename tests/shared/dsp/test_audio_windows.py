"""Audio in messages of any size as windows of a grid: the windows that the whole audio gives, in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_shared.audio import Waveform
from stretto_shared.dsp.audio_windows import AudioWindows, Window
from stretto_shared.dsp.window_grid import WindowGrid
from stretto_shared.errors import InvalidInput

RATE_HZ = 8000
PADDED = WindowGrid(hop_length=40, window_frames=20, left_frames=5, right_frames=3, margin=10)
CLIPPED = WindowGrid(hop_length=40, window_frames=16, left_frames=4, right_frames=4, is_padded=False)


def noise(num_samples: int, num_channels: int = 1, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.1, (num_channels, num_samples)).astype(np.float32)


def windows_of(grid: WindowGrid, samples: Any, rate_hz: int, cuts: Sequence[int] = ()) -> list[Window]:
    windows, found = AudioWindows(grid, RATE_HZ), []
    for start, stop in itertools.pairwise([0, *cuts, samples.shape[1]]):
        windows.add(Waveform(samples[:, start:stop], rate_hz))
        while (window := windows.take()) is not None:
            found.append(window)
    windows.end()
    while (window := windows.take()) is not None:
        found.append(window)
    return found


def facts(windows: list[Window]) -> list[Any]:
    return [
        (each.samples.tobytes(), each.first_frame, each.num_before, each.num_frames, each.silence) for each in windows
    ]


@settings(max_examples=60, deadline=None)
@given(
    rate_hz=st.sampled_from([8000, 11_025, 16_000, 22_050, 24_001, 44_100, 48_000]),
    num_channels=st.sampled_from([1, 2]),
    duration_s=st.floats(0.002, 0.7),
    where=st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=30),
    grid=st.sampled_from([PADDED, CLIPPED]),
)
def test_windows_are_the_same_for_every_cut_into_messages(
    rate_hz: int, num_channels: int, duration_s: float, where: list[float], grid: WindowGrid
) -> None:
    samples = noise(max(2, round(duration_s * rate_hz)), num_channels)
    cuts = sorted({round(each * samples.shape[1]) for each in where} - {0, samples.shape[1]})
    assert facts(windows_of(grid, samples, rate_hz, cuts)) == facts(windows_of(grid, samples, rate_hz))


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
def test_padded_windows_hear_the_mixed_and_resampled_audio_with_silence_around_it(rate_hz: int) -> None:
    samples = noise(round(0.31 * rate_hz), 2)
    mono = soxr.resample(samples.mean(axis=0), rate_hz, RATE_HZ)
    found = windows_of(PADDED, samples, rate_hz, range(100, samples.shape[1], 777))
    num_frames = -(-mono.size // 40)
    assert sum(window.num_frames for window in found) == num_frames == 62
    assert [window.silence for window in found] == [(5, 0), (0, 0), (0, 1), (0, 21)]
    around = np.concatenate([np.zeros(5 * 40 + 10), mono, np.zeros(4000)]).astype(np.float32)
    for index, window in enumerate(found):
        assert (window.first_frame, window.num_before) == (20 * index, 5)
        expected = around[800 * index :][: PADDED.num_samples]
        np.testing.assert_allclose(window.samples, expected, atol=1e-6)


def test_clipped_windows_hear_no_silence_but_the_end_of_the_last_frame() -> None:
    samples = noise(50 * 40 - 7)
    found = windows_of(CLIPPED, samples, RATE_HZ)
    around = np.pad(samples[0], (0, 7))
    spans = [(0, 20, 0, 16), (12, 36, 4, 16), (28, 50, 4, 16), (44, 50, 4, 2)]
    assert len(found) == len(spans)
    for window, (start, stop, num_before, num_frames) in zip(found, spans, strict=True):
        assert np.array_equal(window.samples, around[start * 40 : stop * 40])
        assert (window.num_before, window.num_frames, window.silence) == (num_before, num_frames, (0, 0))


def test_a_window_comes_as_soon_as_its_right_context_is_there() -> None:
    windows = AudioWindows(PADDED, RATE_HZ)
    needed = (20 + 3) * 40 + 10
    windows.add(Waveform(noise(needed - 1), RATE_HZ))
    assert windows.take() is None
    windows.add(Waveform(noise(1), RATE_HZ))
    assert windows.take() is not None and windows.take() is None


@pytest.mark.parametrize("rate_hz", [8000, 44_100])
def test_what_is_kept_does_not_grow_with_the_audio(rate_hz: int) -> None:
    windows, message = AudioWindows(PADDED, RATE_HZ), Waveform(noise(rate_hz // 10), rate_hz)
    most = 0
    for _ in range(3000):  # five minutes
        windows.add(message)
        while windows.take() is not None:
            pass
        most = max(most, windows.num_kept_samples)
    assert most <= PADDED.num_samples + RATE_HZ // 10 + 100


def test_a_long_message_is_resampled_piece_by_piece() -> None:
    windows = AudioWindows(PADDED, RATE_HZ)
    windows.add(Waveform(noise(60 * 48_000), 48_000))
    assert windows.take() is not None
    assert windows.num_kept_samples > 58 * 48_000, "the rest waits as it came"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Waveform(noise(10), 16_000), "waveform.sample_rate_hz"),
        (Waveform(noise(10, 2), 8000), "waveform.channel_count"),
        (Waveform(np.full(10, 2e4, np.float32), 8000), "waveform.samples"),
        (Waveform(np.full(10, -2e4, np.float32), 8000), "waveform.samples"),
    ],
)
def test_a_message_that_does_not_go_on_is_refused_by_field(message: Waveform, field: str) -> None:
    windows = AudioWindows(PADDED, RATE_HZ)
    windows.add(Waveform(np.full((1, 10), 1e4, np.float32), 8000))
    with pytest.raises(InvalidInput) as caught:
        windows.add(message)
    assert caught.value.field == field


def test_no_audio_is_refused_and_so_is_too_little() -> None:
    with pytest.raises(InvalidInput, match="at least one message"):
        AudioWindows(PADDED, RATE_HZ).end()
    windows = AudioWindows(PADDED, RATE_HZ)
    windows.add(Waveform(noise(1), 192_000))
    with pytest.raises(InvalidInput, match="at least one sample"):
        windows.end()


@pytest.mark.parametrize("change", [{"hop_length": 0}, {"window_frames": 0}, {"left_frames": -1}, {"margin": -1}])
def test_a_grid_that_cannot_be_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        WindowGrid(**{"hop_length": 1, "window_frames": 1} | change)  # type: ignore[arg-type]


def test_a_message_is_taken_only_when_the_one_before_was_used_up() -> None:
    windows = AudioWindows(PADDED, RATE_HZ)
    windows.add(Waveform(noise(100), RATE_HZ))
    with pytest.raises(ValueError, match="100 samples left"):
        windows.add(Waveform(noise(100), RATE_HZ))
