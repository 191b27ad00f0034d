"""One stream of audio for several stages: all of it for each, in bounded memory, and nobody holds it up for ever."""

import asyncio

import numpy as np
import pytest
from stretto_orchestrator.flows.forking import MAX_AHEAD, Fork
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput


async def audio(num_seconds, read, error=None):
    for second in range(num_seconds):
        read.append(second)
        yield Waveform(np.full(100 * 80, second / 100, np.float32), 8000)
    if error is not None:
        raise error


async def seconds_of(branch):
    return [round(float(waveform.samples[0, 0]) * 100) async for waveform in branch]


async def test_every_branch_gives_all_pieces_in_order():
    fork = Fork(audio(20, []), 2)
    running = asyncio.create_task(fork.run())
    assert await asyncio.gather(*map(seconds_of, fork.branches)) == [list(range(20))] * 2
    await running
    assert fork.heard_s == 20 and len(fork.sha256) == 64


async def test_a_slow_branch_holds_the_source_back():
    read = []
    fork = Fork(audio(50, read), 2)
    running = asyncio.create_task(fork.run())
    quick = asyncio.create_task(seconds_of(fork.branches[0]))
    await asyncio.sleep(0.2)
    assert len(read) == MAX_AHEAD + 1, "what waits, and the piece that waits for room"
    assert await seconds_of(fork.branches[1]) == list(range(50)) == await quick
    await running


async def test_a_branch_that_leaves_holds_nobody_back():
    fork = Fork(audio(50, []), 2)
    running = asyncio.create_task(fork.run())
    await asyncio.sleep(0.1)  # the branch that nobody reads is full by now
    fork.branches[1].leave()
    assert await seconds_of(fork.branches[0]) == list(range(50))
    await running


async def test_what_the_source_raises_every_branch_raises_after_what_came_before():
    fork = Fork(audio(2, [], InvalidInput("waveform", "is none.")), 2)
    running = asyncio.create_task(fork.run())
    for branch in fork.branches:
        assert (await anext(branch)).num_samples == 8000
        await anext(branch)
        with pytest.raises(InvalidInput, match="is none"):
            await anext(branch)
    await running
