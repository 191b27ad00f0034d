"""Calls of a transcriber, and what their failures say."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.common.v1 import audio_pb2
from stretto.transcriber.v1 import transcriber_pb2

Note = tuple[float, float, int, int]


def noise(duration_s: float, *, rate_hz: int = 8000, num_channels: int = 1, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.1, (round(duration_s * rate_hz), num_channels)).astype("<f4")


def wave(samples: Any, rate_hz: int = 8000) -> audio_pb2.Waveform:
    return audio_pb2.Waveform(
        sample_rate_hz=rate_hz, channel_count=samples.shape[1], samples=samples.astype("<f4").tobytes()
    )


def transcribe_requests(
    samples: Any, *, model: str = "", ends: Any = 0, rate_hz: int = 8000, cuts: Sequence[int] = ()
) -> list[Any]:
    request, config = transcriber_pb2.TranscribeAudioRequest, transcriber_pb2.TranscribeConfig(model=model, ends=ends)
    parts = [samples[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(samples)])]
    return [request(config=config), *(request(waveform=wave(part, rate_hz)) for part in parts)]


async def transcribe(stub: Any, samples: Any, **options: Any) -> list[transcriber_pb2.TranscribeAudioResponse]:
    return [each async for each in stub.TranscribeAudio(iter(transcribe_requests(samples, **options)), timeout=60)]


def notes_of(responses: Sequence[transcriber_pb2.TranscribeAudioResponse]) -> list[Note]:
    """All notes, in order of onset; none may come that begins before what was complete already."""
    found: list[Note] = []
    complete_s = 0.0
    for response in responses:
        own = response.notes
        assert complete_s <= response.complete_s
        assert all(onset_s >= complete_s for onset_s in own.onset_s)
        assert len(own.parts) == 1 and own.parts[0].program == 0 and not any(own.part_index)
        complete_s = response.complete_s
        found += zip(own.onset_s, own.duration_s, own.pitch_midi, own.velocity)
    return sorted(found)


def track_requests(samples: Any, *, model: str = "", rate_hz: int = 8000, cuts: Sequence[int] = ()) -> list[Any]:
    request, config = transcriber_pb2.TrackBeatsRequest, transcriber_pb2.TrackBeatsConfig(model=model)
    parts = [samples[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(samples)])]
    return [request(config=config), *(request(waveform=wave(part, rate_hz)) for part in parts)]


async def track(stub: Any, samples: Any, **options: Any) -> transcriber_pb2.TrackBeatsResponse:
    return await stub.TrackBeats(iter(track_requests(samples, **options)), timeout=60)


async def consume(call: Any) -> list[Any]:
    return [response async for response in call]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so that nobody tells of."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def failure(awaitable: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value


def detail(error: grpc.aio.AioRpcError, wanted: Any) -> Any:
    status = rpc_status.from_call(_Call(error))
    assert any(packed.Unpack(wanted) for packed in status.details), status
    return wanted


def violation(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """The field that is off, and what is said of it."""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    found = detail(error, error_details_pb2.BadRequest()).field_violations[0]
    return found.field, found.description


def retry_after_s(error: grpc.aio.AioRpcError) -> float:
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
    return float(detail(error, error_details_pb2.RetryInfo()).retry_delay.ToTimedelta().total_seconds())


class _Call:
    """What `grpc_status` wants to see of a failed call."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code, self.details = error.code, error.details
        self.trailing_metadata = lambda: [*error.trailing_metadata()]
