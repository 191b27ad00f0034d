"""The analyzer `chordgnn`: a whole score to its labels. Runs on a model thread; knows no files and no wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stretto_harmony.models.chordgnn.batch import centre_of, collate
from stretto_harmony.models.chordgnn.decoding import DecodingOptions, NumeralDecoder, NumeralTable, moved_logs
from stretto_harmony.models.chordgnn.graph import ScoreGraph, build_graph
from stretto_harmony.models.chordgnn.network import ChordGnn
from stretto_harmony.models.chordgnn.parts import QUALITIES, RelativeNumeral
from stretto_harmony.models.chordgnn.recurrence import MAX_ROWS, RowRecurrence
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


class ChordGnnAnalyzer:
    """Analyses scores with one network; the same score gives the same labels, in any company.

    The grid is the cheapest of those on which it read validation pieces no worse than on windows of 16 measures with 8
    around them (`choose_chordgnn_windows.py`).
    """

    name = "chordgnn"
    window_measures = 20
    context_measures = 6

    def __init__(self, network: ChordGnn, options: DecodingOptions | None = None) -> None:
        self.network = network.eval()
        numerals = [RelativeNumeral(*row) for row in network.numerals.tolist()]
        self.decoder = NumeralDecoder(NumeralTable(numerals), options or DecodingOptions())
        assert isinstance(network.over_time.recurrent, nn.GRU)
        self._recurrence = RowRecurrence(network.over_time.recurrent, MAX_ROWS * len(self.decoder.options.moves))

    @property
    def num_together(self) -> int:
        """How many scores cost little more than one."""
        return max(1, self._recurrence.num_rows // len(self.decoder.options.moves))

    def analyze(self, score: Score) -> Analysis:
        """The labels of a score from its start to its end; none where it has no notes."""
        return self.analyze_all([score])[0]

    def analyze_all(self, scores: Sequence[Score]) -> list[Analysis]:
        """The labels of each of some scores, as `analyze` gives them, in fewer passes."""
        found = [Analysis(())] * len(scores)
        sounding = [place for place, score in enumerate(scores) if score.num_notes]
        for place, heard in zip(sounding, self.hear([scores[place] for place in sounding]), strict=True):
            found[place] = self.labelled(heard, scores[place].num_ticks)
        return found

    def hear(self, scores: Sequence[Score]) -> list[Heard]:
        """What the network says of scores, each of which is centred on the line of fifths for it."""
        graphs = [build_graph(score) for score in scores]
        shifts = [-centre_of(graph) for graph in graphs]
        logs = self.hear_graphs(graphs, shifts, self.decoder.options)
        return [Heard(graph.onset_time, each, shift) for graph, each, shift in zip(graphs, logs, shifts, strict=True)]

    @torch.inference_mode()
    def hear_graphs(
        self, graphs: Sequence[ScoreGraph], shifts: Sequence[int], options: DecodingOptions
    ) -> list[dict[str, NDArray[np.float32]]]:
        """The mean of what the network says of each score moved by its shift and each of the options' `moves`."""
        moves = options.moves
        batches = [collate([graph], [shift + move]) for graph, shift in zip(graphs, shifts) for move in moves]
        onsets = [self.network.onsets(batch) for batch in batches]
        moved = []
        for place, (own, over_time) in enumerate(zip(onsets, self._recurrence(onsets), strict=True)):
            mixed = mixed_logs(self.network.told(own, over_time, batches[place].lengths), options.post)
            heard = {name: values.numpy() for name, values in mixed.items()}
            moved.append(moved_logs(heard, -moves[place % len(moves)]))
        groups = [moved[first : first + len(moves)] for first in range(0, len(moved), len(moves))]
        return [{name: np.mean([each[name] for each in group], axis=0) for name in group[0]} for group in groups]

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
