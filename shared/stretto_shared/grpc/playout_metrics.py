"""How streams sound to those who hear them while they are made: gaps, underruns and continuity of any such stage.

The acoustic stage counts blocks of frames of each language model; the orchestrator counts chunks of audio of each
cascade, which is what a listener hears. Names and labels are the same, so that one query shows where a gap began.
"""

from __future__ import annotations

from stretto_shared.grpc.metrics import LATENCY_BUCKETS_S, Metrics

UNDERRUN_BUCKETS_S = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class PlayoutMetrics:
    """The play-out of the streams of one model, or of one cascade, of one stage. Cheap and safe from any thread."""

    def __init__(self, metrics: Metrics, stage: str, model: str) -> None:
        label = ("stage", "model")
        self._names = (stage, model)
        self._gap = metrics.histogram(
            "stretto_chunk_gap_s",
            "Seconds between two messages of one stream: blocks of frames, at the orchestrator chunks of audio",
            label,
            LATENCY_BUCKETS_S,
        ).labels(stage, model)
        self._underrun = metrics.histogram(
            "stretto_audio_underrun_s",
            "Seconds that a listener who began at the first message would have waited in silence, of each ended stream",
            (*label, "pace"),
            UNDERRUN_BUCKETS_S,
        )
        self._continuity = metrics.counter(
            "stretto_audio_continuity",
            "Ended streams, by whether such a listener heard no gap",
            (*label, "pace", "ok"),
        )

    def observe_gap(self, gap_s: float) -> None:
        """The time between a message and the one before it."""
        self._gap.observe(gap_s)

    def observe_stream(self, underrun_s: float, *, is_realtime: bool, is_continuous: bool) -> None:
        """A stream that ended, whole or not, after its first message."""
        pace = "realtime" if is_realtime else "best_effort"
        self._underrun.labels(*self._names, pace).observe(underrun_s)
        self._continuity.labels(*self._names, pace, "true" if is_continuous else "false").inc()
