"""Where the message `stretto.common.v1.Score` and the value type meet; by the rules of `convert`, which has the others.

Every count is checked before anything is copied, so that a message costs little more memory than it came with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from stretto.common.v1 import score_pb2

from stretto_shared.grpc.convert import errors_named
from stretto_shared.score import (
    MAX_BEATS,
    MAX_MARKS,
    MAX_NOTES,
    MAX_PARTS,
    Key,
    Part,
    Score,
    Tempo,
    TimeSignature,
    check_count,
)

M = TypeVar("M")
T = TypeVar("T")


def score_to_proto(score: Score) -> score_pb2.Score:
    """Write the notes column by column."""
    return score_pb2.Score(
        onset_s=score.onset_s.tolist(),
        duration_s=score.duration_s.tolist(),
        pitch_midi=score.pitch_midi.tolist(),
        velocity=score.velocity.tolist(),
        part_index=score.part_index.tolist(),
        parts=[score_pb2.Part(name=part.name, program=part.program, is_drum=part.is_drum) for part in score.parts],
        spelling_fifths=score.spelling_fifths.tolist(),
        beat_s=score.beat_s.tolist(),
        beat_in_bar=score.beat_in_bar.tolist(),
        tempos=[score_pb2.Tempo(time_s=mark.time_s, tempo_bpm=mark.tempo_bpm) for mark in score.tempos],
        time_signatures=[
            score_pb2.TimeSignature(time_s=mark.time_s, numerator=mark.numerator, denominator=mark.denominator)
            for mark in score.time_signatures
        ],
        keys=[
            score_pb2.Key(time_s=mark.time_s, tonic_fifths=mark.tonic_fifths, is_minor=mark.is_minor)
            for mark in score.keys
        ],
    )


def score_from_proto(message: score_pb2.Score, field: str = "score") -> Score:
    """Check a score; it may have no notes, and one that nobody set has none.

    Raises:
        InvalidInput: If there is too much of something, or a length, an order or a value is off.
    """
    for name in ("onset_s", "duration_s", "pitch_midi", "velocity", "part_index", "spelling_fifths"):
        check_count(f"{field}.{name}", len(getattr(message, name)), MAX_NOTES)
    for name in ("beat_s", "beat_in_bar"):
        check_count(f"{field}.{name}", len(getattr(message, name)), MAX_BEATS)
    parts = _read_all(message.parts, f"{field}.parts", MAX_PARTS, lambda m: Part(m.name, m.program, m.is_drum))
    tempos = _read_all(message.tempos, f"{field}.tempos", MAX_MARKS, lambda m: Tempo(m.time_s, m.tempo_bpm))
    time_signatures = _read_all(
        message.time_signatures,
        f"{field}.time_signatures",
        MAX_MARKS,
        lambda m: TimeSignature(m.time_s, m.numerator, m.denominator),
    )
    keys = _read_all(message.keys, f"{field}.keys", MAX_MARKS, lambda m: Key(m.time_s, m.tonic_fifths, m.is_minor))
    with errors_named(field):
        return Score(
            onset_s=np.array(message.onset_s, np.float64),
            duration_s=np.array(message.duration_s, np.float64),
            pitch_midi=np.array(message.pitch_midi, np.int32),
            velocity=np.array(message.velocity, np.int32),
            part_index=np.array(message.part_index, np.int32),
            parts=parts,
            spelling_fifths=np.array(message.spelling_fifths, np.int32),
            beat_s=np.array(message.beat_s, np.float64),
            beat_in_bar=np.array(message.beat_in_bar, np.int32),
            tempos=tempos,
            time_signatures=time_signatures,
            keys=keys,
        )


def _read_all(messages: Sequence[M], field: str, most: int, read: Callable[[M], T]) -> tuple[T, ...]:
    """Read each of at most `most` messages; an error has the place of its own."""
    check_count(field, len(messages), most)
    values = []
    for index, message in enumerate(messages):
        with errors_named(f"{field}[{index}]"):
            values.append(read(message))
    return tuple(values)
