"""The beat tracker's network: what a window may not depend on, and what the committed weights hear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stretto_shared import weights
from stretto_transcriber.models import beat_tracker
from stretto_transcriber.models.beat_tracker.config import BeatTrackerConfig
from stretto_transcriber.models.beat_tracker.decoding import track_beats
from stretto_transcriber.models.beat_tracker.features import log_mel, log_pitches
from stretto_transcriber.models.beat_tracker.harmony import Harmony, likeness_across, likeness_by_lag
from stretto_transcriber.models.beat_tracker.network import BeatTracker, Spectra
from stretto_transcriber.models.beat_tracker.weights import ARCHITECTURE, load_beat_tracker
from torch import Tensor

SMALL = BeatTrackerConfig(num_channels=4, dim=8, num_layers=4, window_frames=40, context_frames=10)
WEIGHTS = Path(beat_tracker.__file__).parents[3] / "weights" / "beat_tracker"


@pytest.fixture
def tracker() -> BeatTracker:
    torch.manual_seed(0)
    made = BeatTracker(SMALL)
    made.logits(
        Spectra(torch.rand(4, 60, SMALL.num_bands) * 5, torch.rand(4, 15, SMALL.num_pitches) * 5)
    )  # running statistics other than those of no data
    return made.eval().requires_grad_(False)


def noise(num_samples: int, seed: int = 0) -> Tensor:
    return torch.randn(num_samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_a_frame_is_centred_on_its_sample() -> None:
    audio = torch.zeros(1, 20 * 320)
    audio[0, 7 * 320] = 1.0
    energy = log_mel(audio, SMALL)[0].sum(1)
    assert energy.shape == (20,)
    assert int(energy.argmax()) == 7
    assert float(energy[6]) == pytest.approx(float(energy[8]), rel=0.02)


def test_silence_is_zero_and_a_louder_sine_is_higher() -> None:
    assert float(log_mel(torch.zeros(1, 3200), SMALL).abs().max()) == 0.0
    sine = torch.sin(2 * torch.pi * 1000 * torch.arange(3200) / 16_000)[None]
    quiet, loud = (log_mel(level * sine, SMALL)[0, 5] for level in (0.01, 0.1))
    assert int(quiet.argmax()) == int(loud.argmax()) and bool((loud >= quiet).all())


@pytest.mark.parametrize("shape", [(320,), (1, 0), (1, 321)])
def test_audio_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    for spectrum in (log_mel, log_pitches):
        with pytest.raises(ValueError, match="multiple of 320"):
            spectrum(torch.zeros(shape), SMALL)


def test_a_column_of_semitones_is_centred_on_its_frames() -> None:
    audio = torch.zeros(1, 38 * 320)
    audio[0, 4 * 4 * 320 + 480] = 1.0  # the middle of frames 16 to 19
    energy = log_pitches(audio, SMALL)[0].sum(1)
    assert energy.shape == (10,)  # nine and a half columns
    assert int(energy.argmax()) == 4
    assert float(energy[3]) == pytest.approx(float(energy[5]), rel=0.02)


@pytest.mark.parametrize("pitch_midi", [40, 57, 90])
def test_a_sine_is_heard_at_its_semitone(pitch_midi: int) -> None:
    hz = 440 * 2 ** ((pitch_midi - 69) / 12)
    heard = log_pitches(0.1 * torch.sin(2 * torch.pi * hz * torch.arange(16_000) / 16_000)[None], SMALL)[0, 6]
    assert int(heard.argmax()) == pitch_midi - SMALL.lowest_pitch_midi


def test_likeness_is_of_the_columns_so_far_before_and_after() -> None:
    vectors = torch.zeros(1, 60, 3)
    vectors[0, :30, 0] = 1.0
    vectors[0, 30:, 1] = 5.0  # another harmony, louder
    by_lag = likeness_by_lag(vectors, 4)
    assert by_lag.shape == (1, 60, 8)
    assert by_lag[0, 31].tolist() == [1, 0, 0, 0, 1, 1, 1, 1]  # one before is alike, two are not
    assert by_lag[0, 28].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert by_lag[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    across = likeness_across(vectors)[0]
    assert across.shape == (60, 4)
    assert across[30].tolist() == [0, 0, 0, 0] and across[27, 0] == pytest.approx(1.0)
    assert 0 < across[27, 1] < 1  # three of the six after it differ


def test_the_key_does_not_change_how_alike_harmonies_are() -> None:
    torch.manual_seed(0)
    harmony = Harmony(SMALL).eval()
    with torch.no_grad():
        harmony.plain.weight.zero_()
        harmony.balance.zero_()
        harmony.along.bias.zero_()
    pitches = torch.zeros(1, 40, 60)
    pitches[:, :, 20:40] = torch.rand(1, 40, 20)
    assert torch.allclose(harmony(pitches), harmony(pitches.roll(5, 2)), atol=1e-4)
    assert not torch.allclose(harmony(pitches), harmony(pitches.flip(1)), atol=1e-2)


def test_harmony_is_heard(tracker: BeatTracker) -> None:
    heard = tracker.features(noise(320 * 30)[None])
    other = Spectra(heard.mel, heard.pitches.flip(1))
    assert not torch.allclose(tracker(heard).downbeat, tracker(other).downbeat, atol=1e-5)


def test_activations_are_probabilities_and_a_downbeat_is_part_of_a_beat(tracker: BeatTracker) -> None:
    logits = tracker.logits(tracker.features(noise(320 * 30)[None]))
    heard = tracker(tracker.features(noise(320 * 30)[None]))
    for part in (heard.beat, heard.downbeat, heard.onset):
        assert part.shape == (1, 30) and bool(((part >= 0) & (part <= 1)).all())
    with torch.no_grad():
        tracker.heads.bias[1] += 2.0
    moved = tracker.logits(tracker.features(noise(320 * 30)[None]))
    assert torch.allclose(moved.beat - logits.beat, torch.tensor(2.0), atol=1e-5)
    assert torch.equal(moved.onset, logits.onset)


def test_windows_give_what_the_whole_recording_gives(tracker: BeatTracker) -> None:
    audio = noise(320 * 95 - 100)
    whole = tracker.hear(audio)
    assert len(whole.beat) == len(whole.downbeat) == len(whole.onset) == 95
    padded = torch.nn.functional.pad(audio, (10 * 320, 320 * 120))
    for number in range(3):
        start = number * 40 * 320
        window = tracker.window_activations(padded[None, start : start + SMALL.window_samples])
        own = slice(40 * number, min(95, 40 * number + 40))
        assert torch.equal(whole.beat[own], window.beat[0, : own.stop - own.start])
        assert torch.equal(whole.onset[own], window.onset[0, : own.stop - own.start])


def test_a_window_hears_its_context(tracker: BeatTracker) -> None:
    window = noise(SMALL.window_samples)[None]
    other = window.clone()
    other[:, : 9 * 320] = 0.0
    assert not torch.equal(tracker.window_activations(window).beat, tracker.window_activations(other).beat)


def test_a_row_does_not_depend_on_its_neighbours(tracker: BeatTracker) -> None:
    rows = torch.stack([noise(SMALL.window_samples, seed) for seed in range(3)])
    together, alone = tracker.window_activations(rows), tracker.window_activations(rows[1:2])
    assert torch.allclose(together.beat[1], alone.beat[0], atol=1e-6)
    assert torch.allclose(together.downbeat[1], alone.downbeat[0], atol=1e-6)


def test_windows_off_the_grid_are_refused(tracker: BeatTracker) -> None:
    with pytest.raises(ValueError, match=f"B, {SMALL.window_samples}"):
        tracker.window_activations(torch.zeros(1, SMALL.window_samples - 320))


def test_no_audio_gives_no_frames(tracker: BeatTracker) -> None:
    assert len(tracker.hear(torch.zeros(0)).beat) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_bands": 40}, "num_bands"),
        ({"kernel_frames": 4}, "kernel_frames"),
        ({"fft_length": 256}, "fft_length: expected at least hop"),
        ({"pitch_channels": 3}, "pitch_channels"),
        ({"pitch_fft_length": 1_024}, "pitch_fft_length"),
    ],
)
def test_sizes_without_sense_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeatTrackerConfig(**change)


def test_what_was_written_is_read_back(tracker: BeatTracker, tmp_path: Path) -> None:
    halves = {name: v.half() if v.is_floating_point() else v for name, v in tracker.state_dict().items()}
    config = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    weights.write(
        tmp_path / "beat_tracker", halves, name="beat_tracker", architecture=ARCHITECTURE, config=config,
        licence="Apache-2.0", score="", training={},
    )  # fmt: skip
    read = load_beat_tracker(tmp_path / "beat_tracker")
    assert read.config == SMALL and not read.training
    assert torch.allclose(read.hear(noise(6400)).beat, tracker.hear(noise(6400)).beat, atol=0.02)


def clicks(interval_s: float, duration_s: float) -> Tensor:
    """Every third click lower and louder, over faint noise."""
    audio = np.random.default_rng(0).normal(0, 1e-4, round(duration_s * 16_000))
    tail = np.exp(-np.arange(1600) / 200) * np.sin(2 * np.pi * np.arange(1600) / 16_000 * 200)
    tick = np.exp(-np.arange(1600) / 100) * np.sin(2 * np.pi * np.arange(1600) / 16_000 * 1500)
    for number, time_s in enumerate(np.arange(0.5, duration_s - 0.2, interval_s)):
        start = round(time_s * 16_000)
        audio[start : start + 1600] += (0.6 * tail + 0.2 * tick) if number % 3 == 0 else 0.2 * tick
    return torch.from_numpy(audio).float()


@pytest.mark.parametrize("interval_s", [0.6, 0.7])
def test_the_committed_tracker_follows_clicks(interval_s: float) -> None:
    torch.set_num_threads(1)
    tracker = load_beat_tracker(WEIGHTS)
    assert sum(p.numel() for p in tracker.parameters()) < 250_000
    heard = tracker.hear(clicks(interval_s, 16.0))
    found = track_beats(heard.beat.numpy(), heard.downbeat.numpy(), tracker.config.frame_rate_hz)
    inside = found.beat_s[(found.beat_s > 2) & (found.beat_s < 14)]
    assert np.median(np.diff(inside)) == pytest.approx(interval_s, abs=0.01)
    phase = (inside - 0.5) / interval_s
    assert np.abs(phase - np.rint(phase)).max() * interval_s < 0.05
