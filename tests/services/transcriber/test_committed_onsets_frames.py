"""The committed checkpoint hears strings that are struck: decaying tones with a piano's harmonics."""

from pathlib import Path

import numpy as np
import pytest
import stretto_transcriber
import torch
from stretto_shared import weights
from stretto_transcriber.models.onsets_frames import OnsetsFrames, build_onsets_frames, hear_clip, transcribe_clip

FOLDER = Path(stretto_transcriber.__path__[0]).parent / "weights"


@pytest.fixture(scope="module")
def model() -> OnsetsFrames:
    resolved = weights.resolve("default", name="onsets_frames", default_dir=FOLDER)
    return build_onsets_frames(resolved.config["config"], weights.load_tensors(resolved))


@pytest.fixture(scope="module")
def played() -> np.ndarray:
    """Two voices in contrary motion and a chord: [N, 4] of onset_s, duration_s, pitch, velocity."""
    upper = [(0.5 + 0.3 * step, 0.28, 60 + pitch, 80) for step, pitch in enumerate((0, 2, 4, 5, 7, 9, 11, 12))]
    lower = [(0.5 + 0.6 * step, 0.55, 48 - pitch, 64) for step, pitch in enumerate((0, 1, 3, 5))]
    return np.array([*upper, *lower, *((3.2, 1.0, pitch, 100) for pitch in (48, 55, 64, 72))])


@pytest.fixture(scope="module")
def audio(played: np.ndarray) -> np.ndarray:
    torch.set_num_threads(1)
    times = np.arange(5 * 16_000) / 16_000
    sound = np.zeros(len(times))
    for onset_s, duration_s, pitch, velocity in played:
        since, hz = times - onset_s, 440.0 * 2.0 ** ((pitch - 69) / 12)
        release = np.exp(-20.0 * (since - duration_s).clip(0.0))
        for number in range(1, 13):
            partial_hz = number * hz * np.sqrt(1.0 + 4e-4 * number**2)
            if partial_hz < 7_000:
                decay = np.exp(-(1.0 + 0.5 * number) * since.clip(0.0)) / number**1.3
                sound += np.where(since >= 0, velocity * decay * release * np.sin(2 * np.pi * partial_hz * since), 0.0)
    return (0.2 * sound / np.abs(sound).max()).astype(np.float32)


def test_it_hears_what_was_played_and_when(model, played, audio):
    notes = transcribe_clip(model, audio)
    heard = list(zip(notes.pitch_midi.tolist(), notes.onset_s.tolist(), strict=True))
    found = [
        any(pitch == other and abs(onset_s - at_s) < 0.05 for other, at_s in heard) for onset_s, _, pitch, _ in played
    ]

    assert sum(found) >= 15  # of 16
    assert len(notes) <= 18
    assert notes.velocity.min() >= 1


def test_it_hears_when_keys_are_released(model, played, audio):
    sounds, keys = transcribe_clip(model, audio), transcribe_clip(model, audio, "key")
    assert keys.onset_s.tolist() == sounds.onset_s.tolist() and keys.offset_s.tolist() != sounds.offset_s.tolist()
    late_s = [
        offset_s - (at_s + duration_s)
        for at_s, duration_s, pitch, _ in played
        for onset_s, offset_s, other in zip(keys.onset_s, keys.offset_s, keys.pitch_midi, strict=True)
        if other == pitch and abs(onset_s - at_s) < 0.05
    ]
    assert np.quantile(np.abs(late_s), 0.75) < 0.12


def test_silence_has_no_notes(model):
    assert len(transcribe_clip(model, np.zeros(3 * 16_000, np.float32))) == 0


def test_what_follows_a_window_and_its_context_changes_nothing_in_it(model, audio):
    config = model.config
    reach = (config.window_frames + config.context_frames) * config.hop_length
    longer = np.concatenate([audio, np.zeros(reach - len(audio), np.float32), audio])
    before, after = hear_clip(model, longer[:reach]), hear_clip(model, longer)

    assert np.array_equal(before[: config.window_frames], after[: config.window_frames])


def test_it_is_small(model):
    assert sum(path.stat().st_size for path in (FOLDER / "onsets_frames").iterdir()) < 1_000_000
    assert next(model.parameters()).dtype == torch.float32
