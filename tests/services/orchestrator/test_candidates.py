"""Several candidates: the best is sent, whole, with the receipt of the one that it is."""

import asyncio

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.common.v1 import model_pb2
from stretto_shared.errors import NotFound, Overloaded

CASCADES = ("musicgen", "musiclm")


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


@pytest.mark.parametrize("cascade", CASCADES)
@pytest.mark.parametrize("seed", [7, 2**64 - 2])
async def test_the_candidate_that_the_judge_prefers_is_sent(house, collect, request_music, cascade, seed):
    seeds = [(seed + index) % 2**64 for index in range(4)]
    alone = [await collect(house.stub.GenerateMusic(request_music(cascade=cascade, seed=each))) for each in seeds]
    means = [float(music.samples.mean()) for music in alone]
    best = int(np.argmax(means))
    music = await collect(
        house.stub.GenerateMusic(request_music(cascade=cascade, seed=seed, candidate_count=4), timeout=120)
    )
    assert music.samples.tobytes() == alone[best].samples.tobytes()
    receipt = music.receipt
    assert (receipt.seed, receipt.candidate_count) == (seeds[best], 4)
    assert receipt.similarity == pytest.approx(means[best])
    assert receipt.output_sha256 == alone[best].receipt.output_sha256
    judge = house.embedding.watched.requests[-1]
    assert (judge.model, judge.text, len(judge.candidates)) == ("mulan", "a slow waltz", 4)
    own = [model.name for model in alone[best].receipt.models]
    assert [model.name for model in receipt.models] == (own if "mulan" in own else [*own, "mulan"])


async def test_one_candidate_is_judged_by_nobody(house, collect, request_music):
    music = await collect(house.stub.GenerateMusic(request_music(candidate_count=1)))
    assert (music.receipt.candidate_count, music.receipt.similarity) == (1, 0)
    assert house.embedding.watched.num_calls == 1


async def test_no_more_are_made_at_once_than_the_operator_allows(house_with, collect, request_music, eventually):
    async with house_with(max_candidates_at_once=2) as house:
        acoustic = house.acoustic.watched
        acoustic.gate = asyncio.Event()
        call = asyncio.create_task(
            collect(house.stub.GenerateMusic(request_music(duration_s=5, candidate_count=5), timeout=120))
        )
        await eventually(lambda: acoustic.num_active == 2)
        await asyncio.sleep(0.2)
        assert acoustic.num_calls == 2
        acoustic.gate.set()
        await call
        assert acoustic.num_calls == 5


async def test_progress_counts_the_frames_of_all_candidates(house, collect, request_music):
    music = await collect(house.stub.GenerateMusic(request_music(candidate_count=3)))
    told = [progress for progress in music.progress if progress.total_frame_count]
    assert {(progress.stage, progress.total_frame_count) for progress in told} == {("acoustic", 300)}
    assert told[-1].done_frame_count == 300


async def test_cancellation_reaches_all_candidates(house, request_music, eventually):
    acoustic = house.acoustic.watched
    acoustic.gate = asyncio.Event()
    call = house.stub.GenerateMusic(request_music(duration_s=10, candidate_count=2), timeout=60)
    reading = asyncio.create_task(failure_or_cancelled(call))
    await eventually(lambda: acoustic.num_active == 2 and acoustic.num_sent >= 4)
    call.cancel()
    await reading
    await eventually(lambda: acoustic.num_active == house.codec.watched.num_active == 0)
    assert acoustic.num_cancelled == 2


async def failure_or_cancelled(call):
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        async for _ in call:
            pass


async def test_one_that_fails_ends_the_others(house, request_music, eventually):
    acoustic = house.acoustic.watched
    acoustic.gate = asyncio.Event()
    acoustic.refusals = [None, Overloaded("Full.", retry_after_s=2.5)]
    error = await failure(house.stub.GenerateMusic(request_music(duration_s=10, candidate_count=2), timeout=60))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await eventually(lambda: acoustic.num_active == 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"candidate_count": 9},
        {"candidate_count": -1},
        {"candidate_count": 2, "pace": model_pb2.PACE_REALTIME},
        {"candidate_count": 3, "cascade": "musiclm", "duration_s": 201.0},
    ],
)
async def test_candidates_that_cannot_be_are_refused_before_any_work(house, request_music, fields):
    error = await failure(house.stub.GenerateMusic(request_music(**fields)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = error_details_pb2.BadRequest()
    assert any(packed.Unpack(found) for packed in rpc_status.from_call(error).details)
    assert found.field_violations[0].field == "candidate_count"
    assert house.embedding.watched.num_calls == 0


async def test_without_a_judge_no_music_is_made(house, request_music):
    house.embedding.watched.refusals = [None, NotFound("model", "expected one of minilm, got 'mulan'. Choose one.")]
    error = await failure(house.stub.GenerateMusic(request_music(candidate_count=2)))
    assert error.code() is grpc.StatusCode.NOT_FOUND and "mulan" in error.details()
    assert house.acoustic.watched.num_calls == 0
