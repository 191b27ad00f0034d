"""YAMNet as a judge: which of AudioSet's 521 classes a clip sounds like (Apache-2.0, int8 TFLite).

Features as in tensorflow/models research/audioset/yamnet (`params.py`, `features.py`): 16 kHz mono, magnitude of a
512-point transform of 25 ms periodic Hann windows every 10 ms (no centring), 64 HTK-mel triangles from 125 to 7500 Hz,
log(mel + 0.001), patches of 96 frames every 48.

A family's score is the highest of its classes' mean scores over the patches, divided by the mean of that number over
calibration clips (rendered clips of the validation split, all families alike), since AudioSet's classes have very
different base rates; the family with the highest ratio is the one that is named (`FamilyJudge`).

Embeddings are the 1024 numbers under the last layer, as in the Frechet audio distance.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from stretto_shared.metrics.spectral import mel_filter_bank

SAMPLE_RATE_HZ = 16_000
WINDOW, HOP, FFT = 400, 160, 512
EMBEDDING_TENSOR = "layer28/reduce_mean"  # int8, 1024 numbers
NUM_BANDS, MIN_HZ, MAX_HZ = 64, 125.0, 7500.0
LOG_OFFSET = 0.001
PATCH_FRAMES, PATCH_HOP = 96, 48

# Our families, and the classes of AudioSet that name them.
FAMILY_CLASSES: Mapping[str, tuple[str, ...]] = {
    "piano": ("Piano",),
    "organ": ("Organ", "Electronic organ", "Hammond organ"),
    "guitar": ("Guitar", "Electric guitar", "Acoustic guitar", "Steel guitar, slide guitar"),
    "strings": ("Bowed string instrument", "String section", "Violin, fiddle", "Cello", "Orchestra"),
    "choir": ("Choir", "Vocal music", "Chant", "A capella"),
    "brass": ("Brass instrument", "French horn", "Trumpet", "Trombone"),
    "saxophone": ("Saxophone",),
    "flute": ("Flute",),
    "mallets": ("Mallet percussion", "Marimba, xylophone", "Glockenspiel", "Vibraphone", "Tubular bells"),
    "harpsichord": ("Harpsichord",),
    "accordion": ("Accordion", "Harmonica"),
    "harp": ("Harp",),
    "bass": ("Bass guitar", "Double bass"),
    "drums": ("Drum", "Drum kit", "Drum machine", "Snare drum", "Bass drum", "Percussion", "Hi-hat"),
}


@dataclass(frozen=True, eq=False)
class Heard:
    """What YAMNet makes of a clip of N patches."""

    scores: NDArray[np.float64]  # [521], means over the patches, 0 to 1
    embeddings: NDArray[np.float64]  # [N, 1024]


class Yamnet:
    """Scores clips; `folder` holds `yamnet_spectra_in.tflite` and `yamnet_class_map.csv`."""

    def __init__(self, folder: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter  # what evals need on top; the rest of this file does not

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors.*")  # 1 MB here
            self._graph = Interpreter(
                str(folder / "yamnet_spectra_in.tflite"), num_threads=1, experimental_preserve_all_tensors=True
            )
        self._graph.allocate_tensors()
        (self._embedding,) = (t for t in self._graph.get_tensor_details() if t["name"].endswith(EMBEDDING_TENSOR))
        with (folder / "yamnet_class_map.csv").open(encoding="utf-8") as file:
            self.classes = [row["display_name"] for row in csv.DictReader(file)]

    def hear(self, samples: NDArray[np.float64]) -> Heard:
        """Scores and embeddings of a clip [S] at 16 kHz."""
        scale, zero = self._embedding["quantization"]
        scores, embeddings = [], []
        for patch in patches(samples):
            self._graph.set_tensor(self._graph.get_input_details()[0]["index"], patch[np.newaxis].astype(np.float32))
            self._graph.invoke()
            scores.append(self._graph.get_tensor(self._graph.get_output_details()[0]["index"])[0])
            embeddings.append(self._graph.get_tensor(self._embedding["index"]).reshape(-1))
        quantized = np.stack(embeddings).astype(np.float64)
        return Heard(np.mean(scores, axis=0, dtype=np.float64), (quantized - zero) * scale)

    def scores(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean class scores [521], 0 to 1, of a clip [S] at 16 kHz."""
        return self.hear(samples).scores


class FamilyJudge:
    """Names the family of `families` that a clip sounds like most, by YAMNet's class scores of the clip.

    Args:
        classes: YAMNet's, in order.
        families: Those to choose from, of `FAMILY_CLASSES`.
        solos: Calibration: class scores [521] of clips in which the named family sounds alone; other families do not
            count.

    Raises:
        ValueError: If no solo is of one of the families.
    """

    def __init__(
        self, classes: Sequence[str], families: Sequence[str], solos: Sequence[tuple[str, NDArray[np.float64]]]
    ) -> None:
        self.families = list(families)
        self._places = [[classes.index(name) for name in FAMILY_CLASSES[family]] for family in families]
        by_family = [[self._raw(scores) for family, scores in solos if family == own] for own in families]
        if not any(by_family):
            raise ValueError(f"no clip in which one of {', '.join(families)} sounds alone: nothing to calibrate with.")
        rows = [np.mean(raws, axis=0) for raws in by_family if raws]
        self._base = np.mean(rows, axis=0) + 1 / 256  # one step of the graph's quantization

    def name(self, scores: NDArray[np.float64]) -> str:
        """The family with the highest score [521] relative to the calibration clips'."""
        return self.families[int(np.argmax(self._raw(scores) / self._base))]

    def _raw(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([max(scores[place] for place in places) for places in self._places])


def log_mel_spectrogram(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """YAMNet's input, [T, 64]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    magnitude = np.abs(np.fft.rfft(frames * taper, FFT, axis=1))
    bank = mel_filter_bank(SAMPLE_RATE_HZ, FFT, NUM_BANDS, min_hz=MIN_HZ, max_hz=MAX_HZ)
    log_mel: NDArray[np.float64] = np.log(magnitude @ bank + LOG_OFFSET)
    return log_mel


def patches(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Patches [N, 96, 64]; a short clip is padded with silence to one patch."""
    needed = WINDOW + (PATCH_FRAMES - 1) * HOP
    frames = log_mel_spectrogram(np.pad(samples, (0, max(0, needed - len(samples)))))
    starts = range(0, len(frames) - PATCH_FRAMES + 1, PATCH_HOP)
    return np.stack([frames[start : start + PATCH_FRAMES] for start in starts])
