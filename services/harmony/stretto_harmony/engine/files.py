"""`ScoreFiles`: files read as scores, and analyses written as files, one at a time on a thread of their own."""

from __future__ import annotations

import enum
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO

from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import InvalidInput

from stretto_harmony.scores.score import Score
from stretto_harmony.writers.written import AnalysisFormat, WrittenAnalysis

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
MAX_TEXT_CHARACTERS = 200


class ScoreFormat(enum.Enum):
    """A format of scores; the value is the suffix of its files."""

    MUSICXML = "musicxml"
    MIDI = "mid"
    HUMDRUM = "krn"


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """A file that holds a score; `field` is where the request has it."""

    data: bytes
    format: ScoreFormat
    field: str = "score.file"


Read = Callable[[bytes, str], Score]
"""The bytes of a file and its suffix to a score; InvalidInput where it holds none."""
Write = Callable[[WrittenAnalysis], bytes]


class ScoreFiles:
    """Reads and writes.

    Invariant: never more than `max_waiting` wait, and who gives up before his turn costs nothing
    (`tests/services/harmony/test_score_files.py`).

    Args:
        read: Reads one file.
        writers: Writes one analysis, by format.
        max_waiting: Files that may wait for the one at work.
    """

    def __init__(self, read: Read, writers: Mapping[AnalysisFormat, Write], *, max_waiting: int = 16) -> None:
        self._read = read
        self._writers = writers
        self._thread = ModelThread("score-files", max_queued=max_waiting)

    async def read(self, file: ScoreFile) -> Score:
        """The score that a file holds.

        Raises:
            InvalidInput: If it is too large, or does not hold one.
            Overloaded: If `max_waiting` files wait already.
        """
        check_size(file)
        return await self._thread.run(partial(self._read_one, file))

    async def write(self, analysis: WrittenAnalysis, format: AnalysisFormat) -> bytes:
        """An analysis as the bytes of a file.

        Raises:
            InvalidInput: If a text is too long, or the file of the score does not go with the score.
            Overloaded: If `max_waiting` files wait already.
        """
        for field in ("title", "analyst"):
            num_characters = len(getattr(analysis, field))
            if num_characters > MAX_TEXT_CHARACTERS:
                raise InvalidInput(
                    field, f"expected at most {MAX_TEXT_CHARACTERS} characters, got {num_characters}. Shorten it."
                )
        return await self._thread.run(partial(self._writers[format], analysis))

    def count_waiting(self) -> int:
        """Count the files that wait."""
        return self._thread.num_queued

    async def stop(self) -> None:
        """Fail what waits."""
        await self._thread.close()

    def _read_one(self, file: ScoreFile) -> Score:
        try:
            return self._read(file.data, file.format.value)
        except InvalidInput as error:
            raise InvalidInput(f"{file.field}.data", error.message, reason=error.reason) from error


def check_size(file: ScoreFile) -> None:
    """Refuse a file that is empty or too large, packed or unpacked, before anything reads it.

    Raises:
        InvalidInput: If it is.
    """
    field, num_bytes = f"{file.field}.data", len(file.data)
    if not 0 < num_bytes <= MAX_FILE_BYTES:
        raise InvalidInput(field, f"expected 1 to {MAX_FILE_BYTES} bytes, got {num_bytes}. Send a part of the piece.")
    if file.format is ScoreFormat.MUSICXML and file.data[:2] == b"PK":
        try:
            with zipfile.ZipFile(BytesIO(file.data)) as packed:
                unpacked = sum(entry.file_size for entry in packed.infolist())
        except (zipfile.BadZipFile, ValueError, OverflowError) as error:
            raise InvalidInput(field, f"expected a compressed MusicXML file, got a broken one: {error}.") from error
        if unpacked > MAX_UNPACKED_BYTES:
            raise InvalidInput(
                field,
                f"expected at most {MAX_UNPACKED_BYTES} bytes unpacked, got {unpacked}. Send a part of the piece.",
            )
