"""Files as scores and analyses: each reader takes bytes or text and raises `InvalidInput` on what it cannot read."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from stretto_shared.errors import InvalidInput

from stretto_harmony.readers import humdrum, midi, musicxml
from stretto_harmony.scores.score import Score

READERS: Mapping[str, Callable[[bytes], Score]] = MappingProxyType(
    {
        "musicxml": musicxml.read_score,
        "xml": musicxml.read_score,
        "mxl": musicxml.read_score,
        "mid": midi.read_score,
        "midi": midi.read_score,
        "krn": humdrum.read_score,
    }
)
"""By the suffix of a file's name."""


def read_score(data: bytes, suffix: str) -> Score:
    """The score in `data`, a file of the kind that `suffix` (without its dot, in any case) names.

    Raises:
        InvalidInput: When no reader takes the suffix, or the reader cannot read the bytes.
    """
    read = READERS.get(suffix.lower())
    if read is None:
        raise InvalidInput("format", f"expected one of {', '.join(READERS)}, got {suffix[:20]!r}. Convert the score.")
    return read(data)


__all__ = ["READERS", "read_score"]
