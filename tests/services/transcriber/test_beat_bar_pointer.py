"""The bar pointer's search against a plain Viterbi over every position of every beat, and its memory."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_transcriber.models.beat_tracker.bar_pointer import BarPointer, Pointing, find_beats

Position = tuple[int, int, int, int]  # metre, beat of the bar, tempo, frame of the beat
NEVER = -1e30


def states_of(model: BarPointer) -> list[Position]:
    return [
        (metre, beat, tempo, place)
        for metre, num_beats in enumerate(model.beats_per_bar)
        for beat in range(num_beats)
        for tempo, interval in enumerate(model.intervals)
        for place in range(interval)
    ]


def step_log(model: BarPointer, now: Position, then: Position) -> float:
    """Log probability of one step of the pointer, written down from the model's description."""
    metre, beat, tempo, place = now
    if place < model.intervals[tempo] - 1:
        return 0.0 if then == (metre, beat, tempo, place + 1) else NEVER
    frames = np.maximum(np.abs(model.intervals - model.intervals[tempo]) - model.free_frames, 0)
    costs = model.tempo_lambda * frames / model.intervals[tempo]
    change = float(-costs[then[2]] - np.log(np.sum(np.exp(-costs))))
    if then[3] != 0:
        return NEVER
    if beat < model.beats_per_bar[metre] - 1:
        return change if then[:2] == (metre, beat + 1) else NEVER
    if then[1] != 0:
        return NEVER
    return change if then[0] == metre else change + model.metre_change_log


def frame_log(model: BarPointer, state: Position, logs: np.ndarray, frame: int) -> float:
    """Log likelihood of one frame in one state; `logs` are [3, T] of beat, downbeat and rest."""
    metre, beat, tempo, place = state
    is_heard = place / model.intervals[tempo] < model.beat_share
    log = logs[2 if not is_heard else 1 if beat == 0 else 0, frame]
    if model.tempo_log_prior is not None:
        log += model.tempo_log_prior[tempo]
    return float(log + (model.metre_log_prior[metre] if model.metre_log_prior else 0.0))


def plain_viterbi(model: BarPointer, logs: np.ndarray) -> float:
    states = states_of(model)
    steps = np.array([[step_log(model, now, then) for then in states] for now in states])  # [now, then]
    best = np.array([frame_log(model, state, logs, 0) for state in states])
    for frame in range(1, logs.shape[1]):
        best = (best[:, None] + steps).max(0) + [frame_log(model, state, logs, frame) for state in states]
    return float(best.max())


def path_log(model: BarPointer, path: Pointing, logs: np.ndarray) -> float:
    """The log likelihood of a path, frame by frame; a step that the model forbids is worth `NEVER`."""
    ends = np.cumsum(model.beats_per_bar)
    tempo_of = {int(interval): tempo for tempo, interval in enumerate(model.intervals)}
    visited = []
    for start, beat, interval in zip(path.frame, path.beat, path.interval):
        metre = int(np.searchsorted(ends, beat, side="right"))
        in_bar = int(beat) - int(ends[metre]) + model.beats_per_bar[metre]
        visited += [(start + place, (metre, in_bar, tempo_of[int(interval)], place)) for place in range(interval)]
    inside = [(int(frame), state) for frame, state in visited if 0 <= frame < logs.shape[1]]
    assert [frame for frame, _ in inside] == list(range(logs.shape[1]))
    heard = sum(frame_log(model, state, logs, frame) for frame, state in inside)
    return heard + sum(step_log(model, now, then) for (_, now), (_, then) in pairwise(inside))


@st.composite
def models(draw: st.DrawFn) -> BarPointer:
    intervals = sorted(draw(st.sets(st.integers(2, 6), min_size=1, max_size=3)))
    metres = draw(st.sampled_from([(1,), (2,), (3,), (1, 2), (2, 3), (3, 1)]))
    some = st.floats(-1.0, 0.0)
    return BarPointer(
        np.array(intervals),
        beats_per_bar=metres,
        tempo_lambda=draw(st.floats(0.0, 12.0)),
        metre_change_log=draw(st.floats(-5.0, 0.0)),
        free_frames=draw(st.sampled_from([0.0, 0.5, 1.0])),
        beat_share=draw(st.sampled_from([0.1, 0.25, 0.5])),
        tempo_log_prior=draw(
            st.none() | st.lists(some, min_size=len(intervals), max_size=len(intervals)).map(np.array)
        ),
        metre_log_prior=draw(st.just(()) | st.tuples(*[some] * len(metres))),
    )


@settings(max_examples=25, deadline=None)
@given(model=models(), num_frames=st.integers(1, 24), seed=st.integers(0, 2**31))
def test_the_search_finds_what_a_plain_viterbi_finds(model: BarPointer, num_frames: int, seed: int) -> None:
    logs = np.log(np.random.default_rng(seed).uniform(0.01, 1.0, (3, num_frames)))
    found = find_beats(model, *logs)
    best = plain_viterbi(model, logs)
    assert found.log_likelihood == pytest.approx(best, abs=1e-8)
    assert path_log(model, found, logs) == pytest.approx(best, abs=1e-8)


def peak_bytes(num_frames: int, metres: tuple[int, ...], intervals: range) -> int:
    model = BarPointer(np.array(intervals), beats_per_bar=metres)
    rest = np.full(num_frames, -0.01)
    tracemalloc.start()
    find_beats(model, rest, rest, rest)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    ("rate_hz", "metres", "intervals", "most_bytes"),
    [(50, (2, 3, 4), range(12, 61), 125e6), (100, (1,), range(25, 121), 50e6), (50, (1,), range(12, 61), 20e6)],
)
def test_an_hour_takes_tens_of_megabytes(
    rate_hz: int, metres: tuple[int, ...], intervals: range, most_bytes: float
) -> None:
    grown = peak_bytes(3_000, metres, intervals) - peak_bytes(1_500, metres, intervals)
    assert 3_600 * rate_hz * grown / 1_500 < most_bytes


@pytest.mark.parametrize(
    ("intervals", "metres", "message"),
    [([1, 3], (1,), "at least 2"), ([], (1,), "at least 2"), ([4, 4], (1,), "rising"), ([4], (), "beats_per_bar")],
)
def test_a_model_without_sense_is_refused(intervals: list[int], metres: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BarPointer(np.array(intervals), beats_per_bar=metres)
