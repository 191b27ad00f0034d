"""What is measured of the semantic stage, on stages that are made up."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import pytest
import semantic_stage
from findings import Findings
from stages import GREEDY, Stages
from stretto_shared.audio import Waveform
from stretto_shared.features import JointEmbedding, SamplingOptions
from stretto_shared.tokens import TokenMatrix

STYLE = JointEmbedding("joint@0", np.ones(4, np.float32), (1, 2))
BAR = (60, 64, 67, 72, 71, 65, 62, 69)


def tokens(codes: Any) -> TokenMatrix:
    return TokenMatrix(np.atleast_2d(np.asarray(codes, np.int32)), 25.0, "tokens@0")


class FakeStages:
    """Plays one bar over and over, each token the pitch of half a second; recites clips that say so."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def style_of_text(self, text: str) -> JointEmbedding:
        return STYLE

    async def style_of_audio(self, waveform: Waveform) -> JointEmbedding:
        return STYLE

    async def tokenize(self, waveform: Waveform) -> TokenMatrix:
        return tokens(np.arange(256) % 7 + (100 if waveform.samples[0, 0] > 0 else 0))

    async def semantic(
        self,
        style: JointEmbedding,
        *,
        duration_s: float,
        seed: int,
        prompt: TokenMatrix | None = None,
        sampling: SamplingOptions | None = None,
    ) -> TokenMatrix:
        self.asked.append({"duration_s": duration_s, "seed": seed, "prompt": prompt, "sampling": sampling})
        if prompt is not None:
            count = round(duration_s * 25) - prompt.num_frames
            at = np.arange(prompt.num_frames, prompt.num_frames + count)
            return tokens(at % 7 + 100)  # goes on as the clips do whose tokens are 100 and more
        first = int(np.random.default_rng(seed).integers(len(BAR)))
        bar = np.roll(BAR, first) + 3 * (seed // semantic_stage.OTHER_SEED)
        return tokens(np.repeat(np.resize(bar, -(-int(duration_s * 25) // 12)), 12)[: round(duration_s * 25)])

    async def sound_of(self, semantic: TokenMatrix, style: JointEmbedding, *, seed: int) -> Waveform:
        hertz = 440 * 2 ** ((np.repeat(semantic.codes[0], 960) - 69) / 12)
        return Waveform((0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 24_000)).astype(np.float32)[None], 24_000)


def faked() -> Stages:
    return cast(Stages, FakeStages())


def test_a_shuffle_keeps_the_inventory_and_not_the_order() -> None:
    before = tokens(np.arange(50))
    after = semantic_stage.shuffled(before, 0)
    assert sorted(after.codes[0]) == list(range(50)) and not np.array_equal(after.codes, before.codes)
    assert np.array_equal(after.codes, semantic_stage.shuffled(before, 0).codes)
    assert (after.frame_rate_hz, after.codec_id) == (before.frame_rate_hz, before.codec_id)


def test_blocks_know_nothing_of_each_other_and_fill_the_piece() -> None:
    stages = FakeStages()
    made = asyncio.run(semantic_stage.blocks_apart(cast(Stages, stages), STYLE, 12.0, 3))
    assert made.num_frames == 300
    assert [round(each["duration_s"], 2) for each in stages.asked] == [5.12, 5.12, 1.76]
    assert [each["seed"] for each in stages.asked] == [3, 1003, 2003]
    assert all(each["prompt"] is None for each in stages.asked)


def test_a_stage_that_plays_bars_is_above_both_ways_of_off() -> None:
    found = Findings()
    measured = semantic_stage.measure_structure(
        faked(), [f"prompt {n}" for n in range(6)], found, duration_s=20.48, with_musicgen=False
    )
    asyncio.run(measured)
    assert found.passed["structure: recurrence above off: its tokens shuffled"]
    assert found.passed["structure: recurrence above off: blocks apart"]
    on, blocks = (found.numbers["recurrence"][label][0] for label in (semantic_stage.ON, semantic_stage.BLOCKS))
    assert found.numbers["recurrence"]["on minus off: blocks apart"][0] == pytest.approx(on - blocks)
    assert set(found.numbers) == {"recurrence", "hold"}


def test_a_model_that_recites_its_training_clips_is_found_out() -> None:
    stages, found = FakeStages(), Findings()
    known, unknown = (Waveform(np.full((1, 240_000), level, np.float32), 24_000) for level in (0.5, -0.5))
    asyncio.run(semantic_stage.measure_memorisation(cast(Stages, stages), [known] * 6, [unknown] * 6, found))
    claim = "memorisation: training clips are not surely recited more than held-out ones"
    assert found.passed == {f"{claim}, equal": False, f"{claim}, overlap": False}
    assert found.numbers["memorisation_gap"]["equal"] == [1.0, 1.0, 1.0]
    assert found.numbers["memorisation"]["train"]["equal"] == 1.0
    assert found.numbers["memorisation"]["held_out"]["overlap"] == 0.0
    assert all(each["sampling"] == GREEDY and each["prompt"].num_frames == 75 for each in stages.asked)
    assert stages.asked[0]["duration_s"] == 8.0
