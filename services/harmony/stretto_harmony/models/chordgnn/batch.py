"""Graphs of several scores as the tensors of one `ChordGnn` pass.

Legend: B scores, N notes of all of them, O onsets of all of them, E edges, P pairs of a note and an onset, S spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stretto_harmony.models.chordgnn.graph import RELATIONS, ScoreGraph
from stretto_harmony.scores.pitch import transposition_semitones

UNKNOWN_SIGNATURE = 15
"""In the place of a key signature that is not told."""
DIATONIC_CENTRE = 2
"""The mean of the seven places on the line of fifths that a scale without signature has."""


@dataclass(frozen=True)
class GraphBatch:
    """What `ChordGnn` reads.

    Args:
        fifths: Spelling of each note [N].
        midi: Pitch of each note [N].
        features: Of each note [N, F].
        edges: For each relation, source and target notes [2, E].
        onset: The onset of each note [N].
        sounding: Notes, and the onsets they sound at [2, P].
        bass: The lowest note at each onset [O].
        span_bass: The lowest note of each onset's beat and measure [S, O].
        onset_features: [O, G].
        key_signature: At each onset [O], in fifths, or `UNKNOWN_SIGNATURE`.
        lengths: How many onsets each score has [B], on the processor; onsets are in the order of the scores.
    """

    fifths: Tensor
    midi: Tensor
    features: Tensor
    edges: tuple[Tensor, ...]
    onset: Tensor
    sounding: Tensor
    bass: Tensor
    span_bass: Tensor
    onset_features: Tensor
    key_signature: Tensor
    lengths: Tensor


def centre_of(graph: ScoreGraph) -> int:
    """The fifths by which notes, weighed alike, lie above those of a scale without signature."""
    return round(float(graph.fifths.mean())) - DIATONIC_CENTRE


def collate(graphs: Sequence[ScoreGraph], shifts: Sequence[int]) -> GraphBatch:
    """One batch of whole scores, each moved by its shift in fifths."""
    notes = np.cumsum([0] + [graph.num_notes for graph in graphs])
    onsets = np.cumsum([0] + [graph.num_onsets for graph in graphs])

    def joined(arrays: list[np.ndarray], axis: int = 0) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays, axis=axis))

    moved = list(zip(graphs, notes, onsets, shifts, strict=False))
    return GraphBatch(
        fifths=joined([graph.fifths + shift for graph, _, _, shift in moved]),
        midi=joined([graph.midi + transposition_semitones(shift) for graph, _, _, shift in moved]),
        features=joined([graph.features for graph in graphs]),
        edges=tuple(joined([graph.edges[name] + note for graph, note, _, _ in moved], 1) for name in RELATIONS),
        onset=joined([graph.onset + onset for graph, _, onset, _ in moved]),
        sounding=joined([graph.sounding + np.array([[note], [onset]]) for graph, note, onset, _ in moved], 1),
        bass=joined([graph.bass + note for graph, note, _, _ in moved]),
        span_bass=joined([graph.span_bass + note for graph, note, _, _ in moved], 1),
        onset_features=joined([graph.onset_features for graph in graphs]),
        key_signature=joined([graph.key_signature + shift for graph, _, _, shift in moved]),
        lengths=torch.tensor([graph.num_onsets for graph in graphs]),
    )
