"""Streams that share passes of a model: each gets what it gets alone, frames and errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import tiny_listeners
import torch
from stretto_shared.audio import Waveform
from stretto_shared.dsp.audio_windows import Window
from stretto_shared.engine.shared_windows import SharedWindows
from stretto_shared.engine.thread import ModelThread
from stretto_shared.features import ModelInfo
from stretto_transcriber.engine import Hearing, Transcribing
from stretto_transcriber.engine.hearing import hear_frames
from stretto_transcriber.loading import LoadedTranscriber, find_max_joined
from stretto_transcriber.models.hearing import NoteListener
from torch import Tensor

BAD = 77.0
INFO = ModelInfo("first", "transcriber", "0" * 64, "CC0-1.0")


class Watched(tiny_listeners.TinyNet):
    """A model that notes how many windows each pass took, and fails on one sample; NaN instead where told."""

    def __init__(self, *, gives_nan: bool = False) -> None:
        super().__init__(tiny_listeners.TinyConfig(), tiny_listeners.NUM_PITCHES)
        self.load_state_dict(tiny_listeners.make_net("first").state_dict())
        self._gives_nan = gives_nan
        self.num_windows: list[int] = []
        self.threads: set[int] = set()

    def forward(self, samples: Tensor) -> Tensor:
        self.num_windows.append(samples.shape[0])
        self.threads.add(threading.get_ident())
        time.sleep(0.002)  # others come to wait meanwhile
        is_bad = (samples == BAD).any(1)
        if bool(is_bad.any()) and not self._gives_nan:
            raise RuntimeError("bad sample")
        return torch.where(is_bad[:, None, None], torch.nan, super().forward(samples))


def watched(**options: Any) -> tuple[LoadedTranscriber, Watched]:
    net = Watched(**options)
    return LoadedTranscriber(INFO, tiny_listeners.note_listener(net), max_joined=4), net


def window_of(seed: int, *, is_bad: bool = False, num_frames: int = 20) -> Window:
    samples = np.random.default_rng(seed).normal(0, 0.1, 28 * 80).astype(np.float32)
    if is_bad:
        samples[0] = BAD
    return Window(samples, 0, 4, num_frames)


async def gathered(loaded: LoadedTranscriber, windows: list[Window], passes: list[int] | None = None) -> list[Any]:
    """Ask for all windows while the thread is busy, so that they wait together."""
    thread, gate = ModelThread("first"), threading.Event()
    told = [] if passes is None else passes
    hear = partial(hear_frames, loaded)
    shared = SharedWindows(thread, loaded.max_joined, hear, lambda frames, taken_s: told.append(len(frames)))
    try:
        blocker = asyncio.create_task(thread.run(gate.wait))
        tasks = [asyncio.create_task(shared.hear(window, None)) for window in windows]
        await asyncio.sleep(0)
        gate.set()
        await blocker
        return await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await thread.close()


async def test_waiting_windows_share_passes_up_to_the_limit_and_get_what_they_get_alone() -> None:
    loaded, net = watched()
    windows = [window_of(seed, num_frames=20 - seed) for seed in range(6)]
    alone = [(await gathered(loaded, [window]))[0] for window in windows]
    net.num_windows.clear()
    passes: list[int] = []
    together = await gathered(loaded, windows, passes)
    assert [frames.tobytes() for frames in together] == [frames.tobytes() for frames in alone]
    assert len({frames[:14].tobytes() for frames in alone}) == 6
    assert [frames.shape for frames in together] == [(20 - seed, 4) for seed in range(6)], "of each, what it wants"
    assert net.num_windows == passes == [4, 2]


@pytest.mark.parametrize("gives_nan", [False, True])
async def test_who_fails_fails_alone(gives_nan: bool) -> None:
    loaded, _ = watched(gives_nan=gives_nan)
    windows = [window_of(seed, is_bad=seed == 1) for seed in range(3)]
    together = await gathered(loaded, windows)
    assert isinstance(together[1], RuntimeError)
    for index in (0, 2):
        assert together[index].tobytes() == (await gathered(loaded, [windows[index]]))[0].tobytes()


async def test_in_random_schedules_each_stream_gets_the_notes_that_it_gets_alone() -> None:
    loaded, net = watched()
    generator = np.random.default_rng(0)
    clips = [generator.normal(0, 0.1, int(generator.integers(100, 9000))).astype(np.float32) for _ in range(6)]
    engine = Transcribing(Hearing({"first": lambda: loaded}, purpose="hears notes", num_threads=1))
    await engine.hearing.start()

    async def notes(clip: Any) -> list[Any]:
        async def messages() -> AsyncIterator[Waveform]:
            for part in np.array_split(clip, int(generator.integers(1, 9))):
                await asyncio.sleep(0)
                yield Waveform(part, 8000)

        found: list[Any] = []
        async for new in engine.transcribe("", messages()):
            found += zip(new.notes.onset_s, new.notes.offset_s, new.notes.pitch_midi)
        return found

    try:
        alone = [await notes(clip) for clip in clips]
        assert set(net.num_windows) == {1} and sum(map(len, alone)) > 50
        for _ in range(8):
            assert await asyncio.gather(*(notes(clip) for clip in clips)) == alone
    finally:
        await engine.hearing.stop()
    assert max(net.num_windows) > 1
    assert len(net.threads) == 1 and threading.get_ident() not in net.threads


def leaning(breaks_at: int) -> NoteListener:
    """A model whose numbers lean on the neighbours from `breaks_at` windows on."""
    net = tiny_listeners.make_net("first")
    listener = tiny_listeners.note_listener(net)
    return NoteListener(
        net.config, net, lambda windows: net(windows) + (1e-6 if len(windows) >= breaks_at else 0), listener.new_decoder
    )


@pytest.mark.parametrize(("breaks_at", "limit", "expected"), [(9, 4, 4), (4, 4, 3), (3, 8, 2), (2, 8, 1), (1, 1, 1)])
def test_as_many_windows_share_a_pass_as_a_trial_finds_to_change_nothing(
    breaks_at: int, limit: int, expected: int
) -> None:
    assert find_max_joined(leaning(breaks_at), limit) == expected
