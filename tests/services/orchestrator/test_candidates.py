"""Several candidates: the best is sent, whole, with the receipt of the one that it is."""

import asyncio
import weakref
from functools import partial

import grpc
import numpy as np
import pytest
from fake_stages import model_info
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.common.v1 import model_pb2
from stretto_orchestrator.clients import RankedCandidate
from stretto_orchestrator.flows.audition import Audition
from stretto_orchestrator.flows.events import AudioChunk
from stretto_orchestrator.flows.patience import MAX_REFUSALS, HeldMusic, Patience
from stretto_shared.audio import Waveform
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
    acoustic.refusals = [None, NotFound("model", "expected one of tinylm, got ''. Choose one.")]
    error = await failure(house.stub.GenerateMusic(request_music(duration_s=10, candidate_count=2), timeout=60))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    await eventually(lambda: acoustic.num_active == 0)


@pytest.mark.parametrize("cascade", CASCADES)
async def test_one_that_finds_no_room_waits_for_it_and_the_others_are_kept(house, collect, request_music, cascade):
    request = request_music(cascade=cascade, candidate_count=3)
    undisturbed = await collect(house.stub.GenerateMusic(request, timeout=60))
    last = house.acoustic.watched if cascade == "musicgen" else house.acoustic.refining["musiclm_coarse"]
    last.refusals = [None, None, Overloaded("Full.", retry_after_s=0.05)]
    music = await collect(house.stub.GenerateMusic(request, timeout=60))
    assert music.samples.tobytes() == undisturbed.samples.tobytes()
    assert (music.receipt.seed, music.receipt.candidate_count) == (undisturbed.receipt.seed, 3)
    assert (last.num_calls, last.refusals) == (3 + 4, []), "those that were done are not made again"


@pytest.mark.parametrize(
    ("refusals", "retry_after_s", "num_calls"),
    [(0, 2.5, 2), (1, 0.01, 1 + MAX_REFUSALS), (1, 100.0, 2)],
    ids=["no room for any", "too often", "past the deadline"],
)
async def test_one_that_finds_no_room_waits_no_longer_than_is_of_use(
    house_with, request_music, refusals, retry_after_s, num_calls
):
    async with house_with(max_candidates_at_once=2 - refusals) as house:
        acoustic = house.acoustic.watched
        acoustic.refusals = [None] * refusals
        acoustic.error = Overloaded("Full.", retry_after_s=retry_after_s)
        error = await failure(house.stub.GenerateMusic(request_music(candidate_count=2), timeout=60))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and acoustic.num_calls == num_calls
        assert retry_delay_s(error) == pytest.approx(retry_after_s)


def retry_delay_s(error):
    found = error_details_pb2.RetryInfo()
    assert any(packed.Unpack(found) for packed in rpc_status.from_call(error).details)
    return found.retry_delay.ToTimedelta().total_seconds()


async def test_candidates_of_all_requests_hold_a_bounded_amount_of_music(
    house_with, collect, request_music, eventually
):
    async with house_with(max_held_music_s=600) as house:
        semantic = house.semantic.watched
        semantic.gate = asyncio.Event()
        first = house.stub.GenerateMusic(request_music(cascade="musiclm", duration_s=299.5, candidate_count=2))
        reading = asyncio.create_task(failure_or_cancelled(first))
        await eventually(lambda: semantic.num_active > 0)
        num_asked = house.embedding.watched.num_calls
        error = await failure(house.stub.GenerateMusic(request_music(duration_s=1, candidate_count=2)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "599 s" in error.details()
        assert 1 < retry_delay_s(error) <= 599 and house.embedding.watched.num_calls == num_asked
        first.cancel()
        await reading
        await eventually(lambda: semantic.num_active == 0)
        music = await collect(house.stub.GenerateMusic(request_music(duration_s=1, candidate_count=2), timeout=60))
        assert music.receipt.candidate_count == 2


def test_music_is_held_up_to_the_bound_and_as_long_as_it_is_needed():
    music = HeldMusic(600)
    with music.held(400), music.held(200), music.held(0):
        with pytest.raises(Overloaded, match="600 s of music") as caught, music.held(1):
            pass
        assert 199 < caught.value.retry_after_s <= 200, "the shorter of them is done first"
    with music.held(600):
        pass


class OneChunk:
    """A rendering; `seen` gets a weak reference to its samples."""

    models = ()

    def __init__(self, level, seen):
        self._level = level
        self._seen = seen

    def progress(self):
        return []

    async def events(self):
        waveform = Waveform(np.full((1, 80), self._level, np.float32), 8000)
        self._seen[self._level] = weakref.ref(waveform.samples)
        yield AudioChunk(waveform, 0)


async def test_only_the_best_is_kept_while_somebody_listens():
    seen = {}

    async def judge(recordings):
        return RankedCandidate(1, 0.5), model_info("embedding", "mulan")

    makers = {level: partial(OneChunk, level, seen) for level in range(3)}
    audition = Audition(makers, judge, max_at_once=2, patience=Patience(lambda: None))
    async for event in audition.events():
        if isinstance(event, AudioChunk):
            assert [level for level in range(3) if seen[level]() is not None] == [1]
            assert event.waveform.samples[0, 0] == 1


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
