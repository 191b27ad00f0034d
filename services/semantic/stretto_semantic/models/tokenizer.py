"""What every semantic tokenizer offers.

Legend: N windows, S samples, T frames, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stretto_shared.dsp.window_grid import Silence, WindowGrid
from torch import Tensor


class Listener(Protocol):
    """A model in eval mode that hears windows; `features` belongs on its model thread."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the mono audio that it hears."""

    @property
    def frame_rate_hz(self) -> float:
        """Frames a second: the rate of the audio by the grid's hop."""

    @property
    def width(self) -> int:
        """Of its features."""

    @property
    def grid(self) -> WindowGrid:
        """On what windows it hears."""

    def features(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        """What it makes of each frame heard, contexts included: [N, T * hop + 2 * margin] to [N, T, D].

        `silences` has an entry for each window.
        """


class Tokenizer(Protocol):
    """A tokenizer in eval mode; `scores` belongs on its model thread."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the mono audio that it hears."""

    @property
    def frame_rate_hz(self) -> float:
        """Tokens a second: the rate of the audio by the grid's hop."""

    @property
    def cardinality(self) -> int:
        """Ids are in [0, cardinality)."""

    @property
    def grid(self) -> WindowGrid:
        """On what windows it hears."""

    def scores(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        """How well each id fits each frame heard, contexts included: [N, T * hop + 2 * margin] to [N, T, V].

        The highest score is the token. `silences` has an entry for each window.
        """
