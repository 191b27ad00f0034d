import dataclasses
import json
import sys
from subprocess import PIPE, Popen, TimeoutExpired

import numpy as np
import pytest
from speed.musicgen_small_cuda import (
    Listening,
    Streams,
    claims,
    engine_step_ms,
    may_begin,
    peer_steps_ms,
    printed,
    wait_for,
)
from stretto_acoustic.models.musicgen import MusicGenCondition
from stretto_shared.engine.program import TokenBlock

MET = Streams(
    num_streams=8,
    joins=True,
    ready_s=1.0,
    cache_bytes=1,
    step_ms=1.3,
    pass_ms=1.2,
    bound_ms=1.0,
    read_bound_ms=1.1,
    whole_s=[2.0, 1.0, 0.5],
    first_frame_s=(0.1, 0.2),
    alone_s=1.0,
    same_bytes=True,
    digest="",
)
PEER_MS = {("bf16", 8): 20.5}


def test_numbers_on_the_right_side_meet_every_claim() -> None:
    assert engine_step_ms(MET, 1.0) == pytest.approx(20.0)
    assert set(claims([MET], PEER_MS, 1.1).values()) == {True}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"step_ms": 1.41}, ["step_of_one_stream_within_1.4_of_the_bandwidth"]),
        ({"same_bytes": False}, ["8_same_bytes_alone_and_in_company"]),
        ({"whole_s": [1.11]}, ["8_in_real_time"]),
        ({"whole_s": [1.2]}, ["8_in_real_time", "8_faster_than_transformers_bf16"]),
    ],
)
def test_each_number_decides_its_own_claims(change: dict[str, object], failing: list[str]) -> None:
    found = claims([dataclasses.replace(MET, **change)], PEER_MS, 1.1)
    assert [name for name, holds in found.items() if not holds] == failing


def test_a_peer_with_another_number_of_pieces_is_not_compared() -> None:
    assert not any("transformers" in name for name in claims([MET], {("bf16", 16): 20.5}, 1.1))


def test_the_least_round_of_a_peer_counts() -> None:
    lines = [json.dumps({"dtype": "bf16", "pieces": 8, "step_ms": ms}) for ms in (20.0, 16.0, 24.0)]
    assert peer_steps_ms(lines) == {("bf16", 8): 16.0}


PEER = """
import sys
print('loaded', flush=True)
if sys.stdin.readline():
    print('{"a": 1}', flush=True); print('{"b"', end='', flush=True)
"""


def peer_of() -> Popen[bytes]:
    return Popen([sys.executable, "-c", PEER], stdin=PIPE, stdout=PIPE)


def test_the_whole_lines_of_a_peer_count_once_it_is_told_to_begin() -> None:
    peer = peer_of()
    wait_for(peer)
    assert printed(peer, None) == ['{"a": 1}'] and peer.returncode == 0


def test_of_a_peer_that_is_ended_what_it_printed_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = peer_of()
    wait_for(peer)
    communicate, calls = peer.communicate, []

    def expire_once(told: bytes | None = None, timeout: float | None = None) -> tuple[bytes, None]:
        calls.append(timeout)
        if timeout is not None:
            kept.extend(communicate(told))
            raise TimeoutExpired("peer", timeout)
        return kept[0], None

    kept: list[bytes] = []
    monkeypatch.setattr(peer, "communicate", expire_once)
    assert printed(peer, 5.0) == ['{"a": 1}'] and calls == [5.0, None]


def test_a_third_of_a_limited_time_is_the_peer_s() -> None:
    assert may_begin(9.0, 15.0) and not may_begin(10.0, 15.0) and may_begin(1e9, 0.0)


class Scripted:
    """An engine whose pieces are what `codes` says of a seed at each call."""

    def __init__(self, codes: dict[int, list[int]]) -> None:
        self._codes = codes

    async def generate(self, request):
        assert isinstance(request.condition, MusicGenCondition)
        code = self._codes[request.seed].pop(0)
        yield TokenBlock(np.full((4, request.num_frames), code, dtype=np.int32), 0)


@pytest.mark.parametrize(
    ("codes", "same"),
    [({0: [1, 1], 1: [2, 2]}, True), ({0: [1, 3], 1: [2, 2]}, False), ({0: [1, 1], 1: [1, 1]}, False)],
)
async def test_bytes_are_the_same_when_a_seed_is_one_piece_and_no_other_seeds(codes, same: bool) -> None:
    listening = Listening(Scripted(codes), 5, num_codebooks=4, text_dim=8)
    await listening.together(2)
    await listening.piece(0)
    await listening.piece(1)
    assert listening.same_bytes is same and len(listening.first_frame_s) == 4
