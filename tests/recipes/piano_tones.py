"""Clips of the piano corpus' form, made in seconds: decaying tones, two at a time, keys that go up before they end."""

from pathlib import Path

import numpy as np
import soundfile


def write_clip(folder: Path, name: str, seed: int) -> None:
    """Six seconds of decaying tones, two at a time."""
    rng = np.random.default_rng(seed)
    times = np.arange(6 * 16_000) / 16_000
    audio, notes = np.zeros(len(times)), []
    for onset_s in np.arange(0.3, 5.5, 0.3):
        for pitch in rng.choice(np.arange(50, 80), 2, replace=False):
            since = times - onset_s
            sounds = (since >= 0) & (since < 0.28)
            hz = 440 * 2 ** ((pitch - 69) / 12)
            tone = sum(np.sin(2 * np.pi * hz * k * since) / k for k in range(1, 5))
            audio += np.where(sounds, tone * np.exp(-4 * since.clip(0)) * 0.1, 0)
            notes.append((onset_s, onset_s + 0.28, pitch, 80, onset_s + 0.2))
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.wav", audio, 16_000, subtype="PCM_16")
    np.save(folder / f"{name}.npy", np.array(notes, np.float32))
