"""GenerateMusic with the cascade `musiclm`: order, streaming, bytes, receipts, resumes, cancellation, errors."""

import asyncio
import dataclasses
import hashlib

import grpc
import numpy as np
import pytest
from fake_stages import MULAN
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.common.v1 import audio_pb2, model_pb2
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto_shared.errors import InvalidInput, NotFound, NotReady, Overloaded

REFINING = ("acoustic/musiclm_coarse", "acoustic/musiclm_fine")
TOKEN_STAGES = ("semantic", *REFINING)
REALTIME = model_pb2.PACE_REALTIME


def clip(duration_s=0.5, level=0.5, rate_hz=8_000):
    samples = np.full(round(duration_s * rate_hz), level, "<f4").tobytes()
    return audio_pb2.Waveform(sample_rate_hz=rate_hz, channel_count=1, samples=samples)


def detail_of(error, kind):
    found = kind()
    assert any(packed.Unpack(found) for packed in rpc_status.from_call(error).details)
    return found


def field_of(error):
    return detail_of(error, error_details_pb2.BadRequest).field_violations[0].field


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


async def first_chunk(call):
    async for response in call:
        if response.WhichOneof("payload") == "chunk":
            return response


@pytest.fixture
def request_music(request_music):
    def make(**fields):
        return request_music(**({"cascade": "musiclm-fine"} | fields))

    return make


async def test_every_stage_is_called_once_and_the_receipt_names_them_in_order(house, collect, request_music):
    music = await collect(house.stub.GenerateMusic(request_music(duration_s=1.23456)))
    assert len(music.samples) == round(1.23456 * 8_000)
    assert [model.name for model in music.receipt.models] == [
        "mulan", "musiclm_semantic", "musiclm_coarse", "musiclm_fine", "tinycodec",
    ]  # fmt: skip
    assert house.embedding.watched.num_calls == 1 and house.acoustic.watched.num_calls == 0
    assert {name: watched.num_calls for name, watched in house.watched.items()} == dict.fromkeys(house.watched, 1)
    assert (music.receipt.cascade, music.receipt.seed, music.receipt.candidate_count) == ("musiclm-fine", 7, 1)
    assert music.receipt.output_sha256 == hashlib.sha256(music.samples.tobytes()).hexdigest()


async def test_what_each_stage_is_told(house, collect, request_music):
    sampling = model_pb2.SamplingOptions(temperature=0.5)
    await collect(house.stub.GenerateMusic(request_music(sampling=sampling, priority=3)))
    asked = [house.watched[name].requests[0] for name in TOKEN_STAGES]
    assert [request.model for request in asked] == ["musiclm_semantic", "musiclm_coarse", "musiclm_fine"]
    assert [len(request.styles) for request in asked] == [1, 1, 0], "the fine stage hears the coarse tokens alone"
    assert asked[0].styles[0] == asked[1].styles[0] and asked[0].styles[0].encoder_id == MULAN.model_id
    for request in asked:
        assert (request.duration_s, request.seed, request.priority) == (2.0, 7, 3)
        assert request.sampling == sampling and request.pace == model_pb2.PACE_BEST_EFFORT
    assert house.embedding.watched.requests[0].model == "mulan"


async def test_an_option_in_which_the_stages_differ_is_left_to_their_own_defaults(house, collect, request_music):
    receipt = (await collect(house.stub.GenerateMusic(request_music()))).receipt
    assert not receipt.sampling.HasField("temperature"), "1.0 in one stage and 0.4 in the others"
    assert (receipt.sampling.top_k, receipt.sampling.top_p, receipt.sampling.guidance_scale) == (0, 1.0, 3.0)


async def test_first_audio_comes_while_every_stage_is_still_at_work(house, request_music):
    semantic = house.semantic.watched
    semantic.gate = asyncio.Event()
    call = house.stub.GenerateMusic(request_music(duration_s=10), timeout=60)
    await first_chunk(call)
    assert semantic.num_sent <= 4, "of 100 messages; the stage waits after the fourth"
    assert all(house.watched[name].num_active == 1 for name in TOKEN_STAGES)
    semantic.gate.set()
    async for response in call:
        last = response
    assert last.receipt.resume_count == 0


@pytest.mark.parametrize("name", REFINING)
async def test_a_cascade_that_does_not_stream_waits_for_each_stage(
    house_with, collect, request_music, name, eventually
):
    async with house_with(
        extra_cascades={"waiting": {"kind": "musiclm", "fine_model": "musiclm_fine", "streams": False}}
    ) as house:
        streamed = await collect(house.stub.GenerateMusic(request_music(duration_s=4)))
        before = list(house.watched)[: list(house.watched).index(name) + 1]
        after = list(house.watched)[len(before) :]
        for watched in house.watched.values():
            watched.num_calls = watched.num_sent = 0
        house.watched[name].gate = asyncio.Event()
        call = asyncio.create_task(
            collect(house.stub.GenerateMusic(request_music(cascade="waiting", duration_s=4), timeout=120))
        )
        await eventually(lambda: house.watched[name].num_sent == 2)
        await asyncio.sleep(0.1)
        assert [house.watched[each].num_calls for each in (*before, *after)] == [1] * len(before) + [0] * len(after)
        assert [house.watched[each].num_active for each in before] == [0] * (len(before) - 1) + [1]
        house.watched[name].gate.set()
        assert (await call).samples.tobytes() == streamed.samples.tobytes()


async def test_same_request_gives_same_bytes_and_each_input_changes_them(house, collect, request_music):
    first = await collect(house.stub.GenerateMusic(request_music()))
    again = await collect(house.stub.GenerateMusic(request_music()))
    live = await collect(house.stub.GenerateMusic(request_music(pace=REALTIME)))
    assert first.samples.tobytes() == again.samples.tobytes() == live.samples.tobytes()
    for change in ({"seed": 8}, {"prompt": "a fast reel"}, {"melody": clip()}, {"melody": clip(level=0.9)}):
        other = await collect(house.stub.GenerateMusic(request_music(**change)))
        assert other.samples.tobytes() != first.samples.tobytes(), change


async def test_a_melody_reaches_the_semantic_stage_in_the_codes_of_its_encoder(house, collect, request_music):
    music = await collect(house.stub.GenerateMusic(request_music(melody=clip())))
    melody = house.semantic.watched.requests[0].melody
    assert melody.codec_id.startswith("melody@") and list(melody.codes) == [5] * 6
    assert [model.name for model in music.receipt.models][:3] == ["mulan", "melody", "musiclm_semantic"]
    assert music.receipt.input_sha256 == hashlib.sha256(clip().samples).hexdigest()


async def test_progress_names_the_stages_as_they_begin_and_counts_each_to_its_end(house, collect, request_music):
    music = await collect(house.stub.GenerateMusic(request_music(duration_s=4)))
    begun = [progress.stage for progress in music.progress if not progress.total_frame_count]
    assert begun == ["embedding", *TOKEN_STAGES]
    for name, num_frames in zip(TOKEN_STAGES, (400, 200, 200), strict=True):
        told = [progress for progress in music.progress if progress.stage == name and progress.total_frame_count]
        done = [progress.done_frame_count for progress in told]
        assert {progress.total_frame_count for progress in told} == {num_frames}
        assert done == sorted(set(done)) and done[-1] == num_frames


@pytest.mark.parametrize("name", TOKEN_STAGES)
@pytest.mark.parametrize("lose_after", [[1], [3, 1]])
async def test_a_lost_stage_gives_the_same_bytes(house, collect, request_music, name, lose_after):
    whole = await collect(house.stub.GenerateMusic(request_music()))
    watched = house.watched[name]
    watched.lose_after, watched.requests = list(lose_after), []
    resumed = await collect(house.stub.GenerateMusic(request_music()))
    assert resumed.samples.tobytes() == whole.samples.tobytes()
    assert resumed.receipt.resume_count == len(lose_after)
    frames_per_message, num_codebooks = {"semantic": (10, 1), REFINING[0]: (5, 1), REFINING[1]: (5, 2)}[name]
    taken = [len(request.resume_from.codes) for request in watched.requests]
    made = np.cumsum([0, *lose_after]) * frames_per_message * num_codebooks
    assert taken == made.tolist(), "the exact next frame"
    registry = house.servers["orchestrator"].metrics.registry
    assert registry.get_sample_value("stretto_stage_resumes_total", {"stage": name}) == len(lose_after)


async def test_all_stages_lost_in_one_request_gives_the_same_bytes(house, collect, request_music):
    whole = await collect(house.stub.GenerateMusic(request_music()))
    for index, watched in enumerate(house.watched.values()):
        watched.lose_after = [index + 1]
    resumed = await collect(house.stub.GenerateMusic(request_music()))
    assert resumed.samples.tobytes() == whole.samples.tobytes() and resumed.receipt.resume_count == 4


@pytest.mark.parametrize("name", REFINING)
async def test_a_refining_stage_lost_before_its_first_frame_is_resumed(house, collect, request_music, name):
    whole = await collect(house.stub.GenerateMusic(request_music()))
    house.watched[name].num_lost_unheard = 2
    resumed = await collect(house.stub.GenerateMusic(request_music()))
    assert house.watched[name].num_lost_unheard == 0
    assert resumed.samples.tobytes() == whole.samples.tobytes() and resumed.receipt.resume_count == 2


@pytest.mark.parametrize("name", TOKEN_STAGES)
async def test_a_stage_lost_too_often_is_unavailable_and_its_readers_are_not_resumed(house_with, request_music, name):
    async with house_with(max_resumes=2, resume_backoff_s=0.01) as house:
        house.watched[name].lose_after = [1, 2, 3, 4]
        error = await failure(house.stub.GenerateMusic(request_music()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        # The stage takes both resumes, unless a reader needs one because its own connection fails on a starved machine
        # before it has reached its stage: the budget is the request's, and nobody gets more than is left of it.
        count = house.servers["orchestrator"].metrics.registry.get_sample_value
        resumes = {each: count("stretto_stage_resumes_total", {"stage": each}) or 0 for each in house.watched}
        assert sum(resumes.values()) == 2, (resumes, error.details())
        assert house.watched[name].num_calls == 1 + resumes[name] >= 2, (resumes, error.details())
        assert all(watched.num_calls <= 1 for other, watched in house.watched.items() if other != name)


async def test_a_stage_that_is_not_ready_has_none_of_its_readers_opened_again(house, request_music):
    house.semantic.watched.error = NotReady("Loading.")
    error = await failure(house.stub.GenerateMusic(request_music(), timeout=60))
    assert error.code() is grpc.StatusCode.UNAVAILABLE and "Loading" in error.details()
    assert all(house.watched[name].num_calls <= 1 for name in (*REFINING, "codec"))


@pytest.mark.parametrize("name", TOKEN_STAGES)
async def test_a_stage_that_comes_back_as_another_model_is_a_conflict(house, request_music, name):
    watched = house.watched[name]
    watched.lose_after, watched.info_after_loss = [2], dataclasses.replace(watched.info, digest_sha256="9" * 64)
    error = await failure(house.stub.GenerateMusic(request_music()))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert detail_of(error, error_details_pb2.ErrorInfo).reason == "MODEL_CHANGED"
    assert f"The {name} stage began with {watched.info.name}@" in error.details() and "@999" in error.details()


@pytest.mark.parametrize("name", TOKEN_STAGES)
async def test_a_stage_that_refuses_the_frames_it_made_is_a_conflict(house, request_music, name):
    house.watched[name].lose_after = [2]
    house.watched[name].refusals = [None, InvalidInput("resume_from.codec_id", "expected those of another codec.")]
    error = await failure(house.stub.GenerateMusic(request_music()))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert detail_of(error, error_details_pb2.ErrorInfo).reason == "MODEL_CHANGED"


@pytest.mark.parametrize("name", TOKEN_STAGES)
async def test_an_error_of_a_stage_is_not_told_as_one_of_its_readers(house, request_music, name):
    """Even if the reader has been lost before, so that a refusal of its own would mean another model."""
    house.watched[name].lose_after = [6]
    house.watched[name].refusals = [None, InvalidInput("resume_from.codec_id", "expected those of another codec.")]
    for watched in list(house.watched.values())[list(house.watched).index(name) + 1 :]:
        watched.lose_after = [1]
    error = await failure(house.stub.GenerateMusic(request_music(duration_s=4)))
    assert f"The {name} stage began with" in error.details()


@pytest.mark.parametrize("name", TOKEN_STAGES)
async def test_cancellation_reaches_every_stage_whoever_is_at_work(house, request_music, eventually, name):
    house.watched[name].gate = asyncio.Event()
    call = house.stub.GenerateMusic(request_music(duration_s=100), timeout=60)
    async for response in call:
        if response.progress.stage == name and response.progress.total_frame_count:
            break
    await eventually(lambda: house.watched[name].num_active == house.codec.watched.num_active == 1)
    call.cancel()
    await eventually(lambda: all(watched.num_active == 0 for watched in house.watched.values()))
    assert house.watched[name].num_cancelled == 1 and house.watched[name].num_sent < 100


async def test_the_deadline_reaches_every_stage_and_ends_the_piece_there(house, request_music, eventually):
    house.semantic.watched.gate = asyncio.Event()
    error = await failure(house.stub.GenerateMusic(request_music(duration_s=100), timeout=4.0))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: all(watched.num_active == 0 for watched in house.watched.values()))
    for watched in (house.embedding.watched, *house.watched.values()):
        assert 0 < watched.remaining_s < 4.5, "each hop rounds up a little; a stage alone would get 600 s"


@pytest.mark.parametrize("name", ["embedding", *TOKEN_STAGES, "codec"])
@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (NotFound("model", "expected one of minilm, got 'mulan'. Choose one."), grpc.StatusCode.NOT_FOUND),
        (InvalidInput("styles[0].codes", "expected 12 codes, got 4."), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_models_that_are_not_served_or_do_not_go_together_are_the_cascades_fault(
    house, request_music, name, refusal, code
):
    (house.embedding.watched if name == "embedding" else house.watched[name]).error = refusal
    error = await failure(house.stub.GenerateMusic(request_music()))
    assert error.code() is code
    assert detail_of(error, error_details_pb2.ErrorInfo).metadata["field"] == "cascade"
    assert f"{name.partition('/')[0]} answers '{refusal.message}'" in error.details()


@pytest.mark.parametrize("name", TOKEN_STAGES)
async def test_what_a_stage_says_of_the_clients_own_fields_keeps_its_name(house, request_music, name):
    field = "sampling.top_k" if name == "semantic" else "config.sampling.top_k"  # where each RPC has it
    house.watched[name].error = InvalidInput(field, "expected at most 64, got 65.")
    error = await failure(house.stub.GenerateMusic(request_music()))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and field_of(error) == "sampling.top_k"


@pytest.mark.parametrize("name", TOKEN_STAGES)
@pytest.mark.parametrize("pace", [0, REALTIME])
async def test_a_full_stage_passes_its_retry_time_through_and_is_not_asked_again(house, request_music, name, pace):
    house.watched[name].error = Overloaded("Full.", retry_after_s=2.5)
    error = await failure(house.stub.GenerateMusic(request_music(pace=pace)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail_of(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 2500
    assert house.watched[name].num_calls == 1


@pytest.mark.parametrize("name", TOKEN_STAGES)
async def test_a_crash_in_a_stage_is_internal_and_leaks_nothing(house, request_music, name):
    house.watched[name].error = RuntimeError("secret path")
    error = await failure(house.stub.GenerateMusic(request_music()))
    assert error.code() is grpc.StatusCode.INTERNAL and "secret" not in error.details()


async def test_an_unreachable_semantic_service_is_unavailable_by_name_and_fails_no_other_cascade(
    house, collect, request_music
):
    await house.servers["semantic"].stop()
    error = await failure(house.stub.GenerateMusic(request_music(), timeout=20))
    assert error.code() is grpc.StatusCode.UNAVAILABLE and "semantic" in error.details()
    assert (await collect(house.stub.GenerateMusic(request_music(cascade="")))).receipt.cascade == "musicgen"
    answer = await house.stub.ListModels(orchestrator_pb2.ListModelsRequest())
    assert list(answer.unreachable_services) == ["semantic"]


async def test_five_minutes_are_the_longest_piece_and_half_a_minute_for_musicgen(house, request_music):
    call = house.stub.GenerateMusic(request_music(duration_s=300))
    await first_chunk(call)
    call.cancel()
    assert house.semantic.watched.requests[0].duration_s == 300
    for fields in ({"duration_s": 300.5}, {"duration_s": 30.5, "cascade": "musicgen"}, {"duration_s": 0.05}):
        error = await failure(house.stub.GenerateMusic(request_music(**fields)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and field_of(error) == "duration_s"


async def test_an_extra_cascade_asks_for_its_own_models(house_with, request_music):
    models = {"semantic_model": "other", "joint_model": "mulan", "kind": "musiclm"}
    async with house_with(extra_cascades={"mine": models}) as house:
        call = house.stub.GenerateMusic(request_music(cascade="mine"))
        await first_chunk(call)
        call.cancel()
        assert house.semantic.watched.requests[0].model == "other"
        house.acoustic.refining.clear()
        error = await failure(house.stub.GenerateMusic(request_music(cascade="mine")))
        assert error.code() is grpc.StatusCode.NOT_FOUND and "got 'musiclm_" in error.details()


async def test_a_text_encoder_is_no_joint_one(house_with, request_music):
    async with house_with(extra_cascades={"mine": {"kind": "musiclm", "joint_model": "minilm"}}) as house:
        error = await failure(house.stub.GenerateMusic(request_music(cascade="mine")))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and field_of(error) == "cascade"
        assert "minilm" in error.details() and house.semantic.watched.num_calls == 0


async def test_without_a_fine_stage_the_music_ends_with_the_coarse_codebooks(house, collect, request_music):
    music = await collect(house.stub.GenerateMusic(request_music(cascade="musiclm")))
    assert len(music.samples) == 16_000
    names = [model.name for model in music.receipt.models]
    assert names == ["mulan", "musiclm_semantic", "musiclm_coarse", "tinycodec"]
    assert house.watched["acoustic/musiclm_fine"].num_calls == 0
    assert {progress.stage for progress in music.progress} >= {"semantic", "acoustic/musiclm_coarse"}
