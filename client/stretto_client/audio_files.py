"""WAV, FLAC and OGG files: read as a `Waveform`, written chunk by chunk.

A file is written in blocks of at most 262,144 frames: libsndfile's Vorbis encoder crashes the process on one write of
a minute. Full scale is [-1, 1]; what is louder is clipped in the file, as these formats demand.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import soundfile
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput

from stretto_client.files import whole_file

MAX_FRAMES_PER_WRITE = 262_144
MAX_PEAK = 0.99
FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_24"), ".ogg": ("OGG", "VORBIS")}


class AudioFileWriter:
    """Writes consecutive waveforms to one file, which appears only when the block ends without an exception.

    Invariant: all waveforms have the rate and the channels of the first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._format, self._subtype = audio_format(path)
        self._whole_file = whole_file(path)
        self._file: Any = None

    def __enter__(self) -> Self:
        self._temporary = self._whole_file.__enter__()
        return self

    def write(self, waveform: Waveform) -> None:
        """Append a waveform."""
        if self._file is None:
            self._file = soundfile.SoundFile(
                self._temporary,
                "w",
                samplerate=waveform.sample_rate_hz,
                channels=waveform.num_channels,
                format=self._format,
                subtype=self._subtype,
            )
        frames = waveform.samples.T  # [S, C]
        for start in range(0, len(frames), MAX_FRAMES_PER_WRITE):
            self._file.write(frames[start : start + MAX_FRAMES_PER_WRITE])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        elif kind is None:
            kind = InvalidInput
            error = InvalidInput("audio", f"expected audio for {self.path}, got none. Nothing was written.")
            self._whole_file.__exit__(kind, error, None)
            raise error
        self._whole_file.__exit__(kind, error, trace)


def audio_format(path: Path) -> tuple[str, str]:
    """The format and subtype, in libsndfile's words, for a file name.

    Raises:
        InvalidInput: If the suffix is none of the known ones.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(FORMATS)
        raise InvalidInput("path", f"expected a file that ends in {known}, got {str(path)!r}. Rename it.") from None


def within_full_scale(waveform: Waveform) -> tuple[Waveform, float]:
    """The waveform turned down so that its peak is 0.99 at most, and the gain in dB: 0 where it fits already."""
    peak = float(np.abs(waveform.samples).max()) if waveform.num_samples else 0.0
    if peak <= MAX_PEAK:
        return waveform, 0.0
    gain = MAX_PEAK / peak
    return Waveform(waveform.samples * np.float32(gain), waveform.sample_rate_hz), 20 * math.log10(gain)


def write_audio(path: Path, waveform: Waveform) -> None:
    """Write one clip."""
    with AudioFileWriter(path) as writer:
        writer.write(waveform)


def read_audio(path: Path) -> Waveform:
    """Read one clip in any format that libsndfile knows, at its own rate.

    Raises:
        InvalidInput: If the file is missing, is not audio, or has more than 2 channels.
    """
    if not path.is_file():
        raise InvalidInput("path", f"expected an audio file, got {str(path)!r}, which is not a file. Check the name.")
    try:
        samples, sample_rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InvalidInput("path", f"expected audio, but {str(path)!r} cannot be read: {error}") from error
    return Waveform(samples.T, int(sample_rate_hz))
