"""One stream of audio for several stages: all of it for each, in bounded memory, and nobody holds it up for ever."""

import asyncio

import numpy as np
import pytest
from stretto_orchestrator.flows.forking import MAX_AHEAD, Fork, KeptAudio
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
    fork = Fork(audio(20, []), 2, KeptAudio(0))
    running = asyncio.create_task(fork.run())
    assert await asyncio.gather(*map(seconds_of, fork.branches)) == [list(range(20))] * 2
    await running
    assert fork.heard_s == 20 and len(fork.sha256) == 64


async def test_a_slow_branch_holds_the_source_back():
    read = []
    fork = Fork(audio(50, read), 2, KeptAudio(0))
    running = asyncio.create_task(fork.run())
    quick = asyncio.create_task(seconds_of(fork.branches[0]))
    await asyncio.sleep(0.2)
    assert len(read) == MAX_AHEAD + 1, "what waits, and the piece that waits for room"
    assert await seconds_of(fork.branches[1]) == list(range(50)) == await quick
    await running


async def test_a_branch_that_leaves_holds_nobody_back():
    fork = Fork(audio(50, []), 2, KeptAudio(0))
    running = asyncio.create_task(fork.run())
    await asyncio.sleep(0.1)  # the branch that nobody reads is full by now
    await fork.branches[1].leave()
    assert await seconds_of(fork.branches[0]) == list(range(50))
    await running


async def test_what_the_source_raises_every_branch_raises_after_what_came_before():
    fork = Fork(audio(2, [], InvalidInput("waveform", "is none.")), 2, KeptAudio(0))
    running = asyncio.create_task(fork.run())
    for branch in fork.branches:
        assert (await anext(branch)).num_samples == 8000
        await anext(branch)
        with pytest.raises(InvalidInput, match="is none"):
            await anext(branch)
    await running


PIECE_BYTES = 8000 * 4


async def test_a_branch_that_goes_back_hears_all_again_while_there_is_room():
    kept = KeptAudio(5 * PIECE_BYTES)
    fork = Fork(audio(5, []), 2, kept)
    running = asyncio.create_task(fork.run())
    others = asyncio.create_task(seconds_of(fork.branches[1]))
    for _ in range(3):
        await anext(fork.branches[0])
    assert fork.branches[0].rewind()
    assert await seconds_of(fork.branches[0]) == list(range(5)) == await others
    await running
    assert fork.branches[0].rewind() and await seconds_of(fork.branches[0]) == list(range(5))
    assert kept.num_bytes == 5 * PIECE_BYTES
    fork.close()
    assert kept.num_bytes == 0 and not fork.branches[0].can_rewind


async def test_a_recording_that_finds_no_room_is_heard_once_and_takes_none():
    kept = KeptAudio(5 * PIECE_BYTES)
    assert kept.take(PIECE_BYTES)
    fork = Fork(audio(50, []), 2, kept)
    running = asyncio.create_task(fork.run())
    assert await asyncio.gather(*map(seconds_of, fork.branches)) == [list(range(50))] * 2
    await running
    assert not fork.branches[0].rewind() and kept.num_bytes == PIECE_BYTES
    assert len(fork._pieces) == 0, "what all have heard is forgotten"


async def test_a_branch_that_goes_back_holds_the_source_until_it_is_there_again():
    read = []
    fork = Fork(audio(50, read), 2, KeptAudio(60 * PIECE_BYTES))
    running = asyncio.create_task(fork.run())
    for _ in range(10):
        for branch in fork.branches:
            await anext(branch)
    assert fork.branches[0].rewind()
    ahead = asyncio.create_task(seconds_of(fork.branches[1]))
    await asyncio.sleep(0.2)
    assert len(read) <= 10 + MAX_AHEAD + 1
    assert await seconds_of(fork.branches[0]) == list(range(50))
    assert (await ahead)[-1] == 49
    await running
