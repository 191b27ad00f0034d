"""How many streams share a step is what a trial finds, not what a codec says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from stretto_codec.models.joining import find_max_joined
from stretto_codec.models.packed_matrix import PackedMatrix
from stretto_codec.models.streaming import DecodeGrid, join, part

GRID = DecodeGrid(6, (4, 2))


@dataclass(frozen=True)
class State:
    past: list[torch.Tensor]
    has_begun: bool = False


class Toy:
    """Its samples and its state are off where so many clips share a step of so many frames, or from a clip's start."""

    def __init__(
        self, *, can_join: bool = True, audio_off: tuple[int, int] = (0, 0), state_off: tuple[int, int] = (0, 0)
    ) -> None:
        self.can_join = can_join
        self._audio_off, self._state_off = audio_off, state_off
        self.tried: list[tuple[int, list[int]]] = []

    def open(self) -> State:
        return State([torch.zeros(1, 2)])

    def step(self, codes: torch.Tensor, state: State, scale: float | None) -> tuple[torch.Tensor, State]:
        shape = (codes.shape[0], codes.shape[2])
        total = state.past[0] + codes.float().sum((1, 2))[:, None]
        audio = total[:, None] + (1e-6 * total[:, None] if shape == self._audio_off else 0)
        return audio, State([total + (1e-3 if shape == self._state_off else 0)], True)

    def finish(self, state: State) -> None:
        return None

    def try_layers(self, max_clips: int, chunk_sizes: Sequence[int]) -> None:
        self.tried.append((max_clips, list(chunk_sizes)))


def found(limit: int = 8, **options: Any) -> int:
    class Config:
        num_codebooks, cardinality = 2, 32

    config: Any = Config()
    return find_max_joined(Toy(**options), GRID, config, limit)


def test_a_codec_whose_rows_keep_apart_is_joined_up_to_the_limit() -> None:
    assert [found(limit) for limit in (1, 2, 3, 4, 7, 8)] == [1, 2, 2, 4, 4, 8]
    assert found(can_join=False) == 1


@pytest.mark.parametrize("kind", ["audio_off", "state_off"])
@pytest.mark.parametrize("num_frames", [4, 2, 6])
@pytest.mark.parametrize(("num_clips", "expected"), [(8, 4), (4, 2), (2, 1)])
def test_whatever_differs_in_company_lowers_the_number(
    kind: str, num_frames: int, num_clips: int, expected: int
) -> None:
    assert found(**{kind: (num_clips, num_frames)}) == expected


def test_layers_are_tried_for_every_size_of_chunk() -> None:
    toy = Toy()
    config: Any = type("Config", (), {"num_codebooks": 2, "cardinality": 32})()
    find_max_joined(toy, GRID, config, 4)
    assert toy.tried == [(4, [4, 2, 6])]


def test_states_are_parted_as_they_were_joined_and_other_kinds_do_not_join() -> None:
    states = [State([torch.full((1, 2), float(i))], True) for i in range(3)]
    parted = part(join(states), 3)
    assert [state.past[0].tolist() for state in parted] == [state.past[0].tolist() for state in states]
    assert all(state.has_begun for state in parted)
    with pytest.raises(ValueError, match="same kind"):
        join([states[0], State([torch.zeros(1, 2)], False)])


@pytest.mark.parametrize("name", ["encodec_24khz", "encodec_32khz", "framecodec"])
def test_what_the_house_serves_is_tried_at_load(load: Any, name: str) -> None:
    assert load(name, max_joined=1).max_joined == 1
    assert load(name, max_joined=4).max_joined in (1, 2, 4)


@pytest.mark.parametrize("name", ["encodec_24khz", "encodec_32khz", "framecodec"])
def test_layers_that_clips_share_are_tried_at_load_with_the_rows_that_they_get(
    load: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[list[int], list[int]]] = []
    monkeypatch.setattr(
        PackedMatrix, "try_joining", lambda matrix, clips, rows: tried.append((list(clips), sorted(rows)))
    )
    codec = load(name, max_joined=4)
    assert len(tried) > 5 and all(clips == [2, 4] and rows for clips, rows in tried)
    assert any(set(codec.grid.kinds) <= set(rows) for _, rows in tried)


def test_segments_are_decoded_one_by_one(load: Any) -> None:
    assert load("encodec_48khz", max_joined=8).max_joined == 1


@pytest.mark.parametrize("name", ["encodec_24khz", "encodec_32khz", "framecodec"])
def test_a_codec_in_bfloat16_says_so_and_its_codes_stay(load: Any, name: str) -> None:
    plain, rounded = load(name), load(name, dtype="bfloat16")
    assert plain.info.source == "default" and rounded.info.source == "default#bfloat16"
    assert plain.info.digest_sha256 == "0" * 64
    assert rounded.info.digest_sha256 == hashlib.sha256(f"{'0' * 64} bfloat16".encode()).hexdigest()
    assert plain.tokens_id == rounded.tokens_id == plain.info.model_id
    audio = torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.inference_mode():
        assert torch.equal(plain.encode(audio)[0], rounded.encode(audio)[0])


@pytest.mark.parametrize("name", ["soundstream", "encodec_48khz"])
def test_a_codec_that_stays_in_float32_keeps_its_name(load: Any, name: str) -> None:
    assert load(name, dtype="bfloat16").info == load(name).info
