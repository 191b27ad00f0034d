"""How a piece is paced, from the door to the acoustic stage: what is asked, refused, resumed, and told to whom."""

import asyncio
import dataclasses

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.common.v1 import audio_pb2, model_pb2
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto_shared.errors import NotFound, NotReady, Overloaded

REALTIME = model_pb2.PACE_REALTIME


def recording(duration_s=3.0, rate_hz=16_000):
    samples = np.full(round(duration_s * rate_hz), 0.5, "<f4").tobytes()
    return audio_pb2.Waveform(sample_rate_hz=rate_hz, channel_count=1, samples=samples)


def continuation(**fields):
    return orchestrator_pb2.ContinueMusicRequest(**({"audio": recording(), "duration_s": 1.5} | fields))


def detail_of(error, kind):
    found = kind()
    for packed in rpc_status.from_call(error).details:
        if packed.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__} in {error}")


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


async def test_pace_and_priority_reach_the_acoustic_stage_and_are_best_effort_unless_asked(
    house, collect, request_music
):
    await collect(house.stub.GenerateMusic(request_music()))
    await collect(house.stub.GenerateMusic(request_music(priority=7)))
    await collect(house.stub.GenerateMusic(request_music(pace=REALTIME, melody=recording())))
    await collect(house.stub.ContinueMusic(continuation(priority=3)))
    await collect(house.stub.ContinueMusic(continuation(pace=REALTIME)))
    best_effort = model_pb2.PACE_BEST_EFFORT
    asked = [(request.pace, request.priority) for request in house.acoustic.requests]
    assert asked == [(best_effort, 0), (best_effort, 7), (REALTIME, 0), (best_effort, 3), (REALTIME, 0)]


async def test_a_piece_has_the_same_bytes_at_any_pace(house, collect, request_music):
    plain, live = [await collect(house.stub.GenerateMusic(request_music(pace=pace))) for pace in (0, REALTIME)]
    assert plain.receipt.output_sha256 == live.receipt.output_sha256


async def test_the_stage_is_asked_about_a_real_time_piece_in_full_and_about_no_other(house, collect, request_music):
    await collect(house.stub.GenerateMusic(request_music()))
    assert house.acoustic.checks == []
    sampling = model_pb2.SamplingOptions(guidance_scale=2.0)
    await collect(house.stub.GenerateMusic(request_music(pace=REALTIME, sampling=sampling, duration_s=2.5)))
    await collect(house.stub.ContinueMusic(continuation(pace=REALTIME, audio=recording(12.0))))
    generated, continued = house.acoustic.checks
    assert (generated.pace, generated.duration_s, generated.is_conditional) == (REALTIME, 2.5, True)
    assert generated.sampling.guidance_scale == 2.0 and not generated.sampling.HasField("top_k")
    assert (continued.pace, continued.duration_s, continued.is_conditional) == (REALTIME, 11.5, False)


@pytest.mark.parametrize("fields", [{}, {"melody": recording()}])
async def test_a_refused_real_time_piece_costs_no_work_and_keeps_its_retry_time(house, request_music, fields):
    house.acoustic.admission_error = Overloaded("One more would make others run dry.", retry_after_s=2.5)
    error = await failure(house.stub.GenerateMusic(request_music(pace=REALTIME, **fields)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail_of(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 2500
    stages = (house.embedding, house.acoustic, house.codec)
    assert [stage.watched.num_calls for stage in stages] == [0, 0, 0] and len(house.acoustic.checks) == 1


async def test_a_refused_real_time_continuation_is_not_even_encoded(house):
    house.acoustic.admission_error = Overloaded("Full.", retry_after_s=2.5)
    error = await failure(house.stub.ContinueMusic(continuation(pace=REALTIME, prompt="a waltz")))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert house.codec.watched.num_calls == house.embedding.watched.num_calls == 0


async def test_a_real_time_piece_that_is_refused_after_all_is_not_asked_for_again(house, request_music):
    house.acoustic.watched.error = Overloaded("Taken in the meantime.", retry_after_s=0.01)
    error = await failure(house.stub.GenerateMusic(request_music(pace=REALTIME)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert house.acoustic.watched.num_calls == 1


async def test_an_older_stage_that_cannot_be_asked_has_no_objection(house, collect, request_music, monkeypatch):
    async def unimplemented(request, context):
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    await house.servers["acoustic"].stop()
    monkeypatch.setattr(house.acoustic, "CheckAdmission", unimplemented)
    await house.start_stage("acoustic", house.ports["acoustic"])
    assert (await collect(house.stub.GenerateMusic(request_music(pace=REALTIME)))).receipt is not None


@pytest.mark.parametrize("error", [NotReady("Loading."), NotFound("model", "expected 'tinylm'.")])
async def test_what_else_the_stage_says_of_a_real_time_piece_is_said_in_the_callers_words(house, request_music, error):
    house.acoustic.admission_error = error
    answer = await failure(house.stub.GenerateMusic(request_music(pace=REALTIME)))
    if isinstance(error, NotReady):
        assert answer.code() is grpc.StatusCode.UNAVAILABLE
    else:
        assert answer.code() is grpc.StatusCode.NOT_FOUND
        assert detail_of(answer, error_details_pb2.ErrorInfo).metadata["field"] == "cascade"


@pytest.mark.parametrize(("field", "value"), [("priority", 10), ("priority", -1), ("pace", 3)])
async def test_a_pace_or_priority_out_of_range_is_named_before_any_stage_works(house, request_music, field, value):
    for call in (
        house.stub.GenerateMusic(request_music(**{field: value})),
        house.stub.ContinueMusic(continuation(**{field: value})),
    ):
        error = await failure(call)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert detail_of(error, error_details_pb2.BadRequest).field_violations[0].field == field
    assert house.embedding.watched.num_calls == house.acoustic.watched.num_calls == house.codec.watched.num_calls == 0


@pytest.mark.parametrize("is_stereo", [False, True])
async def test_a_lost_real_time_stream_is_resumed_at_its_pace(house, collect, request_music, is_stereo):
    if is_stereo:
        info = dataclasses.replace(house.acoustic.watched.info, num_codebooks=4, num_channels=2)
        house.acoustic.watched.info = info
    house.acoustic.watched.lose_after = [2]
    house.acoustic.watched.refusals = [None, Overloaded("Full.", retry_after_s=0.05)]
    music = await collect(house.stub.GenerateMusic(request_music(pace=REALTIME, priority=2)))
    assert music.receipt.resume_count == 2
    # the refused one is not among them
    assert [(r.pace, r.priority) for r in house.acoustic.requests] == [(REALTIME, 2)] * 2
    assert house.acoustic.requests[-1].resume_from.codes and len(house.acoustic.checks) == 1


async def test_the_deadline_covers_the_question_too(house, request_music):
    async def never(request, context):
        await asyncio.Event().wait()

    await house.servers["acoustic"].stop()
    house.acoustic.CheckAdmission = never
    await house.start_stage("acoustic", house.ports["acoustic"])
    error = await failure(house.stub.GenerateMusic(request_music(pace=REALTIME), timeout=2.0))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
