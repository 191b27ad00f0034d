"""Streams that share passes of a tokenizer: each gets what it gets alone, tokens and errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from stretto_semantic.engine import Tokenizing
from stretto_semantic.engine.tokenizing import hear_tokens
from stretto_semantic.loading import LoadedTokenizer, find_max_joined
from stretto_shared.audio import Waveform
from stretto_shared.dsp.audio_windows import Window
from stretto_shared.dsp.window_grid import Silence
from stretto_shared.engine.shared_windows import SharedWindows
from stretto_shared.engine.thread import ModelThread
from torch import Tensor, nn

BAD = 77.0


class Watched(nn.Module):
    """A tokenizer that notes how many windows each pass took, and fails on one sample; NaN instead where told."""

    def __init__(self, inner: Any, *, gives_nan: bool = False) -> None:
        super().__init__()
        self._inner, self._gives_nan = inner, gives_nan
        self.sample_rate_hz, self.frame_rate_hz = inner.sample_rate_hz, inner.frame_rate_hz
        self.cardinality, self.grid = inner.cardinality, inner.grid
        self.num_windows: list[int] = []
        self.threads: set[int] = set()

    def scores(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        self.num_windows.append(samples.shape[0])
        self.threads.add(threading.get_ident())
        time.sleep(0.002)  # others come to wait meanwhile
        is_bad = (samples == BAD).any(1)
        if bool(is_bad.any()) and not self._gives_nan:
            raise RuntimeError("bad sample")
        scores: Tensor = self._inner.scores(samples, silences)
        return torch.where(is_bad[:, None, None], torch.nan, scores)


def watched(load: Any, **options: Any) -> tuple[LoadedTokenizer, Watched]:
    loaded = load("first")
    tokenizer = Watched(loaded.tokenizer, **options)
    return LoadedTokenizer(loaded.info, tokenizer, max_joined=4), tokenizer


def window_of(tokenizer: LoadedTokenizer, seed: int, *, is_bad: bool = False, num_frames: int = 20) -> Window:
    size = tokenizer.grid.num_samples - (20 - num_frames) * 40
    samples = np.random.default_rng(seed).normal(0, 0.1, size).astype(np.float32)
    if is_bad:
        samples[0] = BAD
    return Window(samples, 0, 5, num_frames)


def passes_of(tokenizer: LoadedTokenizer, thread: ModelThread) -> SharedWindows[Any]:
    return SharedWindows(thread, tokenizer.max_joined, partial(hear_tokens, tokenizer), lambda tokens, taken_s: None)


async def gathered(tokenizer: LoadedTokenizer, windows: list[Window]) -> list[Any]:
    """Ask for all windows while the thread is busy, so that they wait together."""
    thread, gate = ModelThread("first"), threading.Event()
    shared = passes_of(tokenizer, thread)
    try:
        blocker = asyncio.create_task(thread.run(gate.wait))
        tasks = [asyncio.create_task(shared.hear(window)) for window in windows]
        await asyncio.sleep(0)
        gate.set()
        await blocker
        return await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await thread.close()


async def test_waiting_windows_share_passes_up_to_the_limit_and_get_what_they_get_alone(load: Any) -> None:
    tokenizer, model = watched(load)
    windows = [window_of(tokenizer, seed) for seed in range(6)]
    alone = [(await gathered(tokenizer, [window]))[0].tolist() for window in windows]
    model.num_windows.clear()
    together = [tokens.tolist() for tokens in await gathered(tokenizer, windows)]
    assert together == alone and len({tuple(row) for row in alone}) == 6
    assert all(len(row) == 20 for row in alone)
    assert model.num_windows == [4, 2]


class Meter:
    def __init__(self) -> None:
        self.factors: list[float] = []

    def watch_waiting(self, count_waiting: Any) -> None:
        """Nobody asks."""

    def observe_queue_wait(self, wait_s: float) -> None:
        """Not looked at."""

    def observe_rtf(self, real_time_factor: float) -> None:
        self.factors.append(real_time_factor)


def test_a_shared_pass_counts_once_for_each_window_by_the_audio_of_all() -> None:
    meter = Meter()
    tokens = [np.zeros(size, np.int32) for size in (20, 30)]
    Tokenizing({}, meter=meter)._observe_pass(frame_rate_hz=200.0, tokens=tokens, taken_s=0.5)
    assert meter.factors == [2.0, 2.0]  # 0.5 s for 0.25 s of audio


class Silenced(nn.Module):
    """Scores that say how much silence each window was told to have."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.grid, self.sample_rate_hz, self.frame_rate_hz = inner.grid, inner.sample_rate_hz, inner.frame_rate_hz
        self.num_windows: list[int] = []

    def scores(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        self.num_windows.append(len(silences))
        ids = torch.tensor([6 * before + after for before, after in silences])
        return nn.functional.one_hot(ids, 64)[:, None].repeat(1, 28, 1).float()


async def test_each_window_of_a_pass_has_its_own_silence(load: Any) -> None:
    loaded = load("first")
    model: Any = Silenced(loaded.tokenizer)
    tokenizer = LoadedTokenizer(loaded.info, model, max_joined=4)
    silences = [(5, 0), (0, 3), (0, 0), (2, 1)]
    windows = [replace(window_of(tokenizer, 0), silence=silence) for silence in silences]
    together = await gathered(tokenizer, windows)
    assert model.num_windows == [4]
    assert [tokens.tolist() for tokens in together] == [[30] * 20, [3] * 20, [0] * 20, [13] * 20]
    for window, tokens in zip(windows, together, strict=True):
        assert (await gathered(tokenizer, [window]))[0].tolist() == tokens.tolist()


async def test_windows_of_other_lengths_are_not_joined(load: Any) -> None:
    tokenizer, model = watched(load)
    await gathered(tokenizer, [window_of(tokenizer, 0), window_of(tokenizer, 1, num_frames=7), window_of(tokenizer, 2)])
    assert model.num_windows == [2, 1]


@pytest.mark.parametrize("gives_nan", [False, True])
async def test_who_fails_fails_alone(load: Any, gives_nan: bool) -> None:
    tokenizer, _ = watched(load, gives_nan=gives_nan)
    windows = [window_of(tokenizer, seed, is_bad=seed == 1) for seed in range(3)]
    alone = [(await gathered(tokenizer, [window]))[0] for window in windows]
    together = await gathered(tokenizer, windows)
    assert isinstance(together[1], RuntimeError)
    assert [together[index].tolist() for index in (0, 2)] == [alone[index].tolist() for index in (0, 2)]


async def test_a_stream_that_gives_up_while_it_waits_is_not_served(load: Any) -> None:
    tokenizer, model = watched(load)
    thread, gate = ModelThread("first"), threading.Event()
    shared = passes_of(tokenizer, thread)
    try:
        blocker = asyncio.create_task(thread.run(gate.wait))
        tasks = [asyncio.create_task(shared.hear(window_of(tokenizer, seed))) for seed in range(2)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        gate.set()
        await blocker
        assert len(await tasks[0]) == 20
    finally:
        await thread.close()
    assert model.num_windows == [1]


async def test_in_random_schedules_each_stream_gets_the_tokens_that_it_gets_alone(load: Any) -> None:
    tokenizer, model = watched(load)
    generator = np.random.default_rng(0)
    clips = [generator.normal(0, 0.1, int(generator.integers(100, 9000))).astype(np.float32) for _ in range(6)]
    engine = Tokenizing({"first": lambda: tokenizer}, num_threads=1)
    await engine.start()

    async def tokens(clip: Any) -> list[int]:
        async def messages() -> AsyncIterator[Waveform]:
            for part in np.array_split(clip, int(generator.integers(1, 9))):
                await asyncio.sleep(0)
                yield Waveform(part, 8000)

        found: list[int] = []
        async for window in engine.tokenize("", messages()):
            assert window.first_frame_index == len(found)
            found += window.tokens.codes[0].tolist()
        return found

    try:
        alone = [await tokens(clip) for clip in clips]
        assert set(model.num_windows) == {1}
        for _ in range(8):
            assert await asyncio.gather(*(tokens(clip) for clip in clips)) == alone
    finally:
        await engine.stop()
    assert max(model.num_windows) > 1
    assert len(model.threads) == 1 and threading.get_ident() not in model.threads


class Leaning(nn.Module):
    """Scores that lean on the neighbours from `breaks_at` windows on."""

    def __init__(self, inner: Any, breaks_at: int) -> None:
        super().__init__()
        self._inner, self._breaks_at = inner, breaks_at
        self.grid = inner.grid

    def scores(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        scores: Tensor = self._inner.scores(samples, silences)
        return scores + (1e-6 if samples.shape[0] >= self._breaks_at else 0)


@pytest.mark.parametrize(("breaks_at", "limit", "expected"), [(9, 4, 4), (4, 4, 3), (3, 8, 2), (2, 8, 1), (1, 1, 1)])
def test_as_many_windows_share_a_pass_as_a_trial_finds_to_change_nothing(
    make: Any, breaks_at: int, limit: int, expected: int
) -> None:
    tokenizer: Any = Leaning(make("first"), breaks_at)
    assert find_max_joined(tokenizer, limit) == expected
