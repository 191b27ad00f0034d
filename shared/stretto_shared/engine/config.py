"""`TokenEngineConfig`: the limits of one token engine."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenEngineConfig:
    """Limits of one engine.

    Args:
        max_slots: Requests that run at the same time.
        max_queued: Requests that wait for a slot; more fail with Overloaded.
        first_block_frames: Frames in the first block of a request, few for a short wait.
        block_frames: Most frames in the blocks after it, each of which is twice as long as the one before; a real-time
            stream whose audio runs out gets fewer, sooner. The last blocks have no more frames than are left to make,
            or than the first one, so that a decoder has little to do when the last frame is there.
        max_unread_blocks: Blocks that a reader may lag behind before its request pauses.
        prefill_columns: Columns of known frames (prompt, resume) that one pass reads on top of one for each request.
        kv_budget_bytes: Memory that the caches of all running requests may take.
        realtime_utilisation: Share of the time of playing that making real-time streams may take, 0 to 1.
        realtime_lead_s: Audio that a real-time stream gets ahead before best-effort requests are served.
        realtime_max_lead_s: A real-time stream that is so far ahead of its listener rests until it is `realtime_lead_s`
            less, or until the others are made to go on: what it makes now would be in the way of those who need it now.
        first_frames_target_s: When a real-time stream should have its first frames, after it took its slot.
        max_realtime_wait_s: A real-time stream that would wait longer for a slot is refused.
        promise_s: How long a real-time stream that was told that there is room counts as one that runs, until it comes.
    """

    max_slots: int = 4
    max_queued: int = 16
    first_block_frames: int = 5
    block_frames: int = 25
    max_unread_blocks: int = 8
    prefill_columns: int = 16
    kv_budget_bytes: int = 4 << 30
    realtime_utilisation: float = 0.85
    realtime_lead_s: float = 1.0
    realtime_max_lead_s: float = math.inf
    first_frames_target_s: float = 0.5
    max_realtime_wait_s: float = 1.0
    promise_s: float = 2.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
            if isinstance(value, float) and not value > 0:
                raise ValueError(f"{name} must be more than 0, got {value:g}.")
        if not self.realtime_max_lead_s > self.realtime_lead_s:
            raise ValueError(
                f"realtime_max_lead_s must be more than realtime_lead_s, {self.realtime_lead_s:g}, "
                f"got {self.realtime_max_lead_s:g}."
            )
        if self.realtime_utilisation > 1:
            raise ValueError(f"realtime_utilisation must be at most 1, got {self.realtime_utilisation:g}.")

    def block_size(self, num_blocks_before: int) -> int:
        """Frames in the block after so many: a decoder that needs more than the first has them soon."""
        if num_blocks_before == 0:
            return self.first_block_frames
        doublings = min(num_blocks_before, self.block_frames.bit_length())
        return min(self.block_frames, self.first_block_frames << doublings)
