"""WAV, FLAC and OGG files: read as a `Waveform`, written chunk by chunk.

A file is written in blocks of at most 262,144 frames: libsndfile's Vorbis encoder crashes the process on one write of
a minute. It is read in blocks too, so that a header which promises more than the file holds takes no memory for it.
Full scale is [-1, 1]; what is louder is clipped in the file, as these formats demand.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import soundfile
from numpy.typing import NDArray
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput

from stretto_client.files import whole_file

MAX_FRAMES_PER_WRITE = 262_144
MAX_SAMPLES_PER_READ = 2**24
MAX_CHANNELS = 2
MAX_PEAK = 0.99
FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_24"), ".ogg": ("OGG", "VORBIS")}


class AudioFileWriter:
    """Writes consecutive waveforms to one file, which appears only when the block ends without an exception.

    Invariant: all waveforms have the rate and the channels of the first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._format, self._subtype = audio_format(path)
        self._open = ExitStack()
        self._file: Any = None

    def __enter__(self) -> Self:
        self._temporary = self._open.enter_context(whole_file(self.path))
        return self

    def write(self, waveform: Waveform) -> None:
        """Append a waveform.

        Raises:
            InvalidInput: If it has another rate or other channels than the first.
            OSError: If the file cannot be written, as on a full disk.
        """
        with self._named_failures():
            if self._file is None:
                self._file = self._open.enter_context(
                    soundfile.SoundFile(
                        os.fsencode(self._temporary),  # soundfile itself refuses names that are not UTF-8
                        "w",
                        samplerate=waveform.sample_rate_hz,
                        channels=waveform.num_channels,
                        format=self._format,
                        subtype=self._subtype,
                    )
                )
            began = f"{self._file.channels} channels at {self._file.samplerate} Hz"
            got = f"{waveform.num_channels} channels at {waveform.sample_rate_hz} Hz"
            if got != began:
                raise InvalidInput("waveform", f"expected {began}, as the file began, got {got}. Begin another file.")
            frames = waveform.samples.T  # [S, C]
            for start in range(0, len(frames), MAX_FRAMES_PER_WRITE):
                self._file.write(frames[start : start + MAX_FRAMES_PER_WRITE])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None and kind is None:
            nothing = InvalidInput("audio", f"expected audio for {self.path}, got none. Nothing was written.")
            self._open.__exit__(InvalidInput, nothing, None)
            raise nothing
        with self._named_failures():  # closing writes what is left
            self._open.__exit__(kind, error, trace)

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        """Libsndfile's errors as what they are to a caller: a file that cannot be written."""
        try:
            yield
        except soundfile.LibsndfileError as error:
            raise OSError(f"{str(self.path)!r} cannot be written: {error.error_string} Is the disk full?") from error


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
        InvalidInput: If the file is missing, is not audio, is raw samples, or has more than 2 channels.
    """
    with open_audio(path) as file:
        samples = np.concatenate([np.zeros((0, file.num_channels), np.float32), *file.blocks()])  # [S, C]
        return Waveform(samples.T, file.sample_rate_hz)


class AudioFileReader:
    """An open file, to be read from front to back."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.sample_rate_hz = int(file.samplerate)
        self.num_channels = int(file.channels)

    @property
    def promised_s(self) -> float:
        """Its length as its header says; what can be read may be less."""
        return int(self._file.frames) / self.sample_rate_hz

    def waveforms(self, block_s: float) -> Iterator[Waveform]:
        """What is left, in blocks of that length but for the last."""
        size = max(1, min(round(block_s * self.sample_rate_hz), MAX_SAMPLES_PER_READ // self.num_channels))
        for block in self.blocks(size):
            yield Waveform(block.T, self.sample_rate_hz)

    def blocks(self, size: int | None = None) -> Iterator[NDArray[np.float32]]:
        """What is left, [S, C] each, with S at most `size`."""
        size = size or MAX_SAMPLES_PER_READ // self.num_channels
        while len(block := self._file.read(size, dtype="float32", always_2d=True)):
            yield block


@contextmanager
def open_audio(path: Path) -> Iterator[AudioFileReader]:
    """Open a file in any format that libsndfile knows; inside, its errors are InvalidInput too.

    Raises:
        InvalidInput: If the file is missing, is not audio, is raw samples, or has more than 2 channels.
    """
    if not path.is_file():
        raise InvalidInput("path", f"expected an audio file, got {str(path)!r}, which is not a file. Check the name.")
    if path.suffix.lower() == ".raw":  # libsndfile goes by the name here
        raise InvalidInput(
            "path",
            f"expected audio that says its rate and channels, got {str(path)!r}. Convert it to WAV or FLAC first.",
        )
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            if file.channels > MAX_CHANNELS:
                raise InvalidInput(
                    "path",
                    f"expected 1 or 2 channels, got {file.channels} in {str(path)!r}. Mix them down to stereo or mono.",
                )
            yield AudioFileReader(file)
    except soundfile.LibsndfileError as error:
        raise InvalidInput("path", f"expected audio, but {str(path)!r} cannot be read: {error.error_string}") from error
