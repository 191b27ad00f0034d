"""A lost stage costs a pause, not a piece: same bytes, counted in the receipt."""

import asyncio
import dataclasses
import itertools
import time

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto_orchestrator.clients import DecodedAudio
from stretto_orchestrator.flows.resuming import ResumePolicy, Resumes, TokenLog, resumed_audio
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput, NotReady, Overloaded
from stretto_shared.tokens import TokenMatrix


def detail_of(error, kind):
    found = kind()
    assert any(packed.Unpack(found) for packed in rpc_status.from_call(error).details)
    return found


def reason_of(error):
    return detail_of(error, error_details_pb2.ErrorInfo).reason


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


@pytest.mark.parametrize("lose_after", [[1], [3], [19], [2, 1, 5]])
async def test_acoustic_lost_in_mid_stream_gives_the_same_bytes(house, collect, request_music, lose_after):
    whole = await collect(house.stub.GenerateMusic(request_music()))
    house.acoustic.watched.lose_after = list(lose_after)
    resumed = await collect(house.stub.GenerateMusic(request_music()))
    assert resumed.samples.tobytes() == whole.samples.tobytes()
    assert resumed.receipt.resume_count == len(lose_after)
    assert len(house.acoustic.requests[-1].resume_from.codes) == 2 * 5 * sum(lose_after)


@pytest.mark.parametrize("lose_after", [[1], [4], [1, 2, 3]])
async def test_codec_lost_in_mid_stream_gives_the_same_bytes(house, collect, request_music, lose_after):
    whole = await collect(house.stub.GenerateMusic(request_music()))
    house.codec.watched.lose_after = list(lose_after)
    resumed = await collect(house.stub.GenerateMusic(request_music()))
    assert resumed.samples.tobytes() == whole.samples.tobytes()
    assert resumed.receipt.resume_count == len(lose_after)


async def test_both_stages_lost_in_one_request_gives_the_same_bytes(house, collect, request_music):
    whole = await collect(house.stub.GenerateMusic(request_music()))
    house.acoustic.watched.lose_after, house.codec.watched.lose_after = [5], [2]
    resumed = await collect(house.stub.GenerateMusic(request_music()))
    assert resumed.samples.tobytes() == whole.samples.tobytes()
    assert resumed.receipt.resume_count == 2


async def test_an_acoustic_server_that_dies_and_comes_back_gives_the_same_bytes(
    house_with, collect, request_music, eventually
):
    # Eight resumes wait 102 s in all, which is enough for a starved machine to start the server again.
    async with house_with(resume_backoff_s=0.4, max_resumes=8) as house:
        whole = await collect(house.stub.GenerateMusic(request_music(duration_s=4)))
        watched = house.acoustic.watched
        watched.gate, watched.num_sent, house.codec.watched.num_sent = asyncio.Event(), 0, 0
        call = asyncio.create_task(collect(house.stub.GenerateMusic(request_music(duration_s=4), timeout=300)))
        # The second chunk of audio needs the frames of all four messages: the orchestrator has them.
        await eventually(lambda: watched.num_sent == 4 and house.codec.watched.num_sent == 2)
        await house.servers["acoustic"].stop()
        watched.gate = None
        await house.start_stage("acoustic", house.ports["acoustic"])
        resumed = await call
        assert resumed.samples.tobytes() == whole.samples.tobytes()
        assert resumed.receipt.resume_count >= 1
        assert len(house.acoustic.requests[-1].resume_from.codes) == 2 * 5 * 4


@pytest.mark.parametrize("stage", ["acoustic", "codec"])
async def test_a_stage_lost_too_often_is_unavailable(house_with, request_music, stage):
    async with house_with(max_resumes=2, resume_backoff_s=0.01) as house:
        getattr(house, stage).watched.lose_after = [1, 2, 3, 4]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in house.stub.GenerateMusic(request_music()):
                pass
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert len(getattr(house, stage).watched.lose_after) == 1


async def test_a_stage_that_comes_back_as_another_model_is_a_conflict(house, request_music):
    house.acoustic.watched.lose_after = [2]
    house.acoustic.watched.info_after_loss = dataclasses.replace(house.acoustic.watched.info, digest_sha256="c" * 64)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in house.stub.GenerateMusic(request_music()):
            pass
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "tinylm@bbb" in caught.value.details() and "tinylm@ccc" in caught.value.details()
    assert reason_of(caught.value) == "MODEL_CHANGED"


async def test_a_codec_that_comes_back_with_other_weights_is_a_conflict_and_not_the_cascades_fault(
    house, request_music
):
    house.codec.watched.lose_after = [2]
    house.codec.watched.info_after_loss = dataclasses.replace(house.codec.watched.info, digest_sha256="c" * 64)
    error = await failure(house.stub.GenerateMusic(request_music()))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error) == "MODEL_CHANGED"
    assert "codec stage began with tinycodec@aaa" in error.details() and "cascade" not in error.details()


async def test_an_acoustic_stage_that_refuses_the_frames_it_made_is_a_conflict(house, request_music):
    house.acoustic.watched.lose_after = [2]
    house.acoustic.watched.refusals = [None, InvalidInput("resume_from.codec_id", "expected those of another codec.")]
    error = await failure(house.stub.GenerateMusic(request_music()))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error) == "MODEL_CHANGED" and "tinylm@bbb" in error.details()


@pytest.mark.parametrize("stage", ["acoustic", "codec"])
async def test_a_full_replica_is_waited_for_and_gives_the_same_bytes(house, collect, request_music, stage):
    whole = await collect(house.stub.GenerateMusic(request_music()))
    watched = getattr(house, stage).watched
    watched.lose_after = [1]
    watched.refusals = [None, Overloaded("Full.", retry_after_s=0.05), Overloaded("Full.", retry_after_s=0.05)]
    resumed = await collect(house.stub.GenerateMusic(request_music()))
    assert resumed.samples.tobytes() == whole.samples.tobytes()
    assert resumed.receipt.resume_count == 3 and watched.refusals == []


@pytest.mark.parametrize("stage", ["acoustic", "codec"])
async def test_a_replica_that_stays_full_ends_with_its_own_retry_time(house_with, request_music, stage):
    async with house_with(max_resumes=2, resume_backoff_s=0.01) as house:
        watched = getattr(house, stage).watched
        watched.lose_after = [1]
        watched.refusals = [None, *[Overloaded("Full.", retry_after_s=0.125)] * 3]
        error = await failure(house.stub.GenerateMusic(request_music()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert detail_of(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 125
        assert len(watched.refusals) == 1


@pytest.mark.parametrize("stage", ["acoustic", "codec"])
async def test_a_full_replica_is_not_waited_for_beyond_the_deadline(house, request_music, stage):
    watched = getattr(house, stage).watched
    watched.lose_after = [1]
    watched.refusals = [None, Overloaded("Full.", retry_after_s=500)]
    began_s = time.monotonic()
    error = await failure(house.stub.GenerateMusic(request_music(), timeout=60))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail_of(error, error_details_pb2.RetryInfo).retry_delay.seconds == 500
    assert time.monotonic() - began_s < 30


async def test_resumes_are_counted_by_stage_in_the_metrics(house, collect, request_music):
    house.acoustic.watched.lose_after = [2]
    await collect(house.stub.GenerateMusic(request_music()))
    registry = house.servers["orchestrator"].metrics.registry
    assert registry.get_sample_value("stretto_stage_resumes_total", {"stage": "acoustic"}) == 1
    assert registry.get_sample_value("stretto_audio_ttfp_s_count", {"stage": "orchestrator"}) == 1
    assert registry.get_sample_value("stretto_audio_rtf_count", {"stage": "orchestrator"}) == 1


async def test_the_wait_between_resumes_doubles_and_the_last_error_is_raised(monkeypatch):
    waits_s, stages = [], []

    async def sleep(delay_s):
        waits_s.append(delay_s)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    resumes = Resumes(ResumePolicy(max_resumes=3, backoff_s=0.2), stages.append)
    for _ in range(3):
        await resumes.wait_or_raise("codec", NotReady("gone"))
    with pytest.raises(NotReady, match="at last"):
        await resumes.wait_or_raise("codec", NotReady("at last"))
    assert waits_s == pytest.approx([0.2, 0.4, 0.8]) and stages == ["codec"] * 3


async def test_a_full_stage_is_given_the_longer_of_its_own_time_and_the_wait_that_doubles(monkeypatch):
    waits_s = []

    async def sleep(delay_s):
        waits_s.append(delay_s)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    resumes = Resumes(ResumePolicy(max_resumes=3, backoff_s=0.2), lambda stage: None, lambda: 10.0)
    await resumes.wait_or_raise("codec", Overloaded("Full.", retry_after_s=3.0))
    await resumes.wait_or_raise("codec", Overloaded("Full.", retry_after_s=0.3))
    with pytest.raises(Overloaded, match="For long"):
        await resumes.wait_or_raise("codec", Overloaded("For long.", retry_after_s=11.0))
    assert waits_s == pytest.approx([3.0, 0.4]) and resumes.count == 2


async def test_a_codec_that_comes_back_with_other_chunks_repeats_and_skips_nothing():
    samples = np.arange(20, dtype=np.float32)
    streams = iter([(8, 16), (6, 13, 20)])  # the ends of the chunks of each stream; the first one is lost

    async def open_stream(tokens):
        ends = next(streams)
        for start, stop in itertools.pairwise((0, *ends)):
            yield DecodedAudio(Waveform(samples[start:stop], 8_000), start, None)
        if ends[-1] < 20:
            raise NotReady("This replica is going away.")

    resumes = Resumes(ResumePolicy(max_resumes=1, backoff_s=0), lambda stage: None)
    parts = [part async for part in resumed_audio(open_stream, TokenLog(4), resumes)]
    np.testing.assert_array_equal(np.concatenate([part.waveform.samples[0] for part in parts]), samples)
    assert [part.first_sample_index for part in parts] == [0, 8, 16]


async def part_source(num_parts, made):
    for index in range(num_parts):
        made.append(index)
        yield TokenMatrix(np.full((1, 1), index), 50, "c@1")


async def test_the_token_log_holds_its_source_back_and_can_be_read_again():
    log, made = TokenLog(max_ahead=3), []
    filling = asyncio.create_task(log.fill(part_source(10, made)))
    await asyncio.sleep(0.05)
    assert len(made) == 4  # three wait, and the fourth is held
    first = [int(part.codes[0, 0]) async for part in log.read()]
    again = [int(part.codes[0, 0]) async for part in log.read()]
    await filling
    assert first == again == list(range(10))
