"""Fit the weights of written lengths, and print them as `value_weights.py`.

Performances of ASAP's training compositions that DCML has in an edition are engraved up to their voices; of each chord,
the edition's length is the choice that was right, or else the one that fills, where the edition's is longer than there
is room. Weights by gradient ascent on the likelihood of the right choices, with a slight prior around 0.

    python services/transcriber/recipes/fit_note_values.py --data ../shared/data \
        > services/transcriber/stretto_transcriber/models/engraving/value_weights.py
    ruff format services/transcriber/stretto_transcriber/models/engraving/value_weights.py

Cost: a minute of one core.

Legend: C chords, K choices, F features.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[3] / "evals"))
from asap_pairs import Pair, read_pairs
from dcml_voices import Writing, read_notes, writing_of
from stretto_shared.score import Score
from stretto_shared.training.asap import split_of
from stretto_transcriber.models.engraving.engrave import EngravingModel, placed_notes, voices_of
from stretto_transcriber.models.engraving.grids import TICKS_PER_BEAT
from stretto_transcriber.models.engraving.values import FEATURES, choices

MAX_NOTES = 420  # of a performance
MAX_EXAMPLES = 5000
MAX_CHOICES = 24
NUM_STEPS = 250
RATE = 0.3
PRIOR = 1e-3
HEAD = '''"""Weights of what `values.choices` notices; `recipes/fit_note_values.py` prints this file."""

from __future__ import annotations
'''

Array = NDArray[np.float64]


def begin_of(pair: Pair) -> Pair:
    """The first notes of a performance, with the beats that they need."""
    whole = pair.performance
    count = min(MAX_NOTES, whole.num_notes)
    num_beats = int(np.searchsorted(whole.beat_s, whole.onset_s[count - 1])) + 3
    begin = Score(
        whole.onset_s[:count],
        whole.duration_s[:count],
        whole.pitch_midi[:count],
        whole.velocity[:count],
        whole.part_index[:count],
        whole.parts,
        beat_s=whole.beat_s[:num_beats],
        beat_in_bar=whole.beat_in_bar[:num_beats],
    )
    return dataclasses.replace(pair, performance=begin, matches=pair.matches[pair.matches[:, 0] < count])


def has_held_out_twin(composition: str) -> bool:
    """Whether the same piece with or without its repeats, another composition to the split, is held out."""
    bare = composition.removesuffix("_no_repeat")
    return any(split_of(name) != "train" for name in (bare, f"{bare}_no_repeat"))


def examples(pair: Pair, writing: Writing) -> Iterator[tuple[Array, int]]:
    """What there is to notice of the choices of each chord, and which is right."""
    model = EngravingModel()
    notes = placed_notes(pair.performance, model)
    voice = voices_of(notes, model)
    reference = pair.reference
    beat = np.clip(np.floor(reference.onset_beat).astype(int), 0, len(reference.beat_quarter) - 2)
    true = writing.duration_quarter / np.diff(reference.beat_quarter)[beat] * TICKS_PER_BEAT
    partner = np.full(pair.performance.num_notes, -1)
    partner[pair.matches[:, 0]] = np.where(writing.is_known[pair.matches[:, 1]], pair.matches[:, 1], -1)
    for staff in (1, 2):
        for number in (1, 2):
            mine = np.flatnonzero((notes.staff == staff) & (voice == number))
            ticks = np.unique(notes.tick[mine])
            for index in range(1, len(ticks) - 1):
                chord = mine[notes.tick[mine] == ticks[index]]
                known = [each for each in partner[notes.source[chord]] if each >= 0]
                place = ticks[index] / TICKS_PER_BEAT
                if not known or abs(reference.onset_beat[known[0]] - place) > 0.011:
                    continue
                held = float((notes.held_until[chord] - place).max())
                free, before = int(ticks[index + 1] - ticks[index]), int(ticks[index] - ticks[index - 1])
                lengths, features = choices(int(ticks[index]), free, held, before, False)
                wanted = min(float(true[known].max()), free)
                nearest = int(np.abs(np.array(lengths) - wanted).argmin())
                if abs(lengths[nearest] - wanted) < 0.02 * TICKS_PER_BEAT and len(lengths) <= MAX_CHOICES:
                    yield features, nearest


def fit(rows: list[tuple[Array, int]]) -> tuple[Array, float]:
    """The weights [F], and the share of right choices that they make."""
    features = np.zeros((len(rows), MAX_CHOICES, len(FEATURES)))
    missing = np.ones((len(rows), MAX_CHOICES), np.bool_)
    for index, (each, _) in enumerate(rows):
        features[index, : len(each)], missing[index, : len(each)] = each, False
    right = np.array([label for _, label in rows])
    chosen = features[np.arange(len(rows)), right].mean(axis=0)
    weights, speed = np.zeros(len(FEATURES)), np.zeros(len(FEATURES))
    level = np.empty(0)
    for _ in range(NUM_STEPS):
        level = features @ weights
        level[missing] = -np.inf
        share = np.exp(level - level.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        expected = np.einsum("ck,ckf->f", share, features) / len(rows)
        speed = 0.9 * speed + chosen - expected - PRIOR * weights
        weights = weights + RATE * speed
    return weights, float((level.argmax(axis=1) == right).mean())


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="the folder of data")
    args = options.parse_args()
    pairs = list(read_pairs(args.data / "symbolic" / "asap.tar.xz", "train", most_per_composition=1))
    edition = read_notes(args.data / "harmony" / "dcml.tar.xz", {pair.composition for pair in pairs})
    rows: list[tuple[Array, int]] = []
    for pair in pairs:
        if pair.composition in edition and not has_held_out_twin(pair.composition):
            rows += examples(begin_of(pair), writing_of(pair.reference, edition[pair.composition]))
    order = np.random.default_rng(0).permutation(len(rows))[:MAX_EXAMPLES]
    rows = [rows[index] for index in order]
    weights, right = fit(rows)
    print(HEAD)
    print(f"# {len(rows)} chords; the likeliest choice is right for {right:.1%} of them")
    print("VALUE_WEIGHTS = (")
    print(*(f"    {weight:.3f},  # {name}" for name, weight in zip(FEATURES, weights)), sep="\n")
    print(")")


if __name__ == "__main__":
    main()
