import dataclasses

import pytest
from bounds import cache_bytes, count_weights, step_bound_ms
from stretto_acoustic.models.musicgen import PRESETS

SMALL = PRESETS["small"]


def test_the_matrices_of_musicgen_small_are_counted_by_hand() -> None:
    counted = count_weights(SMALL)
    block = 1024 * (3 * 1024 + 1024 + 1024 + 1024 + 2 * 4096)
    assert counted.step == 24 * block + 1024 * 4 * 2048
    assert counted.once_a_piece == 24 * 1024 * 2 * 1024
    norms = 2 * 1024 * (3 * 24 + 1)
    assert counted.rest == 4 * 2049 * 1024 + 768 * 1024 + 1024 + norms


def test_fewer_bits_hold_and_read_fewer_bytes() -> None:
    counted = count_weights(SMALL)
    assert counted.step_bytes("fp32") == 4 * counted.step
    assert counted.step_bytes("int4") == pytest.approx(counted.step * (0.5 + 1 / 32))
    assert counted.held_bytes("int8") == counted.step + counted.once_a_piece + 4 * counted.rest


def test_caches_hold_both_rows_of_every_piece_with_their_text() -> None:
    one = cache_bytes(SMALL, "fp32", duration_s=10.0, num_text_tokens=8, num_pieces=1)
    assert one == 2 * 2 * 24 * 1024 * 4 * (500 + 3 + 8)
    assert cache_bytes(SMALL, "fp32", duration_s=10.0, num_text_tokens=8, num_pieces=8) == 8 * one
    thin = dataclasses.replace(SMALL, num_layers=12)
    assert cache_bytes(thin, "fp32", duration_s=10.0, num_text_tokens=8, num_pieces=1) == one // 2


def test_integer_caches_take_a_byte_a_number_and_two_scales_a_step_and_head() -> None:
    one = cache_bytes(SMALL, "int4", duration_s=10.0, num_text_tokens=8, num_pieces=1)
    assert one == 24 * 16 * (2 * 64 + 8) * (2 * 512 + 16)  # steps in panels of 16, the text for one row alone
    half = cache_bytes(SMALL, "int4_kv4", duration_s=10.0, num_text_tokens=8, num_pieces=1)
    assert half == 24 * 16 * (2 * 32 + 8) * (2 * 512 + 16)


def test_a_step_takes_as_long_as_its_bytes_are_read() -> None:
    assert step_bound_ms(360e6, 27.0) == pytest.approx(13.333, abs=0.001)
    with pytest.raises(ValueError, match="bandwidth"):
        step_bound_ms(1.0, 0.0)
