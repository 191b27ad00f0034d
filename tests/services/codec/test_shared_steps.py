"""Streams that share decoding steps: each gets what it gets alone, samples and errors."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stretto_codec.engine import CodecEngine, codec_engine, shared_steps
from stretto_codec.engine.frames import Chunk
from stretto_codec.engine.shared_steps import SharedSteps
from stretto_codec.loading import LoadedCodec
from stretto_codec.models.streaming import StreamDecoder
from stretto_shared.engine import shared_turns
from stretto_shared.engine.thread import ModelThread
from stretto_shared.tokens import TokenMatrix

BAD = 31


class Watched:
    """A decoder that notes how many clips each step took, and fails on one code; NaN instead where told."""

    def __init__(self, decoder: StreamDecoder, *, gives_nan: bool = False) -> None:
        self._decoder = decoder
        self._gives_nan = gives_nan
        self.can_join, self.joins_any = decoder.can_join, decoder.joins_any
        self.open, self.finish, self.try_layers = decoder.open, decoder.finish, decoder.try_layers
        self.num_clips: list[int] = []

    def step(self, codes: torch.Tensor, state: Any, scale: float | None) -> tuple[torch.Tensor, Any]:
        self.num_clips.append(codes.shape[0])
        is_bad = (codes == BAD).any(2).any(1)
        if bool(is_bad.any()) and not self._gives_nan:
            raise RuntimeError("bad code")
        audio, state = self._decoder.step(codes, state, scale)
        return torch.where(is_bad[:, None, None], torch.nan, audio), state


def watched(codec: LoadedCodec, **options: Any) -> tuple[LoadedCodec, Watched]:
    decoder = Watched(codec.decoder, **options)
    return dataclasses.replace(codec, decoder=decoder, max_joined=8), decoder


def random_codes(codec: LoadedCodec, num_frames: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, BAD, (codec.config.num_codebooks, num_frames))


def chunk_of(codec: LoadedCodec, seed: int, *, is_bad: bool = False, size: int | None = None) -> Chunk:
    codes = random_codes(codec, codec.grid.size(0) if size is None else size, seed).astype(np.int32)
    if is_bad:
        codes[0, 0] = BAD
    return Chunk(0, codes, None)


async def decode(engine: CodecEngine, codec: LoadedCodec, codes: Any, cuts: Any = (), pauses: Any = ()) -> bytes:
    async def tokens() -> AsyncIterator[TokenMatrix]:
        for index, run in enumerate(np.split(codes, cuts, axis=1)):
            for _ in range(pauses[index % len(pauses)] if len(pauses) else 0):
                await asyncio.sleep(0)
            yield TokenMatrix(run, codec.config.frame_rate_hz, codec.info.name)

    return b"".join([chunk.waveform.samples.tobytes() async for chunk in engine.decode("", tokens())])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("encodec_24khz", "float32"),
        ("encodec_24khz", "bfloat16"),
        ("encodec_32khz", "float32"),
        ("encodec_32khz", "bfloat16"),
        ("framecodec", "float32"),
        ("framecodec", "bfloat16"),
        ("soundstream", "float32"),
    ],
)
async def test_in_random_schedules_each_stream_gets_the_bytes_that_it_gets_alone(
    load: Any, name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = load(name, dtype=dtype, max_joined=8)
    sizes: list[int] = []
    together = shared_steps.step_together
    monkeypatch.setattr(
        shared_steps, "step_together", lambda clips, codes: (sizes.append(len(clips)), together(clips, codes))[1]
    )
    generator = np.random.default_rng(len(name))
    engine = CodecEngine({name: lambda: codec}, num_threads=1)
    await engine.start()
    try:
        clips = [random_codes(codec, int(generator.integers(1, 120)), seed) for seed in range(8)]
        alone = [await decode(engine, codec, clip) for clip in clips]
        assert not sizes and len(set(alone)) == 8
        for _ in range(8):
            chosen = generator.permutation(8)[: generator.integers(2, 9)]
            runs = []
            for index in chosen:
                cuts = sorted(
                    set(generator.integers(0, clips[index].shape[1], generator.integers(0, 5)).tolist()) - {0}
                )
                runs.append(decode(engine, codec, clips[index], cuts, generator.integers(0, 40, 5).tolist()))
            assert await asyncio.gather(*runs) == [alone[index] for index in chosen]
    finally:
        await engine.stop()
    assert bool(sizes) == (codec.max_joined > 1)


@pytest.fixture
async def held() -> AsyncIterator[tuple[ModelThread, threading.Event]]:
    """A model thread that is busy until the event is set."""
    thread, go = ModelThread("held"), threading.Event()
    busy = asyncio.create_task(thread.run(lambda: go.wait(20)))
    await asyncio.sleep(0)
    yield thread, go
    go.set()
    await busy
    await thread.close()


Held = tuple[ModelThread, threading.Event]
Observe = Callable[[float], None]


async def samples_of(codec: LoadedCodec, held: Held, chunks: list[Chunk], observe: Observe | None = None) -> list[Any]:
    """What each chunk gives when all of them wait at the same moment: samples or an error."""
    thread, go = held
    steps = SharedSteps(codec, thread, observe)
    tasks = [asyncio.create_task(steps.step(codec.open_decoder(), chunk)) for chunk in chunks]
    await asyncio.sleep(0)
    go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not steps.num_waiting
    return [result if isinstance(result, Exception) else result.samples for result in results if result is not None]


async def test_those_who_wait_together_share_a_step_of_two_four_or_eight(load: Any, held: Held) -> None:
    codec, decoder = watched(load("encodec_32khz"))
    results = await samples_of(codec, held, [chunk_of(codec, seed) for seed in range(7)])
    assert decoder.num_clips == [4, 2, 1]
    assert len({samples.tobytes() for samples in results}) == 7


async def test_chunks_of_other_shapes_have_steps_of_their_own(load: Any, held: Held) -> None:
    codec, decoder = watched(load("encodec_32khz"))
    chunks = [chunk_of(codec, 0), chunk_of(codec, 1, size=7), chunk_of(codec, 2), chunk_of(codec, 3, size=7)]
    chunks.append(Chunk(0, chunks[0].codes[:2], None))
    await samples_of(codec, held, chunks)
    assert decoder.num_clips == [2, 1, 1, 1]


async def test_a_clips_first_chunk_is_not_decoded_beside_a_later_one_of_its_size(load: Any, held: Held) -> None:
    codec, decoder = watched(load("framecodec"))
    later = codec.grid.first_chunks.index(codec.grid.size(0), 1)
    await samples_of(codec, held, [chunk_of(codec, 0), dataclasses.replace(chunk_of(codec, 1), index=later)])
    assert decoder.num_clips == [1, 1]


@pytest.mark.parametrize("max_joined", [1, 2])
async def test_no_more_share_a_step_than_were_tried(load: Any, held: Held, max_joined: int) -> None:
    codec, decoder = watched(load("encodec_32khz"))
    codec = dataclasses.replace(codec, max_joined=max_joined)
    await samples_of(codec, held, [chunk_of(codec, seed) for seed in range(4)])
    assert decoder.num_clips == [max_joined] * (4 // max_joined)


@pytest.mark.parametrize("gives_nan", [False, True])
async def test_a_stream_that_fails_fails_alone(load: Any, held: Held, gives_nan: bool) -> None:
    codec, _ = watched(load("encodec_32khz"), gives_nan=gives_nan)
    results = await samples_of(codec, held, [chunk_of(codec, seed, is_bad=seed == 2) for seed in range(4)])
    assert [isinstance(result, RuntimeError) for result in results] == [False, False, True, False]
    for seed in (0, 1, 3):
        with torch.inference_mode():
            codes = torch.from_numpy(chunk_of(codec, seed).codes.astype(np.int64))[None]
            assert np.array_equal(results[seed], codec.open_decoder().step(codes)[0].numpy())


async def test_the_chunk_that_is_due_first_is_decoded_first(load: Any, held: Held) -> None:
    codec, _ = watched(load("framecodec"))
    codec = dataclasses.replace(codec, max_joined=1)
    thread, go = held
    steps, done = SharedSteps(codec, thread, None), list[float]()

    async def step(due_s: float) -> None:
        await steps.step(codec.open_decoder(), chunk_of(codec, 0), due_s=due_s)
        done.append(due_s)

    tasks = [asyncio.create_task(step(due_s)) for due_s in (3.0, 1.0, 4.0, 2.0)]
    while steps.num_waiting < 4:  # noqa: ASYNC110
        await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    assert done == [1.0, 2.0, 3.0, 4.0]


async def test_a_listener_who_runs_dry_is_served_before_one_who_begins_and_one_who_is_ahead(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, now_s, dues = load("framecodec"), [100.0], list[float]()
    monkeypatch.setattr(codec_engine, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    step = SharedSteps.step

    async def noted(steps: SharedSteps, clip: Any, chunk: Chunk, *, due_s: float, patience_s: float) -> Any:
        dues.append(due_s)
        return await step(steps, clip, chunk, due_s=due_s, patience_s=patience_s)

    monkeypatch.setattr(SharedSteps, "step", noted)
    engine = CodecEngine({"framecodec": lambda: codec}, num_threads=1)
    await engine.start()
    try:
        chunks = [len(each) for each in np.split(np.zeros(40), np.cumsum([codec.grid.size(i) for i in range(4)]))][:4]

        async def tokens() -> AsyncIterator[TokenMatrix]:
            yield TokenMatrix(random_codes(codec, sum(chunks), 0), codec.config.frame_rate_hz, codec.info.name)

        heard_s = []
        async for chunk in engine.decode("", tokens()):
            heard_s.append(chunk.waveform.duration_s)
            now_s[0] += 0.01
    finally:
        await engine.stop()
    begun_s = 100.0
    assert dues[0] == begun_s + codec_engine.FIRST_AUDIO_TARGET_S
    assert dues[1:] == pytest.approx([begun_s + sum(heard_s[:i]) for i in range(1, len(dues))])


async def test_a_stream_that_is_cancelled_leaves_the_step(load: Any, held: Held) -> None:
    codec, decoder = watched(load("encodec_32khz"))
    thread, go = held
    steps = SharedSteps(codec, thread, None)
    tasks = [asyncio.create_task(steps.step(codec.open_decoder(), chunk_of(codec, seed))) for seed in range(3)]
    while thread.num_queued < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    assert steps.num_waiting == thread.num_queued == 2
    go.set()
    assert all(chunk is not None for chunk in await asyncio.gather(tasks[0], tasks[2]))
    assert decoder.num_clips == [2] and not steps.num_waiting


async def test_the_time_of_a_shared_step_is_divided_by_the_audio_of_all_of_it(
    load: Any, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, _ = watched(load("encodec_24khz"))
    clock_s = iter([10.0, 13.0])
    monkeypatch.setattr(shared_turns, "time", SimpleNamespace(perf_counter=lambda: next(clock_s)))
    observed: list[float] = []
    results = await samples_of(codec, held, [chunk_of(codec, seed) for seed in range(4)], observed.append)
    audio_s = sum(samples.shape[1] for samples in results) / codec.config.sample_rate_hz
    assert observed == pytest.approx([3.0 / audio_s] * 4)
