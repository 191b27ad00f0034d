"""`Starts`: how much audio a listener's piece has in hand when its first goes out, since players have no buffer.

The clock of a player starts with the first chunk, and the chunks of all pieces come out of the same codec one after
another: beside others the next one takes longer, the more of them there are. So a piece for a listener holds its
first chunks back until they outlast the others' turns. One alone is sent its first chunk at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from stretto_orchestrator.flows.events import AudioChunk, Progress


class Starts:
    """The pieces that a door makes for listeners now.

    Invariant: what comes out is what came in, in its order but for progress that overtakes held audio; nothing is held
    once the first audio is out.

    Args:
        lead_per_piece_s: Audio that a piece needs in hand for each other piece, before its first goes out.
    """

    def __init__(self, lead_per_piece_s: float = 0.0) -> None:
        self._lead_per_piece_s = lead_per_piece_s
        self._num_pieces = 0

    async def held(
        self, made: AsyncGenerator[Progress | AudioChunk, None]
    ) -> AsyncGenerator[Progress | AudioChunk, None]:
        """The events of one piece, which counts as long as this runs; closes them."""
        self._num_pieces += 1
        try:
            async with aclosing(made):
                async for event in self._from_lead(made):
                    yield event
        finally:
            self._num_pieces -= 1

    async def _from_lead(
        self, made: AsyncGenerator[Progress | AudioChunk, None]
    ) -> AsyncGenerator[Progress | AudioChunk, None]:
        waiting: list[AudioChunk] = []
        has_begun = False
        async for event in made:
            if has_begun or isinstance(event, Progress):
                yield event
                continue
            waiting.append(event)
            in_hand_s = sum(chunk.waveform.duration_s for chunk in waiting)
            if in_hand_s >= self._lead_per_piece_s * (self._num_pieces - 1):
                has_begun = True
                for chunk in waiting:
                    yield chunk
        if not has_begun:
            for chunk in waiting:
                yield chunk
