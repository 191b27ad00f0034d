"""Errors carry what a caller needs."""

from __future__ import annotations

import pytest
from stretto_shared.errors import Conflict, InvalidInput, NotFound, NotReady, Overloaded, StrettoError


@pytest.mark.parametrize("kind", [InvalidInput, NotFound])
def test_a_field_stands_before_the_message(kind):
    error = kind("sampling.top_p", "expected at most 1, got 2.")
    assert str(error) == error.message == "sampling.top_p: expected at most 1, got 2."
    assert (error.field, error.description) == ("sampling.top_p", "expected at most 1, got 2.")


def test_each_kind_has_a_reason_of_its_own_and_an_instance_may_name_a_finer_one():
    errors = [
        InvalidInput("f", "m"),
        NotFound("f", "m"),
        NotReady("m"),
        Overloaded("m", retry_after_s=1.0),
        Conflict("m"),
    ]
    assert len({error.reason for error in errors}) == len(errors)
    assert all(isinstance(error, StrettoError) for error in errors)
    assert NotReady("m", reason="LOADING").reason == "LOADING"
    assert NotReady("m").reason == "NOT_READY"


def test_an_overloaded_service_knows_when_to_come_back():
    assert Overloaded("Full.", retry_after_s=2.5).retry_after_s == 2.5
