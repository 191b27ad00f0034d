"""The analyzer `chordgnn`: a whole score to its labels. Runs on a model thread; knows no files and no wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stretto_harmony.models.chordgnn.batch import centre_of, collate
from stretto_harmony.models.chordgnn.decoding import DecodingOptions, NumeralDecoder, NumeralTable, moved_logs
from stretto_harmony.models.chordgnn.graph import ScoreGraph, build_graph
from stretto_harmony.models.chordgnn.network import ChordGnn
from stretto_harmony.models.chordgnn.parts import QUALITIES, RelativeNumeral
from stretto_harmony.scores.labels import Analysis, ChordType, HarmonyLabel, Key, key_of_index
from stretto_harmony.scores.numerals import figure_of
from stretto_harmony.scores.pitch import MAX_FIFTHS, MIN_FIFTHS
from stretto_harmony.scores.score import Score

ENHARMONIC = 12
"""Places on the line of fifths between two spellings of a pitch class."""
MAX_CHORDS = 4096
"""That are kept: a piece has few, and many times."""
_Chord = tuple[Key, str, Key, int, ChordType, int]
"""Key, figure, tonicised key, root, type and inversion, in the order of `HarmonyLabel`."""


@dataclass(frozen=True)
class Heard:
    """What the network says of a score: when its onsets are [O], and the logarithm of each part's probabilities."""

    onset_time: NDArray[np.int64]
    logs: dict[str, NDArray[np.float32]]
    shift: int


def mixed_logs(stages: Sequence[Mapping[str, Tensor]], post: float) -> dict[str, Tensor]:
    """The logarithm of each part's probabilities: the last stage's by the share `post`, the first's by the rest."""
    first, last = stages[0], stages[-1]
    if first is last:
        return {name: logits.log_softmax(dim=1) for name, logits in first.items()}
    return {
        name: ((1 - post) * first[name].log_softmax(dim=1) + post * last[name].log_softmax(dim=1)).log_softmax(dim=1)
        for name in first
    }


def hear_graph(
    network: ChordGnn, graph: ScoreGraph, shift: int, options: DecodingOptions
) -> dict[str, NDArray[np.float32]]:
    """The mean of what the network says of a score moved by `shift` and each of the options' `moves` beside."""
    count = len(options.moves)
    stages = network.stages(collate([graph] * count, [shift + move for move in options.moves]))
    heard = mixed_logs(stages, options.post)
    parts = {name: values.view(count, graph.num_onsets, -1).numpy() for name, values in heard.items()}
    moved = [moved_logs({name: rows[n] for name, rows in parts.items()}, -move) for n, move in enumerate(options.moves)]
    return moved[0] if count == 1 else {name: np.mean([each[name] for each in moved], axis=0) for name in parts}


class ChordGnnAnalyzer:
    """Analyses scores with one network; the same score gives the same labels.

    On validation pieces it read windows of 16 measures better than longer ones, and better than whole pieces: it was
    trained on stretches.
    """

    name = "chordgnn"
    window_measures = 16
    context_measures = 8

    def __init__(self, network: ChordGnn, options: DecodingOptions | None = None) -> None:
        self.network = network.eval()
        numerals = [RelativeNumeral(*row) for row in network.numerals.tolist()]
        self.decoder = NumeralDecoder(NumeralTable(numerals), options or DecodingOptions())

    def analyze(self, score: Score) -> Analysis:
        """The labels of a score from its start to its end; none where it has no notes."""
        if not score.num_notes:
            return Analysis(())
        heard = self.hear(score)
        return self.labelled(heard, score.num_ticks)

    @torch.inference_mode()
    def hear(self, score: Score) -> Heard:
        """What the network says of a score, which is centred on the line of fifths for it."""
        graph = build_graph(score)
        shift = -centre_of(graph)
        return Heard(graph.onset_time, hear_graph(self.network, graph, shift, self.decoder.options), shift)

    def labelled(self, heard: Heard, num_ticks: int) -> Analysis:
        """The labels that the decoder finds in what was heard."""
        path = self.decoder.decode(heard.logs)
        states = np.stack([path.key, path.numeral, path.inversion])
        begins = np.flatnonzero(np.append(True, (states[:, 1:] != states[:, :-1]).any(axis=0)))
        times = np.append(heard.onset_time, max(num_ticks, int(heard.onset_time[-1]) + 1))
        lengths = np.diff(times)
        sums = np.add.reduceat(np.stack([path.confidence * lengths, lengths]), begins, axis=1)
        bounds = [0, *times[begins[1:]].tolist(), int(times[-1])]
        numerals = self.decoder.table.numerals
        chords = [
            _chord_of(key, numerals[numeral], inversion, heard.shift)
            for key, numeral, inversion in states[:, begins].T.tolist()
        ]
        return Analysis(
            tuple(
                HarmonyLabel(start, end, *chord, min(confidence, 1.0))
                for start, end, chord, confidence in zip(bounds, bounds[1:], chords, (sums[0] / sums[1]).tolist())
            )
        )


@lru_cache(maxsize=MAX_CHORDS)
def _chord_of(key_index: int, numeral: RelativeNumeral, inversion: int, shift: int) -> _Chord:
    """What a state says of a score that was moved by `shift`."""
    key = key_of_index(key_index)
    places = np.array([key.tonic, key.tonic + numeral.of, key.tonic + numeral.of + numeral.interval]) - shift
    if places.max() > MAX_FIFTHS:
        places -= ENHARMONIC
    elif places.min() < MIN_FIFTHS:
        places += ENHARMONIC
    tonic, applied, root = np.clip(places, MIN_FIFTHS, MAX_FIFTHS).tolist()
    local, tonicised = Key(tonic, key.is_minor), Key(applied, bool(numeral.of_minor))
    quality = QUALITIES[numeral.quality]
    return local, figure_of(local, tonicised, root, quality, inversion), tonicised, root, quality, inversion
