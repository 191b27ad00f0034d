"""A stage that is lost while it hears a recording costs a pause: it hears it again, and nothing is told twice."""

import asyncio
import dataclasses

import grpc
import numpy as np
import pytest
from fake_transcriber import NOTES
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto_orchestrator.flows.forking import Fork, KeptAudio
from stretto_orchestrator.flows.rehearing import heard_notes
from stretto_orchestrator.flows.resuming import ResumePolicy, Resumes
from stretto_shared.audio import Waveform
from stretto_shared.errors import NotReady, Overloaded
from stretto_shared.grpc import convert
from stretto_shared.score import Part, Score

RATE_HZ = 8000
Request, Config = orchestrator_pb2.AnalyzeMusicRequest, orchestrator_pb2.AnalyzeConfig


def requests_of(num_seconds):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (1, num_seconds * RATE_HZ)).astype(np.float32)
    waves = [Waveform(part, RATE_HZ) for part in np.array_split(samples, num_seconds, axis=1)]
    return [Request(config=Config()), *(Request(waveform=convert.waveform_to_proto(wave)) for wave in waves)]


async def analysis(house, num_seconds=12):
    """All that was told but progress and the receipt, and the receipt's models."""
    told, receipt = [], None
    async for response in house.stub.AnalyzeMusic(iter(requests_of(num_seconds)), timeout=60):
        kind = response.WhichOneof("payload")
        if kind == "receipt":
            receipt = response.receipt
        elif kind != "progress":
            told.append(response)
    return told, [model.name for model in receipt.models]


async def failure(house, num_seconds=12):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await analysis(house, num_seconds)
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(caught.value).details)
    return caught.value, info.reason


def num_resumes(house, stage):
    registry = house.servers["orchestrator"].metrics.registry
    return registry.get_sample_value("stretto_stage_resumes_total", {"stage": f"transcriber/{stage}"}) or 0


@pytest.mark.parametrize("lose_after", [[1], [7], [12], [3, 2, 9]])
@pytest.mark.parametrize("stage", ["notes", "beats"])
async def test_a_lost_stage_hears_all_again_and_tells_each_thing_once(house, stage, lose_after):
    whole = await analysis(house)
    watched = house.transcriber.noting if stage == "notes" else house.transcriber.tracking
    watched.lose_after = list(lose_after)
    assert await analysis(house) == whole
    assert watched.lose_after == [] and num_resumes(house, stage) == len(lose_after)


async def test_a_server_that_dies_and_comes_back_is_waited_for(house_with, eventually):
    async with house_with(resume_backoff_s=0.4, max_resumes=8) as house:
        whole = await analysis(house)
        for watched in (house.transcriber.noting, house.transcriber.tracking):
            watched.gate = asyncio.Event()
            watched.requests.clear()
        telling = asyncio.create_task(analysis(house))
        await eventually(lambda: house.transcriber.noting.requests and house.transcriber.tracking.requests)
        await house.servers["transcriber"].stop()
        house.transcriber.noting.gate = house.transcriber.tracking.gate = None
        await house.start_stage("transcriber", house.ports["transcriber"])
        assert await telling == whole


async def test_a_recording_that_is_no_longer_kept_is_lost_with_the_stage(house_with):
    async with house_with(max_kept_audio_bytes=4 * RATE_HZ * 4) as house:
        house.transcriber.noting.lose_after = [2]
        assert (await analysis(house, 4))[0], "four seconds are kept"
        house.transcriber.noting.lose_after = [9]
        error, _ = await failure(house, 30)
        assert error.code() is grpc.StatusCode.UNAVAILABLE and "going away" in error.details()
        assert (await analysis(house, 4))[0], "what was kept is given back"


async def test_a_stage_lost_too_often_is_unavailable(house_with):
    async with house_with(max_resumes=2, resume_backoff_s=0.01) as house:
        house.transcriber.tracking.lose_after = [1, 2, 3, 4]
        error, _ = await failure(house)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert len(house.transcriber.tracking.lose_after) == 1


async def test_a_stage_that_is_full_from_the_start_is_not_waited_for_and_one_that_was_lost_is(house):
    noting = house.transcriber.noting
    noting.refusals = [Overloaded("Full.", retry_after_s=0.05)]
    assert (await failure(house))[0].code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    whole = await analysis(house)
    noting.lose_after, noting.refusals = [2], [None, Overloaded("Full.", retry_after_s=0.05)]
    assert await analysis(house) == whole and noting.refusals == []


async def test_a_stage_that_comes_back_as_another_model_is_a_conflict(house):
    house.transcriber.noting.lose_after = [5]
    house.transcriber.noting.info_after_loss = dataclasses.replace(NOTES, digest_sha256="9" * 64)
    error, reason = await failure(house)
    assert (error.code(), reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_CHANGED")


def notes_of(onsets):
    count = len(onsets)
    return Score(onsets, [0.5] * count, [60] * count, [64] * count, [0] * count, (Part("piano"),))


async def nothing():
    return
    yield


async def test_what_was_told_is_left_out_however_the_stage_cuts_it_the_second_time():
    first = [([0.0, 1.0], 2.0), ([2.0], 3.0)]
    again = [([0.0], 1.0), ([1.0, 2.0, 3.0], 4.0), ([], 5.0), ([5.0, 6.0], 7.0)]
    streams = iter([(first, True), (again, False)])

    async def open_stream():
        from stretto_orchestrator.clients import HeardNotes

        parts, is_lost = next(streams)
        for index, (onsets, complete_s) in enumerate(parts):
            yield HeardNotes(notes_of(onsets), complete_s, NOTES if index == 0 else None)
        if is_lost:
            raise NotReady("This replica is going away.")

    branch = Fork(nothing(), 1, KeptAudio(10)).branches[0]
    resumes = Resumes(ResumePolicy(max_resumes=1, backoff_s=0), lambda stage: None)
    told = [part async for part in heard_notes(open_stream, branch, resumes, stage="transcriber/notes")]
    assert [onset for part in told for onset in part.notes.onset_s] == [0.0, 1.0, 2.0, 3.0, 5.0, 6.0]
    assert [part.complete_s for part in told] == [2.0, 3.0, 4.0, 5.0, 7.0]
    assert [part.model is not None for part in told] == [True, False, False, False, False]
