"""`SharedTurns`: pieces of work that wait for one model thread at the same moment, done in one pass.

Who wants work done takes a turn on the thread as ever. Whoever's turn it is, the most urgent work is done, with as many
others of its kind as the model was tried with; each is told as soon as its own is done. Nobody waits for company who
does not say that there is time, and nobody when all who could come are there. That company changes no bit is the
model's to see to, by a trial at load. Knows neither what the work is nor what comes of it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from stretto_shared.engine.thread import ModelThread, deliver

Work = TypeVar("Work")
Made = TypeVar("Made")


@dataclass(eq=False)
class _Wish(Generic[Work, Made]):
    """Somebody's work, whom to tell when it begins, where what is made of it goes, and whether it waits for company."""

    work: Work
    made: asyncio.Future[Made]
    on_start: Callable[[], None] | None = None
    is_patient: bool = False
    all_are_here: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Made | None = None
    error: Exception | None = None


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
        urgency_of: What is done first: the least. None is for the order in which it came.
        count_callers: How many callers there are, those counted who have no work just now; None where nobody knows.
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
        urgency_of: Callable[[Work], float] | None = None,
        count_callers: Callable[[], int] | None = None,
    ) -> None:
        self._thread = thread
        self._kind_of = kind_of
        self._sizes = (1, *sizes)
        self._do_alone = do_alone
        self._do_together = do_together
        self._on_pass = on_pass
        self._urgency_of = urgency_of or (lambda work: 0.0)
        self._count_callers = count_callers
        self._waiting: list[_Wish[Work, Made]] = []
        self._lock = threading.Lock()

    @property
    def num_waiting(self) -> int:
        """Callers whose work nobody has begun."""
        return len(self._waiting)

    async def run(self, work: Work, on_start: Callable[[], None] | None = None, *, patience_s: float = 0.0) -> Made:
        """Do a piece of work, in company if there is any; one that is cancelled before its turn is not done.

        Args:
            work: What is to be done.
            on_start: Told on the thread when the pass begins in which it is done first; must not raise.
            patience_s: How long it takes no turn of its own, but may be done in another's; less if all callers wait.
        """
        wish: _Wish[Work, Made] = _Wish(work, asyncio.get_running_loop().create_future(), on_start, patience_s > 0)
        with self._lock:
            self._waiting.append(wish)
        self.look_who_is_here()
        try:
            if wish.is_patient:
                await self._be_patient(wish, patience_s)
            while not wish.made.done():  # another's work may be done in this one's turn
                await self._take_turn(wish)
            return await wish.made
        finally:
            self._forget([wish])

    def look_who_is_here(self) -> None:
        """Let nobody be patient any more if all callers wait; to be called on the event loop when one has left."""
        if self._count_callers is None or len(self._waiting) < self._count_callers():
            return
        for wish in self._waiting:
            wish.is_patient = False
            wish.all_are_here.set()

    async def _be_patient(self, wish: _Wish[Work, Made], patience_s: float) -> None:
        """Return when the work is done, all callers are there, or patience ends."""
        company = asyncio.ensure_future(wish.all_are_here.wait())
        either: list[asyncio.Future[Any]] = [wish.made, company]
        try:
            await asyncio.wait(either, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            company.cancel()
        wish.is_patient = False

    async def _take_turn(self, wish: _Wish[Work, Made]) -> None:
        """Return when this wish's turn is over, or it was served in another's."""
        turn = asyncio.ensure_future(self._thread.run(self._serve_most_urgent))
        either: list[asyncio.Future[Any]] = [turn, wish.made]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not wish.made.done():
                turn.result()
        finally:
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)

    def _serve_most_urgent(self) -> None:
        """Do one pass, if anybody waits still."""
        if wishes := self._next_pass():
            self._serve(wishes)

    def _next_pass(self) -> list[_Wish[Work, Made]]:
        """The most urgent wish and as many of its kind as may be joined, taken off the list."""
        with self._lock:
            waiting = sorted(self._waiting, key=lambda wish: self._urgency_of(wish.work))  # stable: equals as they came
        first = next((wish for wish in waiting if not wish.is_patient), None)
        if first is None:
            return []
        kind = self._kind_of(first.work)
        others = [
            wish for wish in waiting if wish is not first and kind is not None and self._kind_of(wish.work) == kind
        ]
        wishes = [first, *others]
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
                    wish.outcome = self._do_alone(wish.work)
                except Exception as error:  # it is raised where it was asked for
                    wish.error = error
        taken_s = time.perf_counter() - began_s
        if self._on_pass is not None:
            made = [wish.outcome for wish in wishes if wish.error is None]
            self._on_pass(made, taken_s)  # type: ignore[arg-type]  # made, where no error is
        for wish in wishes:
            deliver(wish.made.get_loop(), wish.made, wish.outcome, wish.error)

    def _serve_together(self, wishes: Sequence[_Wish[Work, Made]]) -> bool:
        """Serve them in one pass, or tell that it failed and changed nothing."""
        try:
            made = self._do_together([wish.work for wish in wishes])
        except Exception:  # whose fault it is shows when they are served one by one
            return False
        for wish, own in zip(wishes, made, strict=True):
            wish.outcome = own
        return True
