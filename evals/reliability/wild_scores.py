"""Scores, files of scores and labels of chords, each almost right by itself: what a fuzzer sends to harmony."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from google.protobuf.message import Message
from stretto.common.v1 import harmony_pb2 as labels_pb2
from stretto.harmony.v1 import harmony_pb2

QUARTER_TICKS = 10_080
SCALE = ((60, 0), (62, 2), (64, 4), (65, -1), (67, 1), (69, 3), (71, 5), (72, 0))  # pitch and spelling
KERN_NOTES = "cdefgab"
Draw = random.Random


def notated(draw: Draw) -> Message:
    """One to four measures of two quarters, a note of the scale of C on each."""
    num_measures = draw.randrange(1, 5)
    notes = [draw.choice(SCALE) for _ in range(2 * num_measures)]
    return harmony_pb2.NotatedScore(
        onset_ticks=[index * QUARTER_TICKS for index in range(len(notes))],
        duration_ticks=[QUARTER_TICKS] * len(notes),
        pitch_midi=[pitch for pitch, _ in notes],
        spelling_fifths=[spelling for _, spelling in notes],
        staff_index=[0] * len(notes),
        measure_length_ticks=[2 * QUARTER_TICKS] * num_measures,
        time_signature_numerator=[2] * num_measures,
        time_signature_denominator=[4] * num_measures,
        key_signature_fifths=[0] * num_measures,
    )


def file(draw: Draw) -> Message:
    """A few measures as Humdrum."""
    measures = [f"={number}\n4{draw.choice(KERN_NOTES)}\n4{draw.choice(KERN_NOTES)}\n" for number in range(1, 4)]
    data = f"**kern\n*M2/4\n{''.join(measures)}==\n*-\n".encode()
    return harmony_pb2.ScoreFile(data=data, format=harmony_pb2.SCORE_FORMAT_HUMDRUM)


def label(draw: Draw) -> Message:
    """A triad of a quarter, in the first two measures."""
    start = draw.randrange(4)
    return labels_pb2.HarmonyLabel(
        start_ticks=start * QUARTER_TICKS, end_ticks=(start + 1) * QUARTER_TICKS, numeral="I",
        root_fifths=draw.randrange(-2, 3), quality=draw.choice((1, 2)), confidence=1.0,
    )  # fmt: skip


def span(draw: Draw) -> Message:
    """One of the first two quarters."""
    start = draw.randrange(2)
    return harmony_pb2.TickSpan(start_ticks=start * QUARTER_TICKS, end_ticks=(start + 1) * QUARTER_TICKS)


WHOLE: Mapping[str, Callable[[Draw], Message]] = {
    "stretto.harmony.v1.NotatedScore": notated,
    "stretto.harmony.v1.ScoreFile": file,
    "stretto.harmony.v1.TickSpan": span,
    "stretto.common.v1.HarmonyLabel": label,
}
"""What draws a part of a request, by the full name of its message."""
