"""The speed of MusicLM is measured with both cascades in turn, and only what the runs say is claimed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import numpy as np
import pytest
from speed import musiclm
from speed.musiclm import STREAMING, WAITING, Run
from stretto_client import AudioChunk, StrettoClient
from stretto_shared.audio import Waveform


class FakeClient:
    """Sends two chunks of half of the music each."""

    def __init__(self, num_chunks: int = 2) -> None:
        self.asked: list[tuple[str, int, float]] = []
        self._num_chunks = num_chunks

    async def generate_music(
        self, prompt: str, *, cascade: str, duration_s: float, seed: int, timeout_s: float
    ) -> AsyncIterator[Any]:
        self.asked.append((cascade, seed, duration_s))
        yield "progress"
        for index in range(self._num_chunks):
            await asyncio.sleep(0.02)
            samples = np.zeros((1, round(duration_s * 24_000 / self._num_chunks)), np.float32)
            yield AudioChunk(Waveform(samples, 24_000), index * samples.shape[1])


def test_the_first_audio_is_the_first_chunk_and_the_end_the_last() -> None:
    run = asyncio.run(musiclm.measure(cast(StrettoClient, FakeClient()), STREAMING, 0, 3.0))
    assert run.music_s == pytest.approx(3.0)
    assert run.first_s + 0.015 < run.total_s
    with pytest.raises(RuntimeError, match="no audio"):
        asyncio.run(musiclm.measure(cast(StrettoClient, FakeClient(0)), STREAMING, 0, 3.0))


def test_both_cascades_take_turns_after_a_warm_up() -> None:
    client = FakeClient()
    runs = asyncio.run(musiclm.rounds(cast(StrettoClient, client), 2, 4.0))
    assert client.asked[:2] == [(STREAMING, 0, 1.0), (WAITING, 0, 1.0)]
    assert client.asked[2:] == [(STREAMING, 1, 4.0), (WAITING, 1, 4.0), (WAITING, 2, 4.0), (STREAMING, 2, 4.0)]
    assert {cascade: len(own) for cascade, own in runs.items()} == {STREAMING: 2, WAITING: 2}


@pytest.mark.parametrize(
    ("first", "rtf", "waiting", "holds"),
    [(1.4, 0.7, 5.0, (True, True, True)), (1.6, 0.9, 5.0, (False, False, True)), (1.4, 0.7, 1.3, (True, True, False))],
)
def test_claims_follow_the_runs(first: float, rtf: float, waiting: float, holds: tuple[bool, bool, bool]) -> None:
    runs = {STREAMING: [Run(first, 10 * rtf, 10.0)] * 3, WAITING: [Run(waiting, 12.0, 10.0)] * 3}
    made = musiclm.outcome(runs, "data", ["model@0"])
    assert tuple(made.passed.values()) == holds
    assert made.numbers["first_audio_s"][WAITING][0] == waiting
    assert made.numbers["real_time_factor"][STREAMING][0] == pytest.approx(rtf)
    assert made.numbers["waiting_over_streaming"][0] == pytest.approx(waiting / first)


def test_one_round_is_too_few_to_claim_that_streaming_is_sooner() -> None:
    runs = {STREAMING: [Run(1.0, 5.0, 10.0)], WAITING: [Run(9.0, 12.0, 10.0)]}
    assert musiclm.outcome(runs, "data", []).passed["sooner_by_streaming"] is False


def test_the_server_has_a_second_cascade_that_waits() -> None:
    told = musiclm.settings(2)
    assert told["OMP_NUM_THREADS"] == 2
    assert json.loads(str(told["STRETTO_ORCHESTRATOR_EXTRA_CASCADES"])) == {
        WAITING: {"kind": "musiclm", "streams": False}
    }


def test_a_quick_check_is_one_short_round() -> None:
    quick, full, limited = musiclm.parse(["--quick"]), musiclm.parse([]), musiclm.parse(["--limit", "2"])
    assert (quick.rounds, quick.duration_s) == (1, 3.0)
    assert (full.rounds, full.duration_s, limited.rounds) == (5, 10.0, 2)
