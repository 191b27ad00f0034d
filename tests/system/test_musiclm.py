"""The cascade `musiclm` with the committed checkpoints: what it owes beyond what every cascade owes."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from real_server import STRETTO
from stretto_client import (
    AudioChunk,
    InvalidInput,
    Progress,
    PromptSpan,
    Receipt,
    SamplingOptions,
    StrettoClient,
    read_audio,
)

PROMPT = "a calm piano piece"
STAGES = ("semantic", "acoustic/musiclm_coarse")


async def events_of(address: str, prompt: str = PROMPT, **options: Any) -> list[Any]:
    async with StrettoClient(address) as client:
        return [event async for event in client.generate_music(prompt, cascade="musiclm", **options)]


def audio_of(events: list[Any]) -> NDArray[np.float32]:
    return np.concatenate([event.waveform.samples for event in events if isinstance(event, AudioChunk)], axis=1)


async def music(address: str, prompt: str = PROMPT, **options: Any) -> NDArray[np.float32]:
    return audio_of(await events_of(address, prompt, **options))


async def test_every_stage_moves_before_the_first_is_over_and_the_receipt_names_them(door: Any) -> None:
    events = await events_of(door.address, duration_s=20.0, seed=7)
    first_audio = next(index for index, event in enumerate(events) if isinstance(event, AudioChunk))
    told = {event.stage: event for event in events[:first_audio] if isinstance(event, Progress)}
    assert told["semantic"].num_done_frames < told["semantic"].num_total_frames, "audio waited for a whole stage"
    assert {event.stage for event in events if isinstance(event, Progress)} >= set(STAGES)
    receipt = events[-1]
    assert isinstance(receipt, Receipt)
    names = ["mulan", "musiclm_semantic", "musiclm_coarse", "framecodec"]
    assert [model.name for model in receipt.models] == names
    assert audio_of(events).shape == (1, 20 * 24_000)


async def test_the_fine_stage_refines_the_same_music(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        refined = [
            event async for event in client.generate_music(PROMPT, cascade="musiclm-fine", duration_s=3.0, seed=7)
        ]
    names = ["mulan", "musiclm_semantic", "musiclm_coarse", "musiclm_fine", "framecodec"]
    assert [model.name for model in refined[-1].models] == names
    plain, fine = (
        audio - audio.mean() for audio in (await music(door.address, duration_s=3.0, seed=7), audio_of(refined))
    )
    assert plain.shape == fine.shape and not np.array_equal(plain, fine)
    assert float((plain * fine).sum() / np.sqrt((plain**2).sum() * (fine**2).sum())) > 0.5  # of two seeds: about 0


async def test_the_same_request_is_the_same_bytes_alone_and_in_company(door: Any) -> None:
    wanted = [{"seed": 7}, {"seed": 8}, {"seed": 7, "prompt": "fast drums"}, {"seed": 7}]
    together = await asyncio.gather(*(music(door.address, duration_s=3.0, **each) for each in wanted))
    alone = await music(door.address, duration_s=3.0, seed=7)
    assert np.array_equal(together[0], alone)
    assert np.array_equal(together[3], alone)
    assert not np.array_equal(together[1], alone)
    assert not np.array_equal(together[2], alone)


async def test_every_condition_changes_the_music(door: Any, melody_wav: Path) -> None:
    plain = await music(door.address, duration_s=2.0, seed=3)
    storm = [PromptSpan(0.5, "a loud storm of drums", 0.5)]
    others = await asyncio.gather(
        music(door.address, duration_s=2.0, seed=3, melody=read_audio(melody_wav)),
        music(door.address, duration_s=2.0, seed=3, story=storm),
        music(door.address, duration_s=2.0, seed=3, sampling=SamplingOptions(guidance_scale=1.0)),
    )
    for other in others:
        assert not np.array_equal(plain, other)


async def test_the_best_of_several_candidates_is_sent_and_can_be_made_again(door: Any) -> None:
    events = await events_of(door.address, duration_s=2.0, seed=20, candidates=3)
    receipt = events[-1]
    assert receipt.candidate_count == 3
    assert 20 <= receipt.seed < 23
    again = await music(door.address, duration_s=2.0, seed=receipt.seed)
    assert np.array_equal(audio_of(events), again)
    async with StrettoClient(door.address) as client:
        made = [(await events_of(door.address, duration_s=2.0, seed=seed)) for seed in range(20, 23)]
        waveforms = [
            type(events_chunk.waveform)(audio_of(each), events_chunk.waveform.sample_rate_hz)
            for each in made
            for events_chunk in [next(event for event in each if isinstance(event, AudioChunk))]
        ]
        ranking = await client.rank_audio(PROMPT, waveforms)
    assert ranking.ranked[0].candidate_index + 20 == receipt.seed
    assert ranking.ranked[0].similarity == pytest.approx(receipt.similarity, abs=1e-4)


async def test_a_recording_goes_on_with_and_without_a_prompt(door: Any, melody_wav: Path) -> None:
    recording = read_audio(melody_wav)
    async with StrettoClient(door.address) as client:
        plain, told = [
            [
                event
                async for event in client.continue_music(
                    recording, prompt=prompt, cascade="musiclm", duration_s=1.5, seed=5, include_recording=False
                )
            ]
            for prompt in ("", "fast drums")
        ]
    assert audio_of(plain).shape == audio_of(told).shape == (1, 36_000)
    assert not np.array_equal(audio_of(plain), audio_of(told))


async def test_a_piece_longer_than_any_window_is_whole(door: Any) -> None:
    samples = await music(door.address, duration_s=33.0, seed=2)
    assert samples.shape == (1, 33 * 24_000)
    seconds = np.sqrt((samples.reshape(33, -1) ** 2).mean(axis=1))
    assert float((seconds > 1e-4).mean()) > 0.9, "windows without music, and not just a rest"


async def test_a_story_is_refused_by_a_cascade_that_cannot_tell_one(door: Any) -> None:
    async with StrettoClient(door.address) as client:
        with pytest.raises(InvalidInput) as caught:
            async for _ in client.generate_music("a flute", story=[PromptSpan(1.0, "a drum")], duration_s=2.0):
                pass
    assert caught.value.field == "story"


def test_the_command_makes_a_story(run: Any, door: Any, tmp_path: Path) -> None:
    run(
        *STRETTO, "generate", PROMPT, "--cascade", "musiclm", "--story", "1/0.5:fast drums", "--duration-s", 2,
        "-o", "story.wav", "--address", door.address,
    )  # fmt: skip
    assert read_audio(tmp_path / "story.wav").duration_s == pytest.approx(2.0)
