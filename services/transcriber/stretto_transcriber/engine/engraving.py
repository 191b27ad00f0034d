"""`Engraving`: performances whose beats are known, written down one at a time on a thread of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import InvalidInput
from stretto_shared.score import MAX_NAME_CHARACTERS, Score, check_count

MAX_ENGRAVED_NOTES = 20_000
"""As MusicXML they stay well below the size that a message may have."""
MIN_BEATS = 2
MAX_ENGRAVED_BEATS = 10_000
"""An hour and twenty at 120 a minute. Bars take time without notes too, and a score that has begun is finished."""


@dataclass(frozen=True, eq=False)
class EngravedMusic:
    """A score as written, and the same as MusicXML."""

    score: Score
    musicxml: bytes


Engrave = Callable[[Score, str], tuple[Score, bytes]]
"""A performance and its title to the score and its MusicXML; called on one thread, one at a time."""


class Engraving:
    """Scores of performances.

    Invariant: never more than `max_waiting` wait, and one that is given up before its turn is never begun
    (`tests/services/transcriber/test_engrave_score.py`).

    Args:
        engrave: Writes one score.
        max_waiting: Scores that may wait for the one that is being written.
    """

    def __init__(self, engrave: Engrave, *, max_waiting: int = 8) -> None:
        self._engrave = engrave
        self._thread = ModelThread("engraving", max_queued=max_waiting)

    async def engrave(self, score: Score, title: str) -> EngravedMusic:
        """Write down a performance.

        Raises:
            InvalidInput: If it has too many notes or beats, no beats to go by, or too long a title.
            Overloaded: If `max_waiting` scores wait already.
        """
        check_count("score.onset_s", score.num_notes, MAX_ENGRAVED_NOTES)
        check_count("score.beat_s", score.beat_s.size, MAX_ENGRAVED_BEATS)
        if score.beat_s.size < MIN_BEATS:
            raise InvalidInput(
                "score.beat_s",
                f"expected at least {MIN_BEATS} beats to write the notes down by, got {score.beat_s.size}. "
                "Track them in the recording first.",
            )
        if len(title) > MAX_NAME_CHARACTERS:
            raise InvalidInput(
                "title", f"expected at most {MAX_NAME_CHARACTERS} characters, got {len(title)}. Shorten it."
            )
        return EngravedMusic(*await self._thread.run(partial(self._engrave, score, title)))

    def count_waiting(self) -> int:
        """Count the scores that wait."""
        return self._thread.num_queued

    async def stop(self) -> None:
        """Fail what waits."""
        await self._thread.close()
