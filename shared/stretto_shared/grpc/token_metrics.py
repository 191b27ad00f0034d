"""What the token engine of one model reports to Prometheus; the names are close to those of the field.

Tokens per second are `rate(stretto_tokens_total)`; the share of streams that played on is that of `ok="true"` in
`stretto_audio_continuity_total`.
"""

from __future__ import annotations

from collections.abc import Callable

from stretto_shared.grpc.metrics import Metrics
from stretto_shared.grpc.playout_metrics import PlayoutMetrics

STEP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.15, 0.3, 1.0)
ROW_BUCKETS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)


class TokenStageMetrics:
    """The token engine's meter for one model of one stage. Cheap and safe from any thread."""

    def __init__(self, metrics: Metrics, stage: str, model: str) -> None:
        label = ("stage", "model")
        self._playout = PlayoutMetrics(metrics, stage, model)
        self._running = metrics.gauge(
            "stretto_stage_running_requests", "Requests that hold a slot now, cancelled ones excluded", label
        ).labels(stage, model)
        self._slots = metrics.gauge("stretto_stage_slots", "Slots that there are", label).labels(stage, model)
        self._kv_bytes = metrics.gauge(
            "stretto_kv_cache_bytes", "Bytes that the attention caches of running requests take", label
        ).labels(stage, model)
        self._kv_budget = metrics.gauge(
            "stretto_kv_cache_budget_bytes", "Bytes that they may take; requests wait beyond it", label
        ).labels(stage, model)
        self._step = metrics.histogram(
            "stretto_step_s", "Seconds of one pass of the model", label, STEP_BUCKETS_S
        ).labels(stage, model)
        self._rows = metrics.histogram(
            "stretto_step_rows",
            "Rows of one pass: two for a guided request, more while it reads a prompt",
            label,
            ROW_BUCKETS,
        ).labels(stage, model)
        self._tokens = metrics.counter("stretto_tokens", "Tokens handed out", label).labels(stage, model)
        self._first_frames = metrics.histogram(
            "stretto_request_ttff_s", "Seconds between a request's arrival and its first frames", label
        ).labels(stage, model)

    def watch_slots(self, num_slots: int, count_used: Callable[[], int]) -> None:
        """Ask how many slots are used whenever somebody looks."""
        self._slots.set(num_slots)
        self._running.set_function(count_used)

    def watch_kv(self, budget_bytes: int, count_bytes: Callable[[], int]) -> None:
        """Ask how many cache bytes are used whenever somebody looks."""
        self._kv_budget.set(budget_bytes)
        self._kv_bytes.set_function(count_bytes)

    def observe_step(self, step_s: float, num_rows: int) -> None:
        """One pass."""
        self._step.observe(step_s)
        self._rows.observe(num_rows)

    def observe_first_frames(self, wait_s: float) -> None:
        """How long one request waited for its first frames."""
        self._first_frames.observe(wait_s)

    def observe_chunk(self, num_tokens: int, gap_s: float | None) -> None:
        """One block, and the time since the one before it."""
        self._tokens.inc(num_tokens)
        if gap_s is not None:
            self._playout.observe_gap(gap_s)

    def observe_stream(self, underrun_s: float, *, is_realtime: bool) -> None:
        """A request that ended, whole or not."""
        self._playout.observe_stream(underrun_s, is_realtime=is_realtime, is_continuous=underrun_s == 0)
