"""The committed tokenizer as the service loads it: served by default, and its tokens follow the music."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stretto_semantic.engine import Tokenizing
from stretto_semantic.loading import list_tokenizer_names, load_tokenizer
from stretto_semantic.settings import SemanticSettings
from stretto_shared.audio import Waveform

WEIGHTS_DIR: Path = SemanticSettings(models="").weights_dir


def melody(*pitches_midi: int) -> Waveform:
    """Half a second of each pitch, with overtones that fade."""
    time_s = np.arange(12_000) / 24_000
    notes = []
    for pitch in pitches_midi:
        hz = 440.0 * 2 ** ((pitch - 69) / 12)
        notes.append(sum(np.sin(2 * np.pi * hz * k * time_s) / k for k in (1, 2, 3)) * np.exp(-3 * time_s))
    return Waveform(0.2 * np.concatenate(notes), 24_000)


async def tokens_of(engine: Tokenizing, *messages: Waveform) -> list[int]:
    async def audio():  # type: ignore[no-untyped-def]
        for message in messages:
            yield message

    return [code async for window in engine.tokenize("", audio()) for code in window.tokens.codes[0].tolist()]


@pytest.fixture
async def engine():  # type: ignore[no-untyped-def]
    assert list_tokenizer_names(WEIGHTS_DIR)[0] == "w2vbert"
    engine = Tokenizing({"w2vbert": lambda: load_tokenizer("w2vbert", "default", weights_dir=WEIGHTS_DIR)})
    await engine.start()
    yield engine
    await engine.stop()


async def test_the_default_tokenizer_gives_25_tokens_a_second_that_follow_the_music(engine: Tokenizing) -> None:
    (info,) = engine.list_models()
    assert (info.name, info.sample_rate_hz, info.frame_rate_hz, info.num_codebooks) == ("w2vbert", 24_000, 25.0, 1)
    scale, other = melody(60, 62, 64, 65, 67, 69), melody(72, 48, 71, 50, 69, 52)
    ids = await tokens_of(engine, scale)
    assert len(ids) == 75 and len(set(ids)) >= 3
    halves = (Waveform(scale.samples[:, :30_001], 24_000), Waveform(scale.samples[:, 30_001:], 24_000))
    assert await tokens_of(engine, *halves) == ids
    different = await tokens_of(engine, other)
    assert np.mean(np.array(different) != np.array(ids)) > 0.2
    silent = await tokens_of(engine, Waveform(np.zeros(72_000), 24_000))
    assert np.mean(np.array(silent) != np.array(ids)) > 0.5
