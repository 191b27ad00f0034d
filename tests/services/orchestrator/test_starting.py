"""When a piece for a listener begins: at once alone, and with audio in hand beside others."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
import pytest
from stretto.common.v1 import model_pb2
from stretto_orchestrator.flows.events import AudioChunk, Progress
from stretto_orchestrator.flows.starting import Starts
from stretto_shared.audio import Waveform

RATE_HZ = 8000


def chunk(index: int) -> AudioChunk:
    return AudioChunk(Waveform(np.full((1, RATE_HZ // 10), index, np.float32), RATE_HZ), index * RATE_HZ // 10)


class Piece:
    """A tenth of a second of audio after the other; notes how many were asked for, and whether it was closed."""

    def __init__(self, num_chunks: int, fails_after: int | None = None) -> None:
        self.num_chunks, self.fails_after = num_chunks, fails_after
        self.num_made, self.is_closed = 0, False

    async def events(self) -> AsyncGenerator[Progress | AudioChunk, None]:
        try:
            for index in range(self.num_chunks):
                if index == self.fails_after:
                    raise RuntimeError("lost")
                self.num_made += 1
                yield Progress("codec", index)
                yield chunk(index)
        finally:
            self.is_closed = True


async def first_audio(events: AsyncGenerator[Progress | AudioChunk, None]) -> AudioChunk:
    async for event in events:
        if isinstance(event, AudioChunk):
            return event
    raise AssertionError("no audio")


async def test_a_piece_alone_begins_with_its_first_chunk() -> None:
    piece = Piece(9)
    async with aclosing(Starts(10.0).held(piece.events())) as events:
        assert (await first_audio(events)).first_sample_index == 0
    assert piece.num_made == 1 and piece.is_closed


@pytest.mark.parametrize(("num_others", "num_held"), [(1, 2), (2, 4), (3, 6)])
async def test_the_more_others_there_are_the_more_audio_a_piece_has_in_hand(num_others: int, num_held: int) -> None:
    starts, piece = Starts(0.19), Piece(9)
    others = [starts.held(Piece(9).events()) for _ in range(num_others)]
    for other in others:
        await anext(other)
    async with aclosing(starts.held(piece.events())) as events:
        await first_audio(events)
        assert piece.num_made == num_held
        for _ in range(num_held - 1):  # what was held comes at once, and then each as it comes
            await first_audio(events)
        assert piece.num_made == num_held
        await first_audio(events)
        assert piece.num_made == num_held + 1
    for other in others:
        await other.aclose()
    last = Piece(9)
    async with aclosing(starts.held(last.events())) as events:
        await first_audio(events)
    assert last.num_made == 1, "those who are gone count no more"


@pytest.mark.parametrize("num_chunks", [1, 3, 9])
async def test_all_of_a_piece_comes_out_once_and_in_order(num_chunks: int) -> None:
    starts = Starts(0.5)
    other = starts.held(Piece(9).events())
    await anext(other)
    events = [event async for event in starts.held(Piece(num_chunks).events())]
    audio = [event.first_sample_index for event in events if isinstance(event, AudioChunk)]
    assert audio == [index * RATE_HZ // 10 for index in range(num_chunks)]
    assert [event.num_done_frames for event in events if isinstance(event, Progress)] == list(range(num_chunks))
    await other.aclose()


async def test_a_piece_that_fails_while_it_is_held_has_not_begun() -> None:
    starts = Starts(0.5)
    other = starts.held(Piece(9).events())
    await anext(other)
    heard = []
    with pytest.raises(RuntimeError, match="lost"):
        async for event in starts.held(Piece(9, fails_after=3).events()):
            heard += [event] if isinstance(event, AudioChunk) else []
    assert not heard and starts._num_pieces == 1
    await other.aclose()


@pytest.mark.parametrize(("pace", "is_held"), [(model_pb2.PACE_REALTIME, True), (model_pb2.PACE_UNSPECIFIED, False)])
async def test_the_door_holds_pieces_for_listeners_and_no_others(house, request_music, monkeypatch, pace, is_held):
    held = []
    of = Starts.held
    monkeypatch.setattr(Starts, "held", lambda starts, made: held.append(starts) or of(starts, made))
    for _ in range(2):
        assert [each async for each in house.stub.GenerateMusic(request_music(pace=pace))]
    assert len(held) == (2 if is_held else 0) and len(set(map(id, held))) <= 1, "one count for all of a door"
    assert all(starts._lead_per_piece_s == 0.05 and starts._num_pieces == 0 for starts in held)
