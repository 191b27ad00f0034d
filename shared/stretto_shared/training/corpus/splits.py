"""Which split a piece belongs to: a stable function of its name, so that held-out pieces never leak into training."""

from __future__ import annotations

import hashlib

VALID_PERCENT = 3
TEST_PERCENT = 3


def stable_unit(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") / 2.0**64


def split_of(source: str, piece: str) -> str:
    """The split of a piece: 94 % train, 3 % valid, 3 % test."""
    percent = 100.0 * stable_unit(f"{source}/{piece}")
    if percent < TEST_PERCENT:
        return "test"
    return "valid" if percent < TEST_PERCENT + VALID_PERCENT else "train"
