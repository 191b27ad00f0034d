"""Whatever company a piece has, and whenever, its bytes are those of its solo run: random schedules, every format."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stretto_acoustic.engine.steppers import Stepper, make_stepper
from stretto_acoustic.loading import make_loaded
from stretto_acoustic.models.musicgen import PRESETS, MusicGenCondition, MusicGenLM, MusicGenStepper
from stretto_shared.engine.program import TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig

FORMATS = ("float32", "float32-unpacked", "bfloat16", "bf16", "int8", "int4", "int4_kv4", "int8-torch")
K, NUM_PIECES = 4, 12
NONE = np.zeros((K, 0), dtype=np.int32)
Request = TokenRequest[MusicGenCondition]
# wide enough a feed-forward layer for a lone float32 row to take another kernel than two rows do
CONFIG = dataclasses.replace(
    PRESETS["tiny"], ffn_dim=1536, melody_conditioning="prefix", chroma_frames=8, max_frames=40, attention_frames=9
)


@cache
def kernel_dir() -> Path:
    return Path(tempfile.mkdtemp())


@cache
def stepper(number_format: str) -> Stepper:
    """The model in a format, driven as the service drives it: int8 and int4 by the native kernel where there is one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = MusicGenLM(CONFIG)
    with torch.no_grad():
        model.heads.weight.mul_(6)
    weight_format, _, computed_by = number_format.partition("-")
    if computed_by == "unpacked":
        return MusicGenStepper.tried(model.eval().requires_grad_(False), max_rows=24)
    loaded = make_loaded(
        "tiny",
        model,
        digest_sha256="a" * 64,
        dtype=number_format if number_format == "bfloat16" else "float32",
        weight_format=weight_format if weight_format in ("bf16", "int8", "int4", "int4_kv4") else "as_dtype",
        native_kernel_dir=None if computed_by == "torch" else kernel_dir(),
    )
    return make_stepper(loaded, TokenEngineConfig(max_slots=4, prefill_columns=8), joins=True)


def piece(index: int) -> Request:
    """One of the pieces that the schedules draw from: lengths, seeds, guidance, conditions, prompts."""
    rng = np.random.default_rng(index)
    text = rng.standard_normal((int(rng.integers(1, 6)), CONFIG.text_dim)).astype(np.float32)
    melody = rng.integers(-1, 12, int(rng.integers(1, 9))).astype(np.int32)
    condition = MusicGenCondition(text if index % 4 else None, melody if index % 3 == 2 else None)
    num_frames = int(rng.integers(1, 15))
    prompt = rng.integers(0, 64, (K, int(rng.integers(0, num_frames)) if index % 2 else 0)).astype(np.int32)
    sampling = Sampling(
        temperature=float(index % 5 != 4), top_k=(0, 20)[index % 2], guidance_scale=(3.0, 1.0)[index % 2]
    )
    return TokenRequest(condition, num_frames, prompt, NONE, sampling, index, is_realtime=index % 3 == 0)


async def run(engine: TokenEngine, request: Request, max_blocks: int | None = None) -> NDArray[np.int32]:
    """All frames, or those of the first blocks, after which the stream is closed."""
    blocks = [NONE]
    async with aclosing(engine.generate(request)) as stream:
        while max_blocks is None or len(blocks) <= max_blocks:
            block = await anext(stream, None)
            if block is None:
                break
            blocks.append(block.codes)
    return np.concatenate(blocks, axis=1)


@cache
def solo(number_format: str, index: int) -> NDArray[np.int32]:
    async def alone() -> NDArray[np.int32]:
        thread = ModelThread("solo")
        config = TokenEngineConfig(max_slots=1, prefill_columns=1)
        engine = TokenEngine(thread, stepper(number_format), stage="test", config=config, frame_rate_hz=50.0)
        codes = await run(engine, piece(index))
        await engine.close()
        await thread.close()
        return codes

    return asyncio.run(alone())


@dataclass(frozen=True)
class Arrival:
    """One request of a schedule."""

    index: int
    wait_ms: int
    resume_share: float
    max_blocks: int | None


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        st.integers(0, NUM_PIECES - 1),
        st.integers(0, 30),
        st.sampled_from([0.0, 0.0, 0.3, 0.99]),
        st.sampled_from([None, None, None, 0, 1, 2]),
    ),
    min_size=2,
    max_size=9,
)


async def play(number_format: str, arrivals: list[Arrival], max_slots: int, prefill_columns: int, block: int) -> None:
    thread = ModelThread("company")
    config = TokenEngineConfig(
        max_slots=max_slots,
        max_queued=99,
        first_block_frames=1 + block // 2,
        block_frames=block,
        prefill_columns=prefill_columns,
        realtime_lead_s=0.05,
        max_realtime_wait_s=1e9,
    )
    # frames that last long let every real-time stream in, whatever this machine does beside
    engine = TokenEngine(thread, stepper(number_format), stage="test", config=config, frame_rate_hz=0.01)

    async def come(arrival: Arrival) -> None:
        whole, request = solo(number_format, arrival.index), piece(arrival.index)
        start = min(int(arrival.resume_share * whole.shape[1]), whole.shape[1] - 1)
        await asyncio.sleep(arrival.wait_ms / 1000)
        got = await run(engine, dataclasses.replace(request, resume_from=whole[:, :start]), arrival.max_blocks)
        expected = whole[:, start:]
        if arrival.max_blocks is None:
            assert got.shape == expected.shape
        np.testing.assert_array_equal(got, expected[:, : got.shape[1]])

    await asyncio.gather(*(come(arrival) for arrival in arrivals))
    assert engine.num_waiting == 0
    await engine.close()
    await thread.close()


@pytest.mark.parametrize("number_format", FORMATS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    arrivals=ARRIVALS, max_slots=st.integers(1, 5), prefill_columns=st.integers(1, 7), block=st.sampled_from([1, 3, 20])
)
def test_every_piece_of_every_schedule_equals_its_solo_run(
    number_format: str, arrivals: list[Arrival], max_slots: int, prefill_columns: int, block: int
) -> None:
    for arrival in arrivals:
        solo(number_format, arrival.index)
    asyncio.run(play(number_format, arrivals, max_slots, prefill_columns, block))


def test_the_pieces_differ_so_that_a_mix_up_would_show() -> None:
    pieces = [solo("float32", index) for index in range(NUM_PIECES)]
    assert len({codes.tobytes() for codes in pieces if codes.shape[1] > 2}) == sum(c.shape[1] > 2 for c in pieces)


@pytest.mark.parametrize("number_format", ["bfloat16", "int8", "int4", "int4_kv4"])
def test_formats_whose_rows_are_their_own_join(number_format: str) -> None:
    assert stepper(number_format).is_row_invariant
