"""Every kind of call that a client makes, each with a digest of its answer: the load that servers are harmed under.

A call is a name and a coroutine of a client; the same call gives the same digest on any healthy set of servers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import numpy as np
from stretto_client import AnalysisReceipt, AudioChunk, NoteChunk, StrettoClient, Waveform

TIMEOUT_S = 120.0
SAMPLE_RATE_HZ = 24_000
Call = Callable[[StrettoClient], Awaitable[str]]


def tune(duration_s: float = 3.0) -> Waveform:
    """A rising scale of decaying tones, a note every half second."""
    times_s = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    note = np.floor(2 * times_s)
    frequency_hz = 261.63 * 2 ** ((2 * note) / 12)
    samples = 0.4 * np.sin(2 * np.pi * frequency_hz * times_s) * np.exp(-4 * (times_s - note / 2))
    return Waveform(samples.astype(np.float32), SAMPLE_RATE_HZ)


def digest(arrays: Iterable[Any]) -> str:
    """Of all numbers, in order."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def music(cascade: str, prompt: str, duration_s: float, seed: int) -> Call:
    """Generated music."""

    async def call(client: StrettoClient) -> str:
        events = client.generate_music(prompt, cascade=cascade, duration_s=duration_s, seed=seed, timeout_s=TIMEOUT_S)
        return digest([event.waveform.samples.T async for event in events if isinstance(event, AudioChunk)])

    return call


async def continued(client: StrettoClient) -> str:
    """A recording that goes on."""
    events = client.continue_music(tune(), duration_s=2.0, seed=3, timeout_s=TIMEOUT_S)
    return digest([event.waveform.samples.T async for event in events if isinstance(event, AudioChunk)])


async def analyzed(client: StrettoClient) -> str:
    """Notes, beats and the score of a recording."""
    found: list[Any] = []
    async for event in client.analyze_music(tune(8.0), timeout_s=TIMEOUT_S):
        if isinstance(event, NoteChunk):
            found += [event.notes.onset_s, event.notes.pitch_midi]
        elif isinstance(event, AnalysisReceipt):
            found.append(np.frombuffer(event.input_sha256.encode(), np.uint8))
    return digest(found)


async def encoded(client: StrettoClient) -> str:
    """A recording as tokens."""
    return digest([(await client.encode_audio(tune())).tokens.codes])


async def decoded(client: StrettoClient) -> str:
    """A recording as tokens, and back."""
    tokens = (await client.encode_audio(tune())).tokens
    return digest([chunk.waveform.samples.T async for chunk in client.decode_tokens(tokens)])


async def embedded(client: StrettoClient) -> str:
    """A text as the cascades hear it."""
    return digest([(await client.embed_text(["a slow cello"])).states[0].pooled])


async def tokenized(client: StrettoClient) -> str:
    """A recording as semantic tokens."""
    return digest([chunk.tokens.codes async for chunk in client.tokenize_audio(tune())])


CALLS: Mapping[str, Call] = {
    "musicgen": music("musicgen", "a calm piano piece", 4.0, 1),
    "musiclm": music("musiclm", "a fast string quartet", 2.0, 2),
    "continue": continued,
    "analyze": analyzed,
    "encode": encoded,
    "decode": decoded,
    "embed": embedded,
    "tokenize": tokenized,
}
