"""The main job: what `make demo` does, and what every piece of music owes."""

import asyncio
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from real_server import ROOT, STRETTO
from stretto_client import AudioChunk, Receipt, SamplingOptions, StrettoClient, Waveform, read_audio

MAX_SPECTRAL_FLATNESS = 0.1  # white noise has 0.56 by this measure, a rendered piano below 0.01


def spectral_flatness(waveform: Waveform) -> float:
    """Geometric over arithmetic mean of the power spectrum, median over frames of 85 ms that sound at all."""
    samples = waveform.mono().samples[0].astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(samples, 2048)[::1024]
    frames = frames[np.sqrt((frames**2).mean(axis=1)) > 1e-3]
    power = np.abs(np.fft.rfft(frames * np.hanning(2048), axis=1)) ** 2 + 1e-10
    return float(np.median(np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)))


def tonality(waveform: Waveform) -> float:
    """Share of the power of a frame that lies in its 20 strongest of 1025 bins, median over frames that sound."""
    samples = waveform.mono().samples[0].astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(samples, 2048)[::1024]
    frames = frames[np.sqrt((frames**2).mean(axis=1)) > 1e-3]
    power = np.sort(np.abs(np.fft.rfft(frames * np.hanning(2048), axis=1)) ** 2, axis=1)
    return float(np.median(power[:, -20:].sum(axis=1) / power.sum(axis=1)))


def loudness(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """RMS of each 100 ms of the first 4 s at 24 kHz."""
    rms: NDArray[np.float32] = np.sqrt((samples[:96_000].reshape(-1, 2_400) ** 2).mean(axis=1))
    return rms


async def music(address: str, prompt: str, **options: Any) -> tuple[NDArray[np.float32], Receipt]:
    chunks, receipt = [], None
    async with StrettoClient(address) as client:
        async for event in client.generate_music(prompt, **options):
            match event:
                case AudioChunk():
                    assert event.first_sample_index == sum(chunk.shape[1] for chunk in chunks)
                    chunks.append(event.waveform.samples)
                case Receipt():
                    receipt = event
    assert receipt is not None
    return np.concatenate(chunks, axis=1), receipt


def test_the_measures_tell_noise_from_a_tone() -> None:
    noise = Waveform(np.random.default_rng(1).normal(size=48_000) * 0.1, 24_000)
    tone = Waveform(np.sin(np.arange(48_000) / 10) * 0.1, 24_000)
    assert spectral_flatness(noise) > 0.4
    assert spectral_flatness(tone) < 0.01
    assert tonality(noise) < 0.15
    assert tonality(tone) > 0.9


def test_make_demo_gives_ten_seconds_of_music_a_picture_and_a_receipt(run: Any, tmp_path: Path) -> None:
    recipe = re.search(r"^demo:.*?\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    for part in ("generate", "--cascade musicgen", "--duration-s 10", "-o out/demo.wav", "--picture out/demo.png"):
        assert part in recipe[1]
    (tmp_path / "out").mkdir()
    said = run(
        *STRETTO, "generate", "a jazz trio with saxophone, double bass and drums", "--cascade", "musicgen",
        "--duration-s", 10, "--seed", 7, "-o", "out/demo.wav", "--picture", "out/demo.png",
    ).stdout  # fmt: skip
    assert "Receipt" in said
    assert re.search(r"Real-time factor \d+\.\d\d", said)
    assert (tmp_path / "out/demo.png").read_bytes().startswith(b"\x89PNG")
    audio = read_audio(tmp_path / "out/demo.wav")
    assert audio.duration_s == pytest.approx(10.0)
    samples = np.abs(audio.samples)
    assert np.sqrt((audio.samples**2).mean()) > 0.005, "silent"
    assert (samples > 0.9).mean() < 0.005, "held back by the codec's limiter"
    assert spectral_flatness(audio) < MAX_SPECTRAL_FLATNESS, "noise"
    assert tonality(audio) > 0.3, "not tonal"


async def test_same_request_and_seed_are_the_same_bytes_and_others_are_others(door: Any) -> None:
    wanted = {
        "first": ("a calm piano piece", 7),
        "again": ("a calm piano piece", 7),
        "other seed": ("a calm piano piece", 8),
        "other prompt": ("fast drums and a bass guitar", 7),
    }
    made = await asyncio.gather(
        *(music(door.address, text, seed=seed, duration_s=2.0) for text, seed in wanted.values())
    )
    alone = (await music(door.address, "a calm piano piece", seed=7, duration_s=2.0))[0]
    audio = dict(zip(wanted, (samples for samples, _ in made)))
    assert np.array_equal(audio["first"], audio["again"])
    assert np.array_equal(audio["first"], alone), "company changed the music"
    assert not np.array_equal(audio["first"], audio["other seed"])
    assert not np.array_equal(audio["first"], audio["other prompt"])


async def test_a_receipt_makes_the_same_music_again(door: Any) -> None:
    sampling = SamplingOptions(temperature=0.9, top_k=100, top_p=0.95, guidance_scale=2.0)
    samples, receipt = await music(door.address, "a waltz for strings", seed=11, duration_s=1.0, sampling=sampling)
    again, second = await music(
        door.address,
        receipt.prompt,
        cascade=receipt.cascade,
        seed=receipt.seed,
        duration_s=receipt.duration_s,
        sampling=receipt.sampling,
    )
    assert np.array_equal(samples, again)
    assert receipt.output_sha256 == hashlib.sha256(samples.T.astype("<f4").tobytes()).hexdigest()
    assert second.output_sha256 == receipt.output_sha256
    assert receipt.sampling == sampling
    assert [model.service for model in receipt.models] == ["embedding", "acoustic", "codec"]
    assert all(re.fullmatch(r"[0-9a-f]{64}", model.digest_sha256) for model in receipt.models)
    assert 0 < receipt.first_audio_latency_s <= receipt.total_latency_s


async def test_every_condition_changes_the_music(door: Any, melody_wav: Path) -> None:
    plain, guided, cold, led = await asyncio.gather(
        music(door.address, "a flute", seed=3, duration_s=1.0),
        music(door.address, "a flute", seed=3, duration_s=1.0, sampling=SamplingOptions(guidance_scale=1.0)),
        music(door.address, "a flute", seed=3, duration_s=1.0, sampling=SamplingOptions(temperature=0.0)),
        music(door.address, "a flute", seed=3, duration_s=1.0, melody=read_audio(melody_wav)),
    )
    for other in (guided, cold, led):
        assert not np.array_equal(plain[0], other[0])
    assert led[1].input_sha256 != plain[1].input_sha256 == ""


async def test_a_continuation_begins_with_the_recording_and_goes_on(door: Any, melody_wav: Path) -> None:
    recording = read_audio(melody_wav)
    async with StrettoClient(door.address) as client:
        events = [event async for event in client.continue_music(recording, prompt="a flute", duration_s=1.0, seed=5)]
        bare = [
            event
            async for event in client.continue_music(
                recording, prompt="a flute", duration_s=1.0, seed=5, include_recording=False
            )
        ]
    whole = np.concatenate([event.waveform.samples for event in events if isinstance(event, AudioChunk)], axis=1)
    new = np.concatenate([event.waveform.samples for event in bare if isinstance(event, AudioChunk)], axis=1)
    assert new.shape[1] == 24_000
    assert whole.shape[1] - new.shape[1] == pytest.approx(recording.num_samples, abs=1920)
    assert np.array_equal(whole[:, -24_000:], new)
    assert np.corrcoef(loudness(whole[0]), loudness(recording.samples[0]))[0, 1] > 0.5


def test_the_command_melody_and_continue_write_files_and_json(run: Any, door: Any, melody_wav: Path) -> None:
    common = ("--duration-s", 1, "--json", "--address", door.address)
    led = run(*STRETTO, "generate", "a choir", "--melody", melody_wav, "-o", "led.flac", *common).stdout
    on = run(*STRETTO, "generate", "--continue", melody_wav, "-o", "on.ogg", *common).stdout
    assert re.fullmatch(r"[0-9a-f]{64}", json.loads(led)["input_sha256"])
    assert json.loads(on)["files"] == ["on.ogg"]
