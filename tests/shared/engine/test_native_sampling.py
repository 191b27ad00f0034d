"""Drawing by the native kernel: the tokens of `sampling.sample`, whoever is beside a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_shared.engine import native_sampling
from stretto_shared.engine.native_sampling import Rows, can_draw, sample_natively
from stretto_shared.engine.program import Program, TokenRequest, draw_all
from stretto_shared.engine.sampling import Sampling, sample, stage_key, uniform_noise
from stretto_shared.nn.lowbit import NativeKernel
from torch import Tensor

STAGE = stage_key("test")
SEEDS = (0, 1, 2**63, 2**64 - 1)


@pytest.fixture(scope="module")
def kernel(native_kernel: NativeKernel) -> NativeKernel:
    return native_kernel


def by_numpy(piece: Rows) -> list[int]:
    return sample(
        piece.logits[list(piece.codebooks)],
        piece.sampling,
        seed=piece.seed,
        stage=STAGE,
        frames=np.array(piece.frames),
        codebooks=np.array(piece.codebooks),
    ).tolist()


def logits_of(seed: int, num_codebooks: int, num_entries: int, step: float = 0.0) -> Tensor:
    """Random logits, multiples of `step` where it is not nought, so that many are equal."""
    logits = 3 * torch.randn(num_codebooks, num_entries, generator=torch.Generator().manual_seed(seed))
    return (logits / step).round() * step if step else logits


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_tokens_are_those_of_numpy_in_any_company(kernel: NativeKernel, data: st.DataObject) -> None:
    num_entries = data.draw(st.sampled_from([1, 7, 16, 100, 2048]))
    pieces = []
    for _ in range(data.draw(st.integers(1, 4))):
        num_codebooks = data.draw(st.integers(1, 4))
        codebooks = sorted(data.draw(st.sets(st.integers(0, num_codebooks - 1), min_size=1)))
        pieces.append(
            Rows(
                logits_of(
                    data.draw(st.integers(0, 999)), num_codebooks, num_entries, data.draw(st.sampled_from([0, 1]))
                ),
                codebooks,
                [data.draw(st.integers(0, 10**6)) for _ in codebooks],
                Sampling(data.draw(st.sampled_from([0.1, 1.0, 1.7])), data.draw(st.sampled_from([0, 1, 3, 250]))),
                data.draw(st.sampled_from(SEEDS)),
            )
        )
    assert sample_natively(kernel, pieces, STAGE) == [by_numpy(piece) for piece in pieces]


def test_every_part_of_the_place_counts(kernel: NativeKernel) -> None:
    logits = torch.zeros(2, 5000)

    def drawn(seed: int = 1, stage: int = 2, frame: int = 3, codebook: int = 0) -> int:
        return sample_natively(kernel, [Rows(logits, [codebook], [frame], Sampling(top_k=0), seed)], stage)[0][0]

    assert len({drawn(), drawn(seed=9), drawn(stage=9), drawn(frame=9), drawn(codebook=1)}) == 5


def test_of_equal_logits_at_the_limit_those_of_lower_index_stay(kernel: NativeKernel) -> None:
    logits = torch.zeros(1, 64)
    logits[0, [9, 33, -1]] = 1.0
    frames, options = list(range(200)), Sampling(top_k=5)
    by_kernel = {sample_natively(kernel, [Rows(logits, [0], [t], options, 0)], STAGE)[0][0] for t in frames}
    assert by_kernel == {9, 33, 63, 0, 1}
    rows = logits.expand(200, -1)
    noughts = np.zeros(200, dtype=np.int64)
    assert set(sample(rows, options, seed=0, stage=STAGE, frames=np.array(frames), codebooks=noughts)) == by_kernel


def test_ties_of_one_row_change_no_other(kernel: NativeKernel) -> None:
    rows = torch.stack([logits_of(1, 1, 64)[0], torch.zeros(64)])
    options = Sampling(top_k=5, top_p=0.9)
    places = {"seed": 0, "stage": STAGE}
    both = sample(rows, options, frames=np.arange(2), codebooks=np.arange(2), **places)
    alone = [sample(rows[[r]], options, frames=np.array([r]), codebooks=np.array([r]), **places)[0] for r in range(2)]
    assert both.tolist() == alone


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_cannot_be_compared_is_left_to_numpy(kernel: NativeKernel, broken: float) -> None:
    logits = logits_of(0, 2, 100)
    logits[1, 40:43] = broken
    piece = Rows(logits, [0, 1], [5, 6], Sampling(top_k=10), 3)
    assert sample_natively(kernel, [piece], STAGE) == [by_numpy(piece)]


def test_a_draw_that_the_last_bits_decide_is_left_to_numpy(
    kernel: NativeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, asked = {"stage": STAGE, "frames": np.array([3]), "codebooks": np.array([0])}, []
    noise = -np.log(-np.log(uniform_noise(7, indices=np.array([[0, 1]]), **places)[0]))
    logits = torch.tensor([[noise[1] - noise[0], 0.0]], dtype=torch.float32)
    # the temperature makes up for what single precision rounds off: two scores that a few last bits tell apart
    options = Sampling(float(logits[0, 0]) / float(noise[1] - noise[0]), 0)

    def asking(*args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        return sample(*args, **kwargs)

    monkeypatch.setattr(native_sampling, "sample", asking)
    (drawn,) = sample_natively(kernel, [Rows(logits, [0], [3], options, 7)], STAGE)
    assert len(asked) == 1 and drawn == sample(logits, options, seed=7, **places).tolist()


def test_who_draws_what(kernel: NativeKernel) -> None:
    logits = torch.zeros(2, 8)
    assert can_draw(logits, Sampling())
    assert not can_draw(logits, Sampling(top_p=0.9))
    assert not can_draw(logits, Sampling(temperature=0.0))
    assert not can_draw(logits.double(), Sampling())
    assert not can_draw(torch.zeros(8, 2).t(), Sampling())


def program_of(seed: int, sampling: Sampling) -> Program:
    nothing = np.zeros((3, 0), dtype=np.int32)
    request = TokenRequest(None, 6, nothing, nothing, sampling, seed, noise_offset=seed)
    return Program(request, delays=(0, 1, 2), special_token=50, stage=STAGE)


def test_programs_that_draw_in_many_ways_get_the_same_with_and_without_a_kernel(kernel: NativeKernel) -> None:
    ways = [Sampling(1.0, 250), Sampling(0.7, 3), Sampling(1.0, 9, 0.8), Sampling(0.0), Sampling(1.0, 0)]
    codes = []
    for own in (kernel, None):
        programs = [program_of(seed, way) for seed, way in enumerate(ways)]
        for step in range(programs[0].num_steps):
            draws = [program.read(logits_of(step * 10 + i, 3, 50)) for i, program in enumerate(programs)]
            draw_all([draw for draw in draws if draw is not None], own)
        codes.append([program.take_frames().codes.tolist() for program in programs])
    assert codes[0] == codes[1]
    assert all(np.shape(each) == (3, 6) for each in codes[0])
