"""`FrameBuffer`: the chunks depend on the frames only, and everything foreign is refused by name."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_codec.engine.frames import FrameBuffer
from stretto_codec.models.streaming import DecodeGrid
from stretto_shared.errors import Conflict, InvalidInput
from stretto_shared.features import ModelInfo
from stretto_shared.tokens import TokenMatrix

INFO = ModelInfo("tiny", "codec", "ab" * 32, "CC0-1.0", frame_rate_hz=50.0, num_codebooks=4)
SCALED = DecodeGrid(10, is_scaled=True)


def tokens(codes: Any, scales: tuple[float, ...] = (), **changes: Any) -> TokenMatrix:
    return TokenMatrix(
        np.asarray(codes), **({"frame_rate_hz": 50.0, "codec_id": INFO.model_id} | changes), chunk_scales=scales
    )


def chunks_of(grid: DecodeGrid, runs: list[TokenMatrix]) -> list[tuple[Any, int, float | None]]:
    buffer = FrameBuffer(INFO, 32, grid)
    chunks = []
    for run in runs:
        buffer.add(run)
        while (chunk := buffer.take(at_end=False)) is not None:
            chunks.append(chunk)
    while (chunk := buffer.take(at_end=True)) is not None:
        chunks.append(chunk)
    return [(chunk.codes.tolist(), chunk.index, chunk.scale) for chunk in chunks]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    chunk_frames=st.integers(1, 20),
    first_chunks=st.lists(st.integers(1, 9), max_size=4).map(tuple),
)
def test_chunks_do_not_depend_on_the_sizes_of_messages(
    lengths: list[int], chunk_frames: int, first_chunks: tuple[int, ...]
) -> None:
    grid = DecodeGrid(chunk_frames, first_chunks)
    codes = np.random.default_rng(0).integers(0, 32, (3, sum(lengths)))
    parts = np.split(codes, np.cumsum(lengths)[:-1], axis=1)
    streamed = chunks_of(grid, [tokens(part) for part in parts])
    assert streamed == chunks_of(grid, [tokens(codes)])
    assert np.concatenate([chunk[0] for chunk in streamed], axis=1).tolist() == codes.tolist()
    assert [chunk[1] for chunk in streamed] == list(range(len(streamed)))
    assert all(len(chunk[0][0]) == grid.size(index) for index, chunk in enumerate(streamed[:-1]))


def test_a_chunk_waits_for_its_frames_only_until_the_end() -> None:
    buffer = FrameBuffer(INFO, 32, DecodeGrid(10, (4,)))
    buffer.add(tokens(np.zeros((2, 3))))
    assert buffer.take(at_end=False) is None
    buffer.add(tokens(np.zeros((2, 9))))
    chunk = buffer.take(at_end=False)
    assert chunk is not None and chunk.codes.shape == (2, 4)
    assert buffer.take(at_end=False) is None
    chunk = buffer.take(at_end=True)
    assert chunk is not None and chunk.codes.shape == (2, 8) and chunk.index == 1


def test_each_chunk_takes_its_own_loudness() -> None:
    runs = [tokens(np.zeros((1, 4)), (0.5,)), tokens(np.zeros((1, 9)), (2.0,))]
    assert [chunk[2] for chunk in chunks_of(SCALED, runs)] == [0.5, 2.0]


@pytest.mark.parametrize(
    ("run", "field"),
    [
        (tokens(np.zeros((2, 3)), codec_id="other@0123456789ab"), "tokens.codec_id"),
        (tokens(np.zeros((5, 3))), "tokens.codebook_count"),
        (tokens(np.zeros((2, 3)), frame_rate_hz=75.0), "tokens.frame_rate_hz"),
        (tokens(np.zeros((2, 0))), "tokens.codes"),
        (tokens(np.zeros((2, 3)), (1.0,)), "tokens.chunk_scales"),
        (tokens([[0, 1, 2], [3, 32, 5]]), "tokens.codes[4]"),
    ],
)
def test_foreign_tokens_are_refused_by_field(run: TokenMatrix, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        FrameBuffer(INFO, 32, DecodeGrid(10)).add(run)
    assert caught.value.field == field


def test_a_changed_codebook_count_is_a_conflict() -> None:
    buffer = FrameBuffer(INFO, 32, DecodeGrid(10))
    buffer.add(tokens(np.zeros((2, 3))))
    with pytest.raises(Conflict, match="expected 2"):
        buffer.add(tokens(np.zeros((3, 3))))


@pytest.mark.parametrize("scales", [(), (1.0,), (1.0, 1.0, 1.0)])
def test_a_wrong_number_of_loudnesses_is_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInput, match="chunk_scales"):
        chunks_of(SCALED, [tokens(np.zeros((1, 13)), scales)])


def test_loudnesses_far_ahead_of_their_frames_are_refused() -> None:
    buffer = FrameBuffer(INFO, 32, DecodeGrid(150, is_scaled=True))
    with pytest.raises(InvalidInput, match="ahead") as caught:
        for _ in range(100):
            buffer.add(tokens(np.zeros((1, 1)), (1.0,) * 64))
            assert buffer.take(at_end=False) is None
    assert caught.value.field == "tokens.chunk_scales"


def test_all_loudnesses_of_a_long_clip_may_come_at_once() -> None:
    num_chunks = 6000
    chunks = chunks_of(SCALED, [tokens(np.zeros((1, 10 * num_chunks)), (1.0,) * num_chunks)])
    assert len(chunks) == num_chunks


def test_many_wrong_codes_cost_no_more_memory_than_one() -> None:
    wrong = tokens(np.full((4, 250_000), 32))
    buffer = FrameBuffer(INFO, 32, DecodeGrid(10))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput) as caught:
            buffer.add(wrong)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.field == "tokens.codes[0]"
    assert peak_bytes < 2 * wrong.codes.size


def test_a_stream_without_frames_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one frame"):
        chunks_of(SCALED, [])
