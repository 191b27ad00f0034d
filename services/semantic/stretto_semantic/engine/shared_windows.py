"""`SharedWindows`: windows of streams that wait for one tokenizer at the same moment are heard in one pass.

A stream that wants a window waits its turn on the model thread as ever. Whose turn comes takes others along, if they
wait with a window of the same length and a trial at load found that company changes no bit (`loading.py`); when their
own turns come, their tokens are there. So nobody waits for company, and nobody's tokens depend on it.

Legend: N windows, S samples, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared.dsp.audio_windows import Window
from stretto_shared.engine.shared_turns import SharedTurns
from stretto_shared.engine.thread import ModelThread

from stretto_semantic.loading import LoadedTokenizer

ObserveRtf = Callable[[float], None]


class SharedWindows:
    """The passes of one tokenizer.

    Invariant: each stream gets the tokens and the errors that it would get alone, and has at most one window here;
    `tests/services/semantic/test_shared_windows.py` holds it to that.

    Args:
        tokenizer: What hears.
        thread: Its model thread.
        observe_rtf: Gets, for each window of a pass, the pass's time for a second of its audio.
    """

    def __init__(self, tokenizer: LoadedTokenizer, thread: ModelThread, observe_rtf: ObserveRtf | None) -> None:
        self._tokenizer = tokenizer
        self._observe_rtf = observe_rtf
        self._turns: SharedTurns[Window, NDArray[np.int32]] = SharedTurns(
            thread,
            kind_of=lambda window: window.samples.size,
            sizes=range(2, tokenizer.max_joined + 1),
            do_alone=lambda window: self._hear([window])[0],
            do_together=self._hear,
            on_pass=self._observe,
        )

    async def tokens(self, window: Window, on_start: Callable[[], None] | None = None) -> NDArray[np.int32]:
        """The tokens [T] of the frames that the window wants; `on_start` is told on the thread when it is heard."""
        return await self._turns.run(window, on_start)

    def _hear(self, windows: Sequence[Window]) -> list[NDArray[np.int32]]:
        samples = torch.from_numpy(np.stack([window.samples for window in windows]))  # [N, S]
        ids = self._tokenizer.tokenize(samples, [window.silence for window in windows]).numpy().astype(np.int32)
        return [
            row[window.num_before : window.num_before + window.num_frames].copy()
            for window, row in zip(windows, ids, strict=True)
        ]

    def _observe(self, tokens: Sequence[NDArray[np.int32]], taken_s: float) -> None:
        if self._observe_rtf is not None:
            for _ in tokens:
                self._observe_rtf(taken_s * self._tokenizer.frame_rate_hz / sum(own.size for own in tokens))
