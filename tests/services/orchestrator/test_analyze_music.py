"""AnalyzeMusic over real channels, with fakes of the transcriber and of harmony behind the door."""

import asyncio
import hashlib

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto.transcriber.v1 import transcriber_pb2
from stretto_orchestrator.flows import analyze_music
from stretto_shared.audio import Waveform
from stretto_shared.errors import NotReady, Overloaded
from stretto_shared.grpc import convert
from stretto_shared.score import MAX_NAME_CHARACTERS

RATE_HZ = 8000
Request, Config = orchestrator_pb2.AnalyzeMusicRequest, orchestrator_pb2.AnalyzeConfig
NOTES, BEATS, SCORE, HARMONY = (
    orchestrator_pb2.ANALYSIS_SECTION_NOTES,
    orchestrator_pb2.ANALYSIS_SECTION_BEATS,
    orchestrator_pb2.ANALYSIS_SECTION_SCORE,
    orchestrator_pb2.ANALYSIS_SECTION_HARMONY,
)


def noise(duration_s, num_channels=1):
    size = (num_channels, round(duration_s * RATE_HZ))
    return np.random.default_rng(0).uniform(-0.9, 0.9, size).astype(np.float32)


def requests_of(samples, num_messages=1, **config):
    waves = [Waveform(part, RATE_HZ) for part in np.array_split(samples, num_messages, axis=1)]
    return [Request(config=Config(**config)), *(Request(waveform=convert.waveform_to_proto(wave)) for wave in waves)]


async def analyze(house, samples, num_messages=1, **config):
    """All messages by what they bring."""
    found = {}
    async for response in house.stub.AnalyzeMusic(iter(requests_of(samples, num_messages, **config)), timeout=60):
        kind = response.WhichOneof("payload")
        found.setdefault(kind, []).append(getattr(response, kind))
        found.setdefault("order", []).append(kind)
    return found


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


async def test_all_sections_come_in_order_and_the_receipt_last(house):
    samples = noise(4.0, 2)
    found = await analyze(house, samples, 2, title="waltz")
    order = [kind for kind in found["order"] if kind != "progress"]
    assert order == ["notes"] * 4 + ["beats", "score", "receipt"]
    onsets = [onset for part in found["notes"] for onset in part.notes.onset_s]
    assert onsets == [0.0, 1.0, 2.0, 3.0] and [part.complete_s for part in found["notes"]] == [1, 2, 3, 4]
    (beats,), (score,), (receipt,) = found["beats"], found["score"], found["receipt"]
    assert list(beats.beat_s) == [index / 2 for index in range(8)] and list(beats.beat_in_bar)[:4] == [1, 2, 3, 1]
    assert list(beats.tempo_bpm) == [120.0] * 8 and beats.time_signature_numerator == 3
    assert list(beats.onset_s) == [0.25]
    assert score.musicxml == b"<waltz/>" and list(score.score.onset_s) == onsets
    assert list(score.score.beat_s) == list(beats.beat_s) and list(score.score.beat_in_bar) == list(beats.beat_in_bar)
    assert [model.name for model in receipt.models] == ["tinynotes", "tinybeats"]
    assert list(receipt.sections) == [NOTES, BEATS, SCORE] and receipt.duration_s == pytest.approx(4.0)
    assert receipt.input_sha256 == hashlib.sha256(np.ascontiguousarray(samples.T, "<f4").tobytes()).hexdigest()
    assert receipt.stretto_version and receipt.total_latency.ToTimedelta().total_seconds() > 0
    stages = [progress.stage for progress in found["progress"]]
    assert set(stages) == {"transcriber/notes", "transcriber/beats", "transcriber/score"}
    assert stages[-1] == "transcriber/score"


@pytest.mark.parametrize(
    ("sections", "kinds", "models"),
    [
        ([NOTES], ["notes", "notes", "receipt"], ["tinynotes"]),
        ([BEATS], ["beats", "receipt"], ["tinybeats"]),
        ([SCORE], ["score", "receipt"], ["tinynotes", "tinybeats"]),
        ([HARMONY], ["harmony", "receipt"], ["tinynotes", "tinybeats", "tinyharmony"]),
        ([HARMONY, SCORE], ["score", "harmony", "receipt"], ["tinynotes", "tinybeats", "tinyharmony"]),
        ([BEATS, NOTES, NOTES], ["notes", "notes", "beats", "receipt"], ["tinynotes", "tinybeats"]),
    ],
)
async def test_only_what_was_asked_for_comes_and_only_what_it_needs_is_heard(house, sections, kinds, models):
    found = await analyze(house, noise(2.0), sections=sections)
    assert [kind for kind in found["order"] if kind != "progress"] == kinds
    assert list(found["receipt"][0].sections) == sorted(set(sections))
    assert [model.name for model in found["receipt"][0].models] == models
    transcriber = house.transcriber
    assert transcriber.noting.num_calls == int(sections != [BEATS])
    assert transcriber.tracking.num_calls == int(sections != [NOTES])
    assert transcriber.engraving.num_calls == int(SCORE in sections or HARMONY in sections)
    assert house.harmony.labelling.num_calls == house.harmony.writing.num_calls == int(HARMONY in sections)


@pytest.mark.parametrize(
    ("ends", "duration_s"),
    [
        (transcriber_pb2.NOTE_ENDS_UNSPECIFIED, 0.5),
        (transcriber_pb2.NOTE_ENDS_SOUND, 0.5),
        (transcriber_pb2.NOTE_ENDS_KEY, 0.25),
    ],
)
async def test_notes_end_as_is_asked_and_so_do_those_that_the_score_is_made_of(house, ends, duration_s):
    found = await analyze(house, noise(2.0), sections=[NOTES, SCORE], note_ends=ends)
    assert {length for part in found["notes"] for length in part.notes.duration_s} == {duration_s}
    assert list(found["score"][0].score.duration_s) == [duration_s] * 2


@pytest.mark.parametrize(
    "config", [{"note_ends": 3}, {"note_ends": transcriber_pb2.NOTE_ENDS_KEY, "note_model": "deaf"}]
)
async def test_ends_that_nobody_knows_or_hears_are_refused_by_their_name_in_the_request(house, config):
    error = await failure(house.stub.AnalyzeMusic(iter(requests_of(noise(1.0), **config)), timeout=60))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = error_details_pb2.BadRequest()
    assert any(detail.Unpack(found) for detail in rpc_status.from_call(error).details)
    assert [violation.field for violation in found.field_violations] == ["config.note_ends"]


async def test_both_stages_hear_every_sample_in_pieces_of_a_second_however_it_came(house):
    samples = noise(5.3)
    for num_messages in (1, 40):
        await analyze(house, samples, num_messages, sections=[NOTES, BEATS])
        for watched in (house.transcriber.noting, house.transcriber.tracking):
            heard = np.concatenate([waveform.samples for waveform in watched.requests], axis=1)
            assert np.array_equal(heard, samples)
            assert max(waveform.num_samples for waveform in watched.requests) <= RATE_HZ
            watched.requests.clear()


async def test_notes_come_while_the_recording_does(house):
    call = house.stub.AnalyzeMusic(timeout=60)
    for request in requests_of(noise(1.0), sections=[NOTES]):
        await call.write(request)
    while (response := await call.read()).WhichOneof("payload") != "notes":
        pass
    assert response.notes.complete_s == 1.0
    call.cancel()


async def test_harmony_is_that_of_the_score_and_neighbours_that_say_the_same_are_one(house):
    found = await analyze(house, noise(2.0), sections=[HARMONY], title="waltz", harmony_model="tinyharmony")
    (harmony,) = found["harmony"]
    assert [(each.start_ticks, each.end_ticks, each.numeral) for each in harmony.labels] == [
        (0, 10, "I"), (10, 30, "V"), (30, 40, "I")
    ]  # fmt: skip
    assert harmony.musicxml == b"<waltz/>I V I"
    (request,), (written,) = house.harmony.labelling.requests, house.harmony.writing.requests
    assert request.score.file.data == written.score.file.data == b"<waltz/>" and request.model == "tinyharmony"
    assert written.title == "waltz"
    assert [progress.stage for progress in found["progress"]][-1] == "harmony"


async def test_an_analyzer_that_is_not_there_is_told_before_anything_is_heard(house):
    for models, name in ((["tinyharmony"], "nobody"), ([], "")):
        house.harmony.models = models
        call = house.stub.AnalyzeMusic(
            iter(requests_of(noise(9.0), sections=[HARMONY], harmony_model=name)), timeout=60
        )
        error = await failure(call)
        assert error.code() is grpc.StatusCode.NOT_FOUND and error.details().startswith("config.harmony_model:")
    assert house.transcriber.noting.num_calls == 0
    assert (await analyze(house, noise(1.0), sections=[NOTES]))["receipt"], "who asks for no harmony needs no analyzer"


async def test_a_late_or_cancelled_call_ends_the_analysis_of_harmony(house):
    house.harmony.labelling.gate = asyncio.Event()
    error = await failure(house.stub.AnalyzeMusic(iter(requests_of(noise(1.0), sections=[HARMONY])), timeout=3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(60):
        while house.harmony.labelling.num_active or not house.harmony.labelling.num_calls:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert 0 < house.harmony.labelling.remaining_s < 3.5


async def test_a_recording_without_beats_or_notes_has_no_score(house):
    house.transcriber.num_beats = 1
    found = await analyze(house, noise(2.0), sections=[NOTES, BEATS, SCORE, HARMONY])
    assert house.harmony.labelling.num_calls == 0
    assert [kind for kind in found["order"] if kind != "progress"] == ["notes", "notes", "beats", "receipt"]
    assert house.transcriber.engraving.num_calls == 0


async def test_more_notes_than_a_score_takes_are_refused_with_their_number(house, monkeypatch):
    monkeypatch.setattr(analyze_music, "MAX_ENGRAVED_NOTES", 2)
    error = await failure(house.stub.AnalyzeMusic(iter(requests_of(noise(3.0))), timeout=60))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "config.sections" in error.details() and "at most 2 notes" in error.details()
    assert (await analyze(house, noise(3.0), sections=[NOTES, BEATS]))["receipt"]


async def test_bad_streams_are_refused_by_field_and_the_next_one_works(house):
    config, good = requests_of(noise(1.0))
    wrong = [
        ([], "config"),
        ([good], "config"),
        ([config], "waveform"),
        ([config, config], "config"),
        ([config, good, config], "config"),
        ([config, Request()], "waveform"),
        ([Request(config=Config(sections=[NOTES, 0])), good], "config.sections[1]"),
        ([Request(config=Config(sections=[99])), good], "config.sections[0]"),
        ([Request(config=Config(title="x" * (MAX_NAME_CHARACTERS + 1))), good], "config.title"),
    ]
    for requests, field in wrong:
        error = await failure(house.stub.AnalyzeMusic(iter(requests), timeout=60))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (field, error)
        assert error.details().startswith(f"{field}:")
    for field in ("note_model", "beat_model", "harmony_model"):
        asked = requests_of(noise(9.0), sections=[NOTES, BEATS, HARMONY], **{field: "nobody"})
        error = await failure(house.stub.AnalyzeMusic(iter(asked), timeout=60))
        assert error.code() is grpc.StatusCode.NOT_FOUND and error.details().startswith(f"config.{field}:")
    assert (await analyze(house, noise(1.0)))["receipt"]


@pytest.mark.parametrize("name", ["noting", "tracking", "engraving"])
async def test_what_a_stage_refuses_is_passed_on_at_once_and_ends_the_others(house, name):
    watched = getattr(house.transcriber, name)
    for error, code in (
        (Overloaded("Full.", retry_after_s=2.0), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (NotReady("Loading."), grpc.StatusCode.UNAVAILABLE),
    ):
        watched.error = error
        refused = await failure(house.stub.AnalyzeMusic(iter(requests_of(noise(30.0))), timeout=60))
        assert refused.code() is code and error.message in refused.details()
    await none_active(house)


async def test_a_refusal_is_told_while_the_caller_still_speaks(house):
    house.transcriber.tracking.refusals = [Overloaded("Full.", retry_after_s=2.0)]
    call = house.stub.AnalyzeMusic(timeout=60)
    for request in requests_of(noise(0.5)):
        await call.write(request)
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # though the caller has not ended the recording
        while await call.read() is not grpc.aio.EOF:
            pass
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_cancelled_call_ends_every_stage(house):
    house.transcriber.noting.gate = asyncio.Event()
    house.transcriber.tracking.gate = asyncio.Event()
    call = house.stub.AnalyzeMusic(iter(requests_of(noise(30.0))), timeout=60)
    await call.read()
    async with asyncio.timeout(60):
        while house.transcriber.noting.num_active + house.transcriber.tracking.num_active < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    call.cancel()
    await none_active(house)
    assert house.transcriber.noting.num_cancelled == house.transcriber.tracking.num_cancelled == 1


async def test_the_deadline_of_the_call_reaches_the_stages(house):
    house.transcriber.noting.gate = asyncio.Event()
    error = await failure(house.stub.AnalyzeMusic(iter(requests_of(noise(2.0))), timeout=3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    for watched in (house.transcriber.noting, house.transcriber.tracking):
        assert 0 < watched.remaining_s < 3.5, "each hop rounds up a little; a stage alone would get 600 s"
    await none_active(house)


async def test_a_stage_that_is_away_is_named(house):
    await house.servers["transcriber"].stop()
    error = await failure(house.stub.AnalyzeMusic(iter(requests_of(noise(1.0))), timeout=60))
    assert error.code() is grpc.StatusCode.UNAVAILABLE and "transcriber service cannot be reached" in error.details()


async def none_active(house):
    transcriber = house.transcriber
    async with asyncio.timeout(60):
        while any(each.num_active for each in (transcriber.noting, transcriber.tracking, transcriber.engraving)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
