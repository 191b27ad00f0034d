"""Scores and calls of a harmony service, and what their failures say."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.harmony.v1 import harmony_pb2
from stretto_harmony.scores.pitch import LETTERS, octave_of
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score

NUM_MEASURES = 21
WHITE = np.array([0, 2, 4, 5, 7, 9, 11])
SPELLING = {0: 0, 1: 7, 2: 2, 3: -3, 4: 4, 5: -1, 6: 6, 7: 1, 8: -4, 9: 3, 10: -2, 11: 5}


def make_score(
    num_measures: int = NUM_MEASURES, *, seed: int = 0, empty: tuple[int, ...] = (), pickup: int = 0
) -> Score:
    """Two notes a quarter in 3/4; a measure has its notes from its own number, so that an edit is local."""
    quarter, notes, lengths = TICKS_PER_QUARTER, [], []
    for index in range(num_measures):
        start, lack = sum(lengths), pickup * quarter if index == 0 else 0
        lengths.append(3 * quarter - lack)
        drawn = np.random.default_rng((seed, index)).integers(0, 35, (3, 2))
        for beat in range(lengths[-1] // quarter if index not in empty else 0):
            for step in sorted({int(48 + 12 * (each // 7) + WHITE[each % 7]) for each in drawn[beat]}):
                notes.append((start + beat * quarter, quarter, step, SPELLING[step % 12], int(step < 60), 0))
    onset, duration, midi, fifths, staff, voice = np.array(notes, np.int64).reshape(-1, 6).T
    ones = np.ones(num_measures, np.int64)
    offsets = np.zeros(num_measures, np.int64)
    offsets[0] = pickup * quarter
    return Score(
        onset, duration, midi, fifths, staff, voice, np.cumsum(lengths) - lengths, np.array(lengths), offsets, 3 * ones,
        4 * ones, 0 * ones, tuple(str(index + (not pickup)) for index in range(num_measures)),
    )  # fmt: skip


def edited(score: Score, measure: int, *, by: int = 2) -> Score:
    """The score with the notes of one measure so many fifths higher, at the same place."""
    inside = score.measure == measure
    moved = Score(**{name: getattr(score, name) for name in _NAMES} | {
        "midi": score.midi + 2 * inside, "fifths": score.fifths + by * inside
    })  # fmt: skip
    return moved


_NAMES = tuple(Score.__dataclass_fields__)


def musicxml_of(score: Score, *, divisions: int = 4) -> bytes:
    """The score as MusicXML, one part a staff, as plainly as it can be written."""
    parts = []
    for staff in range(int(score.staff.max(initial=0)) + 1):
        measures = []
        for index in range(score.num_measures):
            start = int(score.measure_start[index])
            body, at = [], start
            here = np.flatnonzero((score.measure == index) & (score.staff == staff))
            for place, note in enumerate(here):
                onset, chord = int(score.onset[note]), place > 0 and score.onset[note] == score.onset[here[place - 1]]
                if not chord and onset > at:
                    body.append(_rest(onset - at, divisions))
                body.append(_note(score, int(note), divisions, chord=bool(chord)))
                at = onset + int(score.duration[note])
            if at < start + int(score.measure_length[index]):
                body.append(_rest(start + int(score.measure_length[index]) - at, divisions))
            signature = (
                f"<attributes><divisions>{divisions}</divisions><key><fifths>0</fifths></key><time><beats>"
                f"{score.numerator[0]}</beats><beat-type>{score.denominator[0]}</beat-type></time></attributes>"
            )
            number = score.measure_number[index]
            implicit = ' implicit="yes"' if score.measure_offset[index] else ""
            first = signature if index == 0 else ""
            measures.append(f'<measure number="{number}"{implicit}>{first}{"".join(body)}</measure>')
        parts.append(f'<part id="P{staff}">{"".join(measures)}</part>')
    names = "".join(
        f'<score-part id="P{staff}"><part-name>{staff}</part-name></score-part>' for staff in range(len(parts))
    )
    text = f'<score-partwise version="4.0"><part-list>{names}</part-list>{"".join(parts)}</score-partwise>'
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()


def _rest(ticks: int, divisions: int) -> str:
    return f"<note><rest/><duration>{ticks * divisions // TICKS_PER_QUARTER}</duration></note>"


def _note(score: Score, note: int, divisions: int, *, chord: bool) -> str:
    accidentals, letter = divmod(int(score.fifths[note]) + 1, 7)
    octave = int(octave_of(score.midi[note : note + 1], score.fifths[note : note + 1])[0])
    alter = f"<alter>{accidentals}</alter>" if accidentals else ""
    length = int(score.duration[note]) * divisions // TICKS_PER_QUARTER
    head = "<note><chord/>" if chord else "<note>"
    return (
        f"{head}<pitch><step>{LETTERS[letter]}</step>{alter}<octave>{octave}</octave></pitch>"
        f"<duration>{length}</duration></note>"
    )


def typed(score: harmony_pb2.NotatedScore) -> harmony_pb2.ScoreInput:
    return harmony_pb2.ScoreInput(score=score)


def file_of(data: bytes, format: Any = harmony_pb2.SCORE_FORMAT_MUSICXML) -> harmony_pb2.ScoreInput:
    return harmony_pb2.ScoreInput(file=harmony_pb2.ScoreFile(data=data, format=format))


async def analyze(stub: Any, score: harmony_pb2.NotatedScore, **fields: Any) -> list[Any]:
    request = harmony_pb2.AnalyzeHarmonyRequest(score=typed(score), **fields)
    return [each async for each in stub.AnalyzeHarmony(request, timeout=60)]


def labels_of(responses: list[Any]) -> list[Any]:
    """All labels of a stream whose messages come in their order."""
    kinds = [each.WhichOneof("payload") for each in responses]
    assert kinds == ["outline", *["window"] * (len(kinds) - 2), "receipt"]
    return [label for each in responses[1:-1] for label in each.window.labels]


async def failure(awaitable: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value


async def consume(call: Any) -> list[Any]:
    return [response async for response in call]


def violation(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """The field that is off, and what is said of it."""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    found = detail(error, error_details_pb2.BadRequest()).field_violations[0]
    return found.field, found.description


def detail(error: grpc.aio.AioRpcError, wanted: Any) -> Any:
    status = rpc_status.from_call(_Call(error))
    assert any(packed.Unpack(wanted) for packed in status.details), status
    return wanted


class _Call:
    """What `grpc_status` wants to see of a failed call."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code, self.details = error.code, error.details
        self.trailing_metadata = lambda: [*error.trailing_metadata()]
