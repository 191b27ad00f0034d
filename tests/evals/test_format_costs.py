"""The eval of weight formats measures what is stepped, and finds what differs there alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from quality.musicgen_loss import Split
from quality.weight_formats import FORMATS, as_table, compare, cost_of_each, main, read, read_served
from stretto_acoustic.models.musicgen import MusicGenConfig, MusicGenLM, MusicGenStepper
from torch import Tensor

CONFIG = MusicGenConfig(
    num_codebooks=3, cardinality=32, dim=32, num_layers=2, num_heads=4, ffn_dim=64, text_dim=8,
    max_frames=40, attention_frames=12, melody_conditioning="prefix", frame_rate_hz=25.0,
)  # fmt: skip
NUM_CLIPS, NUM_FRAMES = 7, 20


@pytest.fixture
def model() -> MusicGenLM:
    torch.manual_seed(0)
    model = MusicGenLM(CONFIG).eval().requires_grad_(False)
    with torch.no_grad():
        model.heads.weight.mul_(6)
    return model


@pytest.fixture
def split() -> Split:
    random = np.random.default_rng(0)
    captions = [[random.standard_normal((length, 8)).astype(np.float16)] for length in range(2, 2 + NUM_CLIPS)]
    codes = random.integers(0, 32, (NUM_CLIPS, 3, NUM_FRAMES)).astype(np.int16)
    return Split(codes, np.zeros((NUM_CLIPS, 5), np.int8), captions)


class Colder(MusicGenStepper):
    """A stepper whose logits under guidance, or without it, are not the model's."""

    def __init__(self, model: MusicGenLM, *, guided: float, plain: float) -> None:
        super().__init__(model)
        self._factors = {True: guided, False: plain}

    def step(
        self, states: Sequence[Any], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        rows = super().step(states, columns, wants_logits)
        return [None if row is None else row * self._factors[s.is_guided] for s, row in zip(states, rows, strict=True)]


def test_what_is_stepped_is_what_the_forward_pass_gives(model: MusicGenLM, split: Split) -> None:
    some = np.array([0, 3, 6])
    with torch.inference_mode():
        at_once, served = read(model, split, some), read_served(MusicGenStepper(model), CONFIG, split, some)
    assert torch.equal(at_once.targets, served.targets)
    assert (served.targets != -100).sum() == 3 * 3 * NUM_FRAMES
    torch.testing.assert_close(served.plain, at_once.plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(served.guided, at_once.guided, atol=1e-4, rtol=0)
    assert not torch.allclose(served.plain, served.guided, atol=1e-2)


@pytest.mark.parametrize(("guided", "plain"), [(0.8, 1.0), (1.0, 0.8)])
def test_what_a_served_step_rounds_is_seen(model: MusicGenLM, split: Split, guided: float, plain: float) -> None:
    exact, other = MusicGenStepper(model), Colder(model, guided=guided, plain=plain)
    readers = {name: partial(read_served, each, CONFIG, split) for name, each in (("fp32", exact), ("other", other))}
    (found,) = cost_of_each(readers, 5, NUM_CLIPS).values()
    assert {measure: len(values) for measure, values in found.items()} == dict.fromkeys(found, 5)
    assert (found["kl"] > 1e-3).all() == (plain != 1) and (found["kl_guided"] > 1e-3).all() == (guided != 1)
    if plain == 1:
        assert np.abs(found["kl"]).max() < 1e-6 and not found["loss_gap"].any() and (found["same_top_token"] == 1).all()


def test_kl_is_from_the_reference_to_the_other_over_the_tokens_alone(model: MusicGenLM, split: Split) -> None:
    some = np.array([1, 4])
    with torch.inference_mode():
        exact = read(model, split, some)
        model.heads.weight.mul_(0.7)
        other = read(model, split, some)
    found = compare(exact, other)
    for row in range(2):
        is_token = exact.targets[row] != -100
        p, q = exact.plain[row][is_token].double(), other.plain[row][is_token].double()
        tokens = exact.targets[row][is_token][:, None]
        assert found["kl"][row] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
        assert found["loss_gap"][row] == pytest.approx(float((p - q).gather(1, tokens).mean()), rel=1e-4)


def test_the_table_has_a_line_for_each_format_and_tells_the_clips() -> None:
    measures = {name: np.arange(6.0) for name in ("kl", "kl_guided", "loss_gap", "same_top_token")}
    table, numbers = as_table("Cost", dict.fromkeys(FORMATS, measures))
    assert table.title == "Cost, 6 clips"
    assert [row[0] for row in table.rows] == ["format", *FORMATS]
    assert numbers["int8"]["kl"]["mean"] == 2.5


def test_every_format_is_measured_at_once_and_as_the_service_steps_it(
    features: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quality.weight_formats.stepper_of", lambda loaded: Colder(loaded.module, guided=0.5, plain=1))
    monkeypatch.setattr(sys, "argv", ["weight_formats.py", "--features", str(features), "--formats", "int8,int4"])
    main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found["formats"]) == list(found["served"]) == ["int8", "int4"]
    for measured in (found["formats"], found["served"]):
        assert 0 < measured["int8"]["kl"]["mean"] < measured["int4"]["kl"]["mean"]
        assert measured["int4"]["loss_gap"]["mean"] != 0
    assert found["served"]["int4"]["kl_guided"]["mean"] < 0.6 * found["formats"]["int4"]["kl_guided"]["mean"]
