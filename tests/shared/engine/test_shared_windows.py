"""Windows of audio that wait for one model at the same moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
from stretto_shared.dsp.audio_windows import Window
from stretto_shared.engine.shared_windows import SharedWindows
from stretto_shared.engine.thread import ModelThread


async def test_windows_of_one_length_share_passes_up_to_the_limit_and_each_is_told_of_its_own() -> None:
    thread, gate = ModelThread("windows"), threading.Event()
    heard: list[list[int]] = []
    passes: list[list[float]] = []
    started: list[int] = []

    def hear(windows: Sequence[Window]) -> list[float]:
        heard.append([window.samples.size for window in windows])
        if any(window.first_frame == 5 for window in windows):
            raise RuntimeError("bad window")
        return [float(window.samples.sum()) for window in windows]

    shared = SharedWindows(thread, 3, hear, lambda made, taken_s: passes.append(list(made)))
    sizes = [10, 20, 10, 10, 10, 20]
    windows = [Window(np.full(size, index, np.float32), index, 0, 1) for index, size in enumerate(sizes)]

    async def hear_one(index: int) -> float:
        return await shared.hear(windows[index], lambda: started.append(index))

    try:
        blocker = asyncio.create_task(thread.run(gate.wait))
        tasks = [asyncio.create_task(hear_one(index)) for index in range(6)]
        await asyncio.sleep(0)
        gate.set()
        await blocker
        together = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await thread.close()
    assert isinstance(together[5], RuntimeError)
    assert together[:5] == [0.0, 20.0, 20.0, 30.0, 40.0]
    assert heard == [[10, 10, 10], [20, 20], [20], [20], [10]]  # the pass that failed, and its windows alone
    assert passes == [[0.0, 20.0, 30.0], [20.0], [40.0]]
    assert started == [0, 2, 3, 1, 5, 4]
