"""How the recipe moves the parameters of the search: what is better on validation stays, and each trial is kept."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from stretto_harmony.models.modular.analyzer import ModularAnalyzer
from stretto_harmony.models.modular.config import SearchConfig
from tiny_modules import tiny_modules, tiny_score

sys.path.append(str(Path(__file__).resolve().parents[4] / "services" / "harmony" / "recipes"))
import choose_modular_search
from modular_scores import MEASURES


class Listener:
    """Likes a short hash, and a key sequence exponent of 20 if the hash is short."""

    def __init__(self) -> None:
        self.asked: list[SearchConfig] = []

    def scores(self, config: SearchConfig) -> list[dict[str, float]]:
        self.asked.append(config)
        full = 0.4 + 0.1 * (config.hash_length == 3) + 0.1 * (config.key_sequence_exponent == 20.0)
        return [{**dict.fromkeys(MEASURES, 0.5), "full": full}]


MOVES = {"hash_length": (2, 3), "min_chord_change": (0.9,), "key_sequence_exponent": (100.0, 20.0)}


def chosen(start: SearchConfig, max_trials: int = 40) -> tuple[list[SearchConfig], list[Any], Listener]:
    listener, best, counts = Listener(), [], []

    def keep(config: SearchConfig, trials: list[Any]) -> None:
        best.append(config)
        counts.append([dict(trial) for trial in trials])

    choose_modular_search.choose(listener, start, MOVES, max_trials, keep)
    return best, counts[-1], listener


def test_what_is_better_stays_and_nothing_is_asked_twice() -> None:
    best, trials, listener = chosen(SearchConfig())
    assert (best[-1].hash_length, best[-1].key_sequence_exponent) == (3, 20.0)
    assert best[0] == SearchConfig() and best[1] == SearchConfig()
    assert [each["search"] for each in trials] == [asdict(config) for config in listener.asked]
    assert len(trials) == len({str(each["search"]) for each in trials}) == 5
    assert trials[0]["full"] == 0.4 and trials[-1]["full"] == 0.6


def test_no_more_is_tried_than_was_asked_for() -> None:
    best, trials, _ = chosen(SearchConfig(), max_trials=3)
    assert len(trials) == 3 and (best[-1].hash_length, best[-1].key_sequence_exponent) == (3, 50.0)


def test_all_moves_are_ones_that_the_search_can_make() -> None:
    analyzer = ModularAnalyzer(tiny_modules())
    score = tiny_score(4)
    for name, values in choose_modular_search.MOVES.items():
        for value in values:
            analyzer.config = SearchConfig(
                **{**asdict(SearchConfig(max_no_chord_change=0.8, beam_size=2)), name: value}
            )
            labels = analyzer.analyze(score).labels
            assert np.sum([each.end - each.start for each in labels]) == score.num_ticks
