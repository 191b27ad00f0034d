"""Every method of `StrettoClient` over a real channel."""

import asyncio
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from stretto.common.v1 import model_pb2
from stretto_client import (
    AudioChunk,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    NotReady,
    Overloaded,
    Pace,
    Progress,
    PromptSpan,
    Receipt,
    SamplingOptions,
    ServerFailure,
    StrettoClient,
    StrettoError,
    TokenMatrix,
    Unreachable,
    Waveform,
)

SECOND = Waveform(np.linspace(-0.5, 0.5, 24_000), 24_000)


async def test_music_comes_as_progress_then_audio_then_the_receipt(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        events = [event async for event in client.generate_music("a waltz", duration_s=2.0, seed=3)]
    assert [type(event) for event in events] == [Progress, AudioChunk, Progress, AudioChunk, Receipt]
    receipt = events[-1]
    assert isinstance(receipt, Receipt)
    assert (receipt.prompt, receipt.seed, receipt.first_audio_latency_s) == ("a waltz", 3, 0.25)
    assert receipt.real_time_factor == pytest.approx(0.5)
    assert [model.service for model in receipt.models] == ["embedding", "acoustic"]
    assert receipt.sampling == SamplingOptions(temperature=1.0, top_k=250)


async def test_every_argument_of_a_request_reaches_the_door(door: Any) -> None:
    sampling = SamplingOptions(temperature=0.0, top_k=5, top_p=0.5, guidance_scale=2.0)
    async with StrettoClient(door.address) as client:
        async for _ in client.generate_music(
            "x", cascade="musicgen", duration_s=1.0, seed=2**64 - 1, sampling=sampling, melody=SECOND, priority=9
        ):
            pass
        generated = door.seen.requests[-1]
        async for _ in client.continue_music(
            SECOND, prompt="y", duration_s=1.0, include_recording=False, pace=Pace.REALTIME
        ):
            pass
        continued = door.seen.requests[-1]
    assert generated.seed == 2**64 - 1
    assert generated.sampling.HasField("temperature")
    assert (generated.sampling.temperature, generated.sampling.top_p) == (0.0, 0.5)
    assert len(generated.melody.samples) == 4 * 24_000
    assert (continued.prompt, continued.include_recording) == ("y", False)
    assert continued.audio.sample_rate_hz == 24_000
    assert (generated.pace, generated.priority) == (model_pb2.PACE_BEST_EFFORT, 9)
    assert (continued.pace, continued.priority) == (model_pb2.PACE_REALTIME, 0)
    assert not continued.HasField("sampling")


@pytest.mark.parametrize(("field", "value"), [("priority", 10), ("priority", -1), ("pace", "fast")])
async def test_a_pace_or_priority_that_the_wire_does_not_know_is_refused_by_name(
    door: Any, field: str, value: Any
) -> None:
    async with StrettoClient(door.address) as client:
        with pytest.raises(InvalidInput) as caught:
            async for _ in client.generate_music("x", **{field: value}):
                pass
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("invalid", InvalidInput),
        ("missing", NotFound),
        ("loading", NotReady),
        ("full", Overloaded),
        ("conflict", Conflict),
        ("broken", ServerFailure),
    ],
)
async def test_a_failure_of_the_server_is_a_typed_error_and_the_next_call_works(
    door: Any, prompt: str, kind: type[StrettoError]
) -> None:
    async with StrettoClient(door.address) as client:
        with pytest.raises(kind) as caught:
            async for _ in client.generate_music(prompt, duration_s=1.0):
                pass
        assert "secret" not in str(caught.value)
        assert type(caught.value) is kind
        events = [event async for event in client.generate_music("fine", duration_s=1.0)]
    assert isinstance(events[-1], Receipt)


async def test_an_error_keeps_its_field_and_its_retry_time(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        with pytest.raises(InvalidInput) as invalid:
            await anext(client.generate_music("invalid"))
        with pytest.raises(Overloaded) as full:
            await anext(client.generate_music("full"))
    assert invalid.value.field == "prompt"
    assert invalid.value.message == "prompt: expected a better one, got 'invalid'."
    assert full.value.retry_after_s == pytest.approx(1.5)


async def test_a_late_answer_is_a_deadline_error(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        with pytest.raises(DeadlineExceeded, match="timeout"):
            async for _ in client.generate_music("slow", duration_s=5.0, timeout_s=0.5):
                pass


async def test_closing_the_stream_early_stops_the_server(door: Any) -> None:
    prompt = "slow, and closed early"  # of no other test
    async with StrettoClient(door.address) as client:
        events = client.generate_music(prompt, duration_s=5.0)
        async for event in events:
            if isinstance(event, AudioChunk):
                break
        await events.aclose()
        for _ in range(1000):
            if door.seen.num_cancelled[prompt]:
                break
            await asyncio.sleep(0.02)
    assert door.seen.num_cancelled[prompt] == 1


async def test_nobody_at_the_address_is_unreachable_at_once() -> None:
    async with StrettoClient("127.0.0.1:1") as client:
        with pytest.raises(Unreachable, match="No server answers"):
            await client.list_models(timeout_s=10)


async def test_an_oversized_message_is_invalid_input_and_the_next_call_works(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        with pytest.raises(InvalidInput, match="smaller"):
            await client.encode_audio(Waveform(np.zeros(500_000), 24_000))
        assert (await client.encode_audio(SECOND)).num_samples == 24_000


async def test_a_story_and_candidates_reach_the_door_and_come_back_in_the_receipt(door: Any) -> None:
    story = [PromptSpan(1.0, "a storm"), PromptSpan(2.0, "a calm", 0.0)]
    async with StrettoClient(door.address) as client:
        events = [event async for event in client.generate_music("a waltz", duration_s=3.0, story=story, candidates=2)]
    receipt = events[-1]
    assert isinstance(receipt, Receipt)
    assert (list(receipt.story), receipt.candidate_count, receipt.similarity) == (story, 2, 0.25)


async def test_candidates_that_the_wire_does_not_know_never_leave_the_client(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        for candidates in (0, 9):
            with pytest.raises(InvalidInput, match="candidates"):
                await anext(client.generate_music("x", candidates=candidates))


async def test_a_seed_that_does_not_fit_never_leaves_the_client(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        with pytest.raises(InvalidInput, match="seed"):
            await anext(client.generate_music("x", seed=-1))


async def test_tokens_go_to_the_codec_and_back(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        encoded = await client.encode_audio(SECOND, num_codebooks=2)
        chunks = [chunk async for chunk in client.decode_tokens(encoded.tokens)]

        async def halves() -> Any:
            yield encoded.tokens.frames(0, 25)
            yield encoded.tokens.frames(25, 50)

        streamed = [chunk async for chunk in client.decode_tokens(halves())]
    assert (encoded.tokens.num_codebooks, encoded.tokens.num_frames, encoded.num_samples) == (2, 50, 24_000)
    assert [chunk.first_sample_index for chunk in streamed] == [0, 12_000]
    whole = np.concatenate([chunk.waveform.samples for chunk in chunks], axis=1)
    assert np.array_equal(whole, np.concatenate([chunk.waveform.samples for chunk in streamed], axis=1))


async def test_long_tokens_travel_in_several_messages(door: Any) -> None:
    tokens = TokenMatrix(np.zeros((4, 1500)), 50.0, "framecodec@" + "ab" * 6)
    async with StrettoClient(door.address) as client:
        chunks = [chunk async for chunk in client.decode_tokens(tokens)]
    assert len(chunks) == 3
    assert sum(chunk.waveform.num_samples for chunk in chunks) == 1500 * 480


async def test_texts_come_back_as_states(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        embedded = await client.embed_text(["a b c", "d"])
    assert [state.states.shape for state in embedded.states] == [(3, 4), (1, 4)]
    assert embedded.model.name == "minilm"


async def test_models_and_silent_services_are_listed(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        listed = await client.list_models()
        assert await client.check_health()
    assert [model.name for model in listed.models] == ["musicgen", "framecodec"]
    assert listed.unreachable_services == ("embedding",)


async def endless_tokens(codec_id: str) -> Any:
    while True:
        yield TokenMatrix(np.zeros((4, 50)), 50.0, codec_id)
        await asyncio.sleep(0)


async def test_a_stream_that_is_refused_while_it_is_sent_keeps_the_servers_own_error(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        for _ in range(20):
            with pytest.raises(InvalidInput) as caught:
                async for _ in client.decode_tokens(endless_tokens("foreign@" + "ab" * 6)):
                    pass
            assert caught.value.field == "tokens.codec_id"


async def test_an_error_of_the_callers_own_tokens_is_raised_as_it_is_and_cancels_the_call(door: Any) -> None:
    heard = asyncio.Event()

    async def broken() -> Any:
        yield TokenMatrix(np.zeros((4, 50)), 50.0, "framecodec@" + "ab" * 6)
        await heard.wait()
        raise LookupError("no more tokens")

    async with StrettoClient(door.address) as client:
        with pytest.raises(LookupError, match="no more tokens"):
            async for _ in client.decode_tokens(broken()):
                assert door.seen.num_decoding == 1
                heard.set()
        for _ in range(1000):
            if door.seen.num_decoding == 0:
                break
            await asyncio.sleep(0.02)
        assert door.seen.num_decoding == 0, "the server still waits for tokens"


def test_the_client_and_its_command_need_neither_torch_nor_a_service() -> None:
    blocked = (
        "torch",
        "stretto_codec",
        "stretto_acoustic",
        "stretto_embedding",
        "stretto_orchestrator",
        "transformers",
    )
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); "
        "import stretto_client, stretto_client.up, stretto_client.cli.main as m; m.build_app()"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=300
    )  # a guard against hanging, not a limit of speed


async def test_a_recording_becomes_semantic_tokens_piece_by_piece(door: Any) -> None:
    recording = Waveform(np.zeros((2, 60_000)), 24_000)
    async with StrettoClient(door.address) as client:
        chunks = [chunk async for chunk in client.tokenize_audio(recording)]
    assert [chunk.first_frame_index for chunk in chunks] == [0, 25, 50]
    assert [chunk.tokens.codes.tolist() for chunk in chunks] == [[[0] * 25], [[1] * 25], [[2] * 12]]
    assert {chunk.model.name for chunk in chunks} == {"w2vbert"}, "every chunk says who made it"


async def test_audio_is_tokenised_while_it_comes(door: Any) -> None:
    heard = asyncio.Event()

    async def halves() -> Any:
        yield Waveform(np.zeros(24_000), 24_000)
        await heard.wait()  # which never happens unless the first half is answered before the second is sent
        yield Waveform(np.zeros(12_000), 24_000)

    async with StrettoClient(door.address) as client:
        async with asyncio.timeout(60):
            num_frames = []
            async for chunk in client.tokenize_audio(halves()):
                num_frames.append(chunk.tokens.num_frames)
                heard.set()
        assert num_frames == [25, 12]
        with pytest.raises(NotFound, match="w2vbert"):
            await anext(client.tokenize_audio(SECOND, model="missing"))
