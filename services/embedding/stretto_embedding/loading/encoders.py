"""What the engine asks of an encoder, whatever its architecture. Text encoders are in `text.py`.

Legend: S samples, D width of the joint space, Q codebooks of its quantiser, K codebooks of a melody, U its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from stretto_shared.errors import InvalidInput
from stretto_shared.features import ModelInfo


class TextTokenizer(Protocol):
    """An encoder that hears texts, as far as their tokens go."""

    @property
    def info(self) -> ModelInfo:
        """What the service says of it."""

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text that it hears."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text with the encoder's own markers; there may be more than `max_tokens`."""


class JointEncoder(TextTokenizer, Protocol):
    """Texts and recordings as points of one space.

    Every text, window and point is computed by itself, so that none of them changes with its neighbours. What tells
    texts from recordings as such (the modality gap) is out of the values already. Values need not have unit length.
    """

    @property
    def sample_rate_hz(self) -> int:
        """Of the audio that it hears."""

    @property
    def window_samples(self) -> int:
        """Samples of a window."""

    @property
    def stride_samples(self) -> int:
        """Samples from the start of a window to that of the next."""

    @property
    def dimension(self) -> int:
        """Width D of the space."""

    @property
    def temperature(self) -> float:
        """What divides similarities before a softmax."""

    @property
    def default_tags(self) -> tuple[str, ...]:
        """Tags to try on a recording when none are named."""

    def embed_ids(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """One text [D]; runs the model, so it belongs on the model thread, as do the next two."""

    def embed_window(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """One window [S] of mono audio as [D]; shorter than `window_samples` only where a whole recording is."""

    def quantize(self, values: NDArray[np.float32]) -> tuple[int, ...]:
        """The Q codes of a point [D] of unit length; none where `info.num_codebooks` is 0."""


class MelodyEncoder(Protocol):
    """A recording's melody as tokens, similar for one tune whatever plays it."""

    @property
    def info(self) -> ModelInfo:
        """What the service says of it; `frame_rate_hz` is that of the columns."""

    @property
    def sample_rate_hz(self) -> int:
        """Of the audio that it hears."""

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.integer[Any]]:
        """Mono audio [S] to codes [K, U]; runs the model, so it belongs on the model thread."""


def check_length(encoder: TextTokenizer, ids: Sequence[int], field: str) -> None:
    """Refuse a text that is longer than the encoder hears: nothing is cut silently.

    Raises:
        InvalidInput: If it has more tokens, naming `field`.
    """
    if len(ids) > encoder.max_tokens:
        raise InvalidInput(
            field,
            f"expected at most {encoder.max_tokens} tokens for encoder {encoder.info.name!r}, got {len(ids)}. "
            "Shorten the text.",
        )
