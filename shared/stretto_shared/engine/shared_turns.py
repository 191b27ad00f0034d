"""`SharedTurns`: pieces of work that wait for one model thread at the same moment, done in one pass.

Who wants work done waits its turn on the thread as ever. Whose turn comes takes others of its kind along, as many as
its model was tried with; when their own turns come, what they want is there. So nobody waits for company. That company
changes no bit is the model's to see to, by a trial at load. Knows neither what the work is nor what comes of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from stretto_shared.engine.thread import ModelThread

Work = TypeVar("Work")
Made = TypeVar("Made")


@dataclass(eq=False)
class _Wish(Generic[Work, Made]):
    """Somebody's work and whom to tell when it begins; what was made of it or the error, and `is_served`, once done."""

    work: Work
    on_start: Callable[[], None] | None = None
    made: Made | None = None
    error: Exception | None = None
    is_served: bool = False


class SharedTurns(Generic[Work, Made]):
    """The passes of one model.

    Invariant: each caller gets what it would get alone, its errors too; a pass that fails is run again one by one, so
    that who fails fails alone. `tests/shared/engine/test_shared_turns.py` holds it to that.

    Args:
        thread: The model's thread.
        kind_of: What has to be equal in one pass; None for work that takes no company.
        sizes: How many may be in one pass, in rising order; 1 is always allowed.
        do_alone: Does one piece of work.
        do_together: Does several; where it raises, it has changed nothing.
        on_pass: Told what a pass has made, and its seconds.
    """

    def __init__(
        self,
        thread: ModelThread,
        *,
        kind_of: Callable[[Work], Hashable | None],
        sizes: Sequence[int],
        do_alone: Callable[[Work], Made],
        do_together: Callable[[Sequence[Work]], Sequence[Made]],
        on_pass: Callable[[Sequence[Made], float], None] | None = None,
    ) -> None:
        self._thread = thread
        self._kind_of = kind_of
        self._sizes = (1, *sizes)
        self._do_alone = do_alone
        self._do_together = do_together
        self._on_pass = on_pass
        self._waiting: list[_Wish[Work, Made]] = []
        self._lock = threading.Lock()

    @property
    def num_waiting(self) -> int:
        """Callers whose work nobody has begun."""
        return len(self._waiting)

    async def run(self, work: Work, on_start: Callable[[], None] | None = None) -> Made:
        """Do a piece of work, in company if there is any; one that is cancelled before its turn is not done.

        Args:
            work: What is to be done.
            on_start: Told on the thread when the pass begins in which it is done first; must not raise.
        """
        wish: _Wish[Work, Made] = _Wish(work, on_start)
        with self._lock:
            self._waiting.append(wish)
        try:
            return await self._thread.run(partial(self._turn, wish))
        finally:
            self._forget([wish])

    def _turn(self, wish: _Wish[Work, Made]) -> Made:
        if not wish.is_served:
            self._serve(self._company(wish))
        if wish.error is not None:
            raise wish.error
        return wish.made  # type: ignore[return-value]  # it was served without an error

    def _company(self, wish: _Wish[Work, Made]) -> list[_Wish[Work, Made]]:
        """The wishes of one pass: this one, and as many of its kind as may be joined, taken off the list."""
        kind = self._kind_of(wish.work)
        with self._lock:
            others = (
                [] if kind is None else [w for w in self._waiting if w is not wish and self._kind_of(w.work) == kind]
            )
        wishes = [wish, *others]
        wishes = wishes[: max(size for size in self._sizes if size <= len(wishes))]
        self._forget(wishes)
        return wishes

    def _forget(self, wishes: Sequence[_Wish[Work, Made]]) -> None:
        with self._lock:
            self._waiting = [each for each in self._waiting if each not in wishes]

    def _serve(self, wishes: Sequence[_Wish[Work, Made]]) -> None:
        for wish in wishes:
            if wish.on_start is not None:
                wish.on_start()
        began_s = time.perf_counter()
        if len(wishes) == 1 or not self._serve_together(wishes):
            for wish in wishes:
                try:
                    wish.made = self._do_alone(wish.work)
                except Exception as error:  # it is raised in the turn of whoever it belongs to
                    wish.error = error
        for wish in wishes:
            wish.is_served = True
        if self._on_pass is not None:
            made = [wish.made for wish in wishes if wish.error is None]
            self._on_pass(made, time.perf_counter() - began_s)  # type: ignore[arg-type]  # made, where no error is

    def _serve_together(self, wishes: Sequence[_Wish[Work, Made]]) -> bool:
        """Serve them in one pass, or tell that it failed and changed nothing."""
        try:
            made = self._do_together([wish.work for wish in wishes])
        except Exception:  # whose fault it is shows when they are served one by one
            return False
        for wish, own in zip(wishes, made, strict=True):
            wish.made = own
        return True
