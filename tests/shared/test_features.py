"""`TextStates`, `Chromagram`, `SamplingOptions` and `ModelInfo` keep their invariants."""

from __future__ import annotations

import numpy as np
import pytest
from stretto_shared.errors import InvalidInput
from stretto_shared.features import Chromagram, ModelInfo, SamplingOptions, TextStates


def test_text_states_are_read_only_float32():
    states = TextStates("e@1", np.zeros(3), np.zeros((2, 3)))
    assert (states.dimension, states.states.dtype, states.pooled.dtype) == (3, np.float32, np.float32)
    with pytest.raises(ValueError, match="read-only"):
        states.states[0, 0] = 1


@pytest.mark.parametrize(
    ("pooled", "states"),
    [((2,), (1, 3)), ((3,), (0, 3)), ((3,), (3,)), ((1, 3), (1, 3))],
)
def test_text_states_of_other_shapes_are_refused(pooled, states):
    with pytest.raises(InvalidInput):
        TextStates("e@1", np.zeros(pooled), np.zeros(states))


def test_text_states_that_are_not_finite_are_refused():
    with pytest.raises(InvalidInput, match="finite"):
        TextStates("e@1", np.zeros(1), np.array([[np.nan]]))


@pytest.mark.parametrize("classes", [[], [12], [-2], [[0]]])
def test_a_melody_out_of_range_is_refused(classes):
    with pytest.raises(InvalidInput) as caught:
        Chromagram(np.array(classes, np.int32))
    assert caught.value.field == "melody.pitch_classes"


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, 1001.0, float("nan")])
def test_a_melody_rate_out_of_range_is_refused(rate_hz):
    with pytest.raises(InvalidInput) as caught:
        Chromagram(np.array([0]), rate_hz)
    assert caught.value.field == "melody.frame_rate_hz"


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 1.0}, {"guidance_scale": 0.0}])
def test_the_ends_of_the_ranges_are_allowed(options):
    assert SamplingOptions(**options) != SamplingOptions()


@pytest.mark.parametrize(
    "options", [{"temperature": 0.005}, {"temperature": 11.0}, {"top_k": -1}, {"top_p": 0.0}, {"guidance_scale": 21.0}]
)
def test_beyond_the_ranges_is_refused_by_field(options):
    with pytest.raises(InvalidInput) as caught:
        SamplingOptions(**options)
    assert caught.value.field == f"sampling.{next(iter(options))}"


def test_a_model_is_named_by_its_name_and_digest():
    assert ModelInfo("minilm", "embedding", "0123456789abcdef" * 4, "MIT").model_id == "minilm@0123456789ab"
