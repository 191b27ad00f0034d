"""Pictures, drawn with matplotlib into a PNG, PDF or SVG: a clip's spectrogram in decibels, a score's piano roll."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.score import Score

from stretto_client.files import whole_file

WINDOW_LENGTH = 2048
HOP_LENGTH = 512
FLOOR_DB = -80.0
SUFFIXES = (".png", ".pdf", ".svg")


def power_spectrogram_db(waveform: Waveform) -> NDArray[np.float64]:
    """Power of the mono mix in decibels below its loudest point, [WINDOW_LENGTH // 2 + 1, T], not below -80."""
    samples = waveform.mono().samples[0].astype(np.float64)
    padded = np.pad(samples, WINDOW_LENGTH // 2, mode="constant")
    if len(padded) < WINDOW_LENGTH:
        padded = np.pad(padded, (0, WINDOW_LENGTH - len(padded)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_LENGTH)[::HOP_LENGTH]
    power: NDArray[np.float64] = np.abs(np.fft.rfft(windows * np.hanning(WINDOW_LENGTH), axis=1)).T ** 2
    decibels = 10.0 * np.log10(np.maximum(power, 1e-12))
    below_loudest: NDArray[np.float64] = np.maximum(decibels - decibels.max(), FLOOR_DB)
    return below_loudest


def draw_spectrogram(path: Path, waveform: Waveform, title: str) -> None:
    """Write the picture of a clip to `path`.

    Raises:
        InvalidInput: If the suffix is none of `SUFFIXES`, or the clip is empty.
    """
    check_picture_path(path)
    if waveform.num_samples == 0:
        raise InvalidInput("waveform", "expected audio to draw, got none.")
    # matplotlib is slow to import, and no other command draws
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    decibels = power_spectrogram_db(waveform)
    frequencies_hz = np.linspace(0.0, waveform.sample_rate_hz / 2, decibels.shape[0])
    times_s = np.arange(decibels.shape[1]) * HOP_LENGTH / waveform.sample_rate_hz
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    wave_axes, spectrum_axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 4))
    wave_times_s = np.arange(waveform.num_samples) / waveform.sample_rate_hz
    wave_axes.plot(wave_times_s, waveform.mono().samples[0], linewidth=0.3, color="#334466")
    wave_axes.set(ylim=(-1, 1), ylabel="amplitude")
    # people write $ for money and names of files need not be UTF-8; neither is a reason for no picture
    wave_axes.set_title(title.encode("utf-8", "replace").decode("utf-8"), parse_math=False)
    image = spectrum_axes.pcolormesh(times_s, frequencies_hz, decibels, cmap="magma", vmin=FLOOR_DB, vmax=0)
    spectrum_axes.set_yscale("symlog", linthresh=500, linscale=0.5)
    spectrum_axes.set(
        ylim=(0, waveform.sample_rate_hz / 2), xlim=(0, waveform.duration_s), xlabel="time (s)", ylabel="frequency (Hz)"
    )
    spectrum_axes.set_yticks([0, 250, 500, 1000, 2000, 4000, 8000], ["0", "250", "500", "1k", "2k", "4k", "8k"])
    figure.colorbar(image, ax=[wave_axes, spectrum_axes], label="dB below the loudest")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format=path.suffix.lower().removeprefix("."))


def draw_piano_roll(path: Path, score: Score, title: str, duration_s: float) -> None:
    """Write a picture of a score to `path`: its notes over time and pitch, coloured by velocity, and its beats.

    Raises:
        InvalidInput: If the suffix is none of `SUFFIXES`.
    """
    check_picture_path(path)
    # matplotlib is slow to import, and no other command draws
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(40.0, max(10.0, duration_s / 4)), 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    low, high = score.pitch_midi - 0.45, score.pitch_midi + 0.45
    begin, end = score.onset_s, score.offset_s
    corners = np.stack([np.stack([x, y], -1) for x, y in ((begin, low), (begin, high), (end, high), (end, low))], 1)
    notes = PolyCollection(list(corners), cmap="viridis", array=score.velocity, clim=(1, 127))
    axes.add_collection(notes)
    for index, beat_s in enumerate(score.beat_s):
        is_downbeat = bool(score.beat_in_bar.size) and score.beat_in_bar[index] == 1
        axes.axvline(beat_s, color="#bbbbbb", linewidth=0.8 if is_downbeat else 0.3, zorder=0)
    lowest, highest = (int(score.pitch_midi.min()), int(score.pitch_midi.max())) if score.num_notes else (21, 108)
    octaves = range(12 * (lowest // 12), highest + 13, 12)
    axes.set_yticks(list(octaves), [f"C{pitch // 12 - 1}" for pitch in octaves])
    axes.set(xlim=(0, max(duration_s, score.end_s)), ylim=(lowest - 2, highest + 2), xlabel="time (s)", ylabel="pitch")
    axes.set_title(title.encode("utf-8", "replace").decode("utf-8"), parse_math=False)
    figure.colorbar(notes, ax=axes, label="velocity")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format=path.suffix.lower().removeprefix("."))


def check_picture_path(path: Path) -> None:
    """Refuse a file name that no picture can have.

    Raises:
        InvalidInput: If the suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput("picture", f"expected a file that ends in {', '.join(SUFFIXES)}, got {str(path)!r}.")
