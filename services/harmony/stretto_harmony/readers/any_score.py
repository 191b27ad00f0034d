"""A file of any known format as a score, chosen by its suffix."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stretto_shared.errors import InvalidInput

from stretto_harmony.readers import humdrum, musicxml
from stretto_harmony.scores.score import Score

READERS: Mapping[str, Callable[[bytes], Score]] = {
    "musicxml": musicxml.read_score,
    "krn": humdrum.read_score,
}


def read_score(data: bytes, suffix: str) -> Score:
    """The score that a file holds.

    Args:
        data: The file.
        suffix: `musicxml`, plain or compressed, `mid` or `krn`.

    Raises:
        InvalidInput: When it holds none.
    """
    if suffix not in READERS:
        raise InvalidInput("score", f"expected one of {', '.join(READERS)}, got {suffix!r}. Convert the file.")
    return READERS[suffix](data)
