"""`SharedWindows`: windows of streams that wait for one model at the same moment are heard in one pass.

A stream that wants a window waits its turn on the model thread as ever. Whose turn comes takes others along, as many as
a trial at load found to change no bit (`loading.py`); when their own turns come, what they want is there. So nobody
waits for company, and nobody's notes depend on it. All windows of a model have the same shape.

Legend: N windows, S samples, T frames, P numbers that a model gives of each frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from stretto_shared.dsp.audio_windows import Window
from stretto_shared.engine.shared_turns import SharedTurns
from stretto_shared.engine.thread import ModelThread

from stretto_transcriber.loading import LoadedListener

ObservePass = Callable[[int, float], None]


class SharedWindows:
    """The passes of one model.

    Invariant: each stream gets the frames and the errors that it would get alone, and has at most one window here;
    `tests/services/transcriber/test_shared_windows.py` holds it to that.

    Args:
        loaded: What hears.
        thread: Its model thread.
        observe_pass: Told of each pass how many windows shared it, and its seconds.
    """

    def __init__(self, loaded: LoadedListener, thread: ModelThread, observe_pass: ObservePass) -> None:
        self._loaded = loaded
        self._turns: SharedTurns[Window, NDArray[np.float32]] = SharedTurns(
            thread,
            kind_of=lambda window: window.samples.size,
            sizes=range(2, loaded.max_joined + 1),
            do_alone=lambda window: self._hear([window])[0],
            do_together=self._hear,
            on_pass=lambda heard, taken_s: observe_pass(len(heard), taken_s),
        )

    async def frames(self, window: Window, on_start: Callable[[], None] | None) -> NDArray[np.float32]:
        """What is heard in the frames [T, P] that the window wants; `on_start` is told when its pass begins."""
        return await self._turns.run(window, on_start)

    def _hear(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        heard = self._loaded.hear(np.stack([window.samples for window in windows]))  # [N, T, P]
        return [row[: window.num_frames].copy() for window, row in zip(windows, heard, strict=True)]
