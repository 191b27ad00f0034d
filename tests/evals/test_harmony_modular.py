"""What the eval of the modular analyzer claims, and beside which numbers it puts its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "evals" / "quality"))
import harmony_modular
from modular_scores import MEASURES

PUBLISHED = dict(zip(MEASURES, (0.754, 0.678, 0.581, 0.694, 0.459)))


def test_the_mean_of_all_pieces_must_reach_what_is_published() -> None:
    at = [{name: value - 0.1 for name, value in PUBLISHED.items()}, {n: v + 0.1 for n, v in PUBLISHED.items()}]
    assert list(harmony_modular.claims([*at, {n: v + 0.003 for n, v in PUBLISHED.items()}]).values()) == [True] * 5


@pytest.mark.parametrize("measure", MEASURES)
def test_each_measure_below_the_published_fails_alone(measure: str) -> None:
    claims = harmony_modular.claims([{**dict.fromkeys(MEASURES, 0.9), measure: PUBLISHED[measure] - 0.001}])
    assert [name.split()[0] for name, passed in claims.items() if not passed] == [measure]


def test_published_numbers_stand_beside_their_own_split_only() -> None:
    named = {"modular, chosen": [dict.fromkeys(MEASURES, 0.5)]}
    test, valid = (harmony_modular.system_table(named, split) for split in ("test", "valid"))
    assert [row[0] for row in test.rows][2:] == [
        "McLeod & Rohrmeier, CSM-T, published",
        "McLeod & Rohrmeier, CSM, published",
    ]
    assert len(valid.rows) == 2 and "valid" in valid.title and "test" in test.title
