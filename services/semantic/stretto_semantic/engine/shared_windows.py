"""`SharedWindows`: windows of streams that wait for one tokenizer at the same moment are heard in one pass.

A stream that wants a window waits its turn on the model thread as ever. Whose turn comes takes others along, if they
wait with a window of the same length and a trial at load found that company changes no bit (`loading.py`); when their
own turns come, their tokens are there. So nobody waits for company, and nobody's tokens depend on it.

Legend: N windows, S samples, T frames.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared.engine.thread import ModelThread

from stretto_semantic.engine.audio_windows import Window
from stretto_semantic.loading import LoadedTokenizer

ObserveRtf = Callable[[float], None]


@dataclass(eq=False)
class _Wish:
    """A stream that waits for a window's tokens [T], or the error of a broken tokenizer; one of them once served."""

    window: Window
    tokens: NDArray[np.int32] | None = None
    error: Exception | None = None

    @property
    def is_served(self) -> bool:
        return self.tokens is not None or self.error is not None


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
        self._thread = thread
        self._observe_rtf = observe_rtf
        self._waiting: list[_Wish] = []
        self._lock = threading.Lock()

    async def tokens(self, window: Window) -> NDArray[np.int32]:
        """The tokens [T] of the frames that the window wants."""
        wish = _Wish(window)
        with self._lock:
            self._waiting.append(wish)
        try:
            return await self._thread.run(partial(self._turn, wish))
        finally:
            self._forget([wish])

    def _turn(self, wish: _Wish) -> NDArray[np.int32]:
        if not wish.is_served:
            self._serve(self._company(wish))
        if wish.error is not None:
            raise wish.error
        assert wish.tokens is not None
        return wish.tokens

    def _company(self, wish: _Wish) -> list[_Wish]:
        """The wish and others of windows as long, taken off the list."""
        with self._lock:
            others = [
                other
                for other in self._waiting
                if other is not wish and not other.is_served and other.window.samples.size == wish.window.samples.size
            ]
        company = [wish, *others[: self._tokenizer.max_joined - 1]]
        self._forget(company)
        return company

    def _forget(self, wishes: Sequence[_Wish]) -> None:
        with self._lock:
            self._waiting = [each for each in self._waiting if each not in wishes]

    def _serve(self, wishes: Sequence[_Wish]) -> None:
        began_s = time.perf_counter()
        try:
            self._hear(wishes)
        except Exception:  # whose fault it is shows when they are served one by one
            for wish in wishes:
                try:
                    self._hear([wish])
                except Exception as error:  # it is raised in the turn of the stream that it belongs to
                    wish.error = error
        taken_s = time.perf_counter() - began_s
        if self._observe_rtf is not None:
            for _ in wishes:
                self._observe_rtf(taken_s * self._tokenizer.frame_rate_hz / sum(w.window.num_frames for w in wishes))

    def _hear(self, wishes: Sequence[_Wish]) -> None:
        samples = torch.from_numpy(np.stack([wish.window.samples for wish in wishes]))  # [N, S]
        silences = [wish.window.silence for wish in wishes]
        ids = self._tokenizer.tokenize(samples, silences).numpy().astype(np.int32)  # [N, T]
        for wish, row in zip(wishes, ids, strict=True):
            window = wish.window
            wish.tokens = row[window.num_before : window.num_before + window.num_frames].copy()
