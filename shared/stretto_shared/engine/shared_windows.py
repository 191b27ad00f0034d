"""`SharedWindows`: windows of audio that wait for one model at the same moment are heard in one pass.

A stream that wants a window waits its turn on the model thread as ever (`shared_turns.py`). Whose turn comes takes
others along, if they wait with a window of the same length, as many as a trial at load found to change no bit. So
nobody waits for company, and what anybody hears does not depend on it. What is made of a window is the model's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from stretto_shared.dsp.audio_windows import Window
from stretto_shared.engine.shared_turns import SharedTurns
from stretto_shared.engine.thread import ModelThread

Heard = TypeVar("Heard")


class SharedWindows(Generic[Heard]):
    """The passes of one model.

    Invariant: each stream gets what it would get alone, its errors too, and has at most one window here;
    `tests/shared/engine/test_shared_windows.py`, and the tests of that name of the services, hold it to that.

    Args:
        thread: The model's thread.
        max_joined: Most windows of one pass.
        hear: What the model makes of each of some windows of one length.
        on_pass: Told what a pass has made, and its seconds.
    """

    def __init__(
        self,
        thread: ModelThread,
        max_joined: int,
        hear: Callable[[Sequence[Window]], Sequence[Heard]],
        on_pass: Callable[[Sequence[Heard], float], None],
    ) -> None:
        self._turns: SharedTurns[Window, Heard] = SharedTurns(
            thread,
            kind_of=lambda window: window.samples.size,
            sizes=range(2, max_joined + 1),
            do_alone=lambda window: hear([window])[0],
            do_together=hear,
            on_pass=on_pass,
        )

    async def hear(self, window: Window, on_start: Callable[[], None] | None = None) -> Heard:
        """What is made of one window; `on_start` is told on the thread when its pass begins."""
        return await self._turns.run(window, on_start)
