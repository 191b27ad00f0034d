"""Where the messages of harmony and the service's values meet; knows no grpc.

A count is checked before anything is copied, and a value by the value types, which name the columns of `Score`; the
errors here name the fields of the wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from stretto.common.v1 import harmony_pb2 as common_pb2
from stretto.harmony.v1 import harmony_pb2
from stretto_shared.errors import InvalidInput

from stretto_harmony.engine import AnalysisFormat, Candidate, Chord, ScoreFile, ScoreFormat, ScoreSource
from stretto_harmony.scores.labels import ChordType, HarmonyLabel, Key
from stretto_harmony.scores.score import MAX_MEASURES, MAX_NOTES, MAX_TICKS, TICKS_PER_WHOLE, Score

MAX_LABELS = 100_000
MAX_NUMERAL_CHARACTERS = 64
MAX_MEASURE_NUMBER_CHARACTERS = 16

_SCORE_FORMATS = {
    harmony_pb2.SCORE_FORMAT_MUSICXML: ScoreFormat.MUSICXML,
    harmony_pb2.SCORE_FORMAT_MIDI: ScoreFormat.MIDI,
    harmony_pb2.SCORE_FORMAT_HUMDRUM: ScoreFormat.HUMDRUM,
}
_ANALYSIS_FORMATS = {
    harmony_pb2.ANALYSIS_FORMAT_ROMANTEXT: AnalysisFormat.ROMANTEXT,
    harmony_pb2.ANALYSIS_FORMAT_DCML_TSV: AnalysisFormat.DCML_TSV,
    harmony_pb2.ANALYSIS_FORMAT_JSON: AnalysisFormat.JSON,
    harmony_pb2.ANALYSIS_FORMAT_MUSICXML: AnalysisFormat.MUSICXML,
}
_QUALITIES = {getattr(common_pb2, f"CHORD_QUALITY_{each.name}"): each for each in ChordType}
_NUMBERS = {quality: number for number, quality in _QUALITIES.items()}

_NOTE_COLUMNS = {
    "onset": "onset_ticks",
    "duration": "duration_ticks",
    "midi": "pitch_midi",
    "fifths": "spelling_fifths",
    "staff": "staff_index",
    "voice": "voice_index",
}
_MEASURE_COLUMNS = {
    "measure_length": "measure_length_ticks",
    "measure_offset": "measure_offset_ticks",
    "numerator": "time_signature_numerator",
    "denominator": "time_signature_denominator",
    "key_signature": "key_signature_fifths",
}
_FIELDS = {**_NOTE_COLUMNS, **_MEASURE_COLUMNS, "measure_start": "measure_length_ticks"}


def source_from_proto(message: harmony_pb2.ScoreInput, field: str = "score") -> ScoreSource:
    """A file, or a score that is checked.

    Raises:
        InvalidInput: If there is neither, or something of it is off.
    """
    match message.WhichOneof("source"):
        case "file":
            return file_from_proto(message.file, f"{field}.file")
        case "score":
            return score_from_proto(message.score, f"{field}.score")
    raise InvalidInput(field, "is required. Send a file or a typed score.")


def file_from_proto(message: harmony_pb2.ScoreFile, field: str) -> ScoreFile:
    """A file whose format is known; nothing reads it yet."""
    if message.format not in _SCORE_FORMATS:
        known = ", ".join(each.name for each in ScoreFormat)
        raise InvalidInput(f"{field}.format", f"expected one of {known}, got {message.format}. Say what the file is.")
    return ScoreFile(message.data, _SCORE_FORMATS[message.format], field)


def analysis_format_from_proto(number: harmony_pb2.AnalysisFormat) -> AnalysisFormat:
    """The format that is to be written.

    Raises:
        InvalidInput: If it is none.
    """
    if number not in _ANALYSIS_FORMATS:
        known = ", ".join(each.name for each in AnalysisFormat)
        raise InvalidInput("format", f"expected one of {known}, got {number}. Say what to write.")
    return _ANALYSIS_FORMATS[number]


def score_from_proto(message: harmony_pb2.NotatedScore, field: str) -> Score:
    """Check a typed score.

    Raises:
        InvalidInput: If there is too much of something, or a length, an order or a value is off.
    """
    for names, most in ((_NOTE_COLUMNS, MAX_NOTES), (_MEASURE_COLUMNS, MAX_MEASURES)):
        for name in names.values():
            _check_count(f"{field}.{name}", len(getattr(message, name)), most)
    _check_count(f"{field}.measure_numbers", len(message.measure_numbers), MAX_MEASURES)
    columns = {
        own: np.array(getattr(message, name), np.int64) for own, name in (_NOTE_COLUMNS | _MEASURE_COLUMNS).items()
    }
    lengths = columns["measure_length"]
    columns |= {
        "voice": columns["voice"] if columns["voice"].size else np.zeros_like(columns["onset"]),
        "measure_offset": columns["measure_offset"] if columns["measure_offset"].size else np.zeros_like(lengths),
        "measure_start": _starts(lengths, f"{field}.measure_length_ticks"),
    }
    numbers = tuple(message.measure_numbers) or tuple(str(index + 1) for index in range(lengths.size))
    for index, number in enumerate(numbers):
        if len(number) > MAX_MEASURE_NUMBER_CHARACTERS:
            raise InvalidInput(
                f"{field}.measure_numbers[{index}]",
                f"expected at most {MAX_MEASURE_NUMBER_CHARACTERS} characters, got {len(number)}. Shorten it.",
            )
    try:
        return Score(**columns, measure_number=numbers)
    except InvalidInput as error:
        raise InvalidInput(_wire_field(error.field, field), error.description, reason=error.reason) from error


def _starts(lengths: Any, field: str) -> Any:
    """Where each measure starts; a sum that wraps around would look like an earlier one."""
    if lengths.size and not ((lengths > 0) & (lengths <= 1_000 * TICKS_PER_WHOLE)).all():
        index = int(np.argmin((lengths > 0) & (lengths <= 1_000 * TICKS_PER_WHOLE)))
        raise InvalidInput(
            f"{field}[{index}]", f"expected 1 to {1_000 * TICKS_PER_WHOLE} ticks, got {lengths[index]}. Correct it."
        )
    return np.cumsum(lengths) - lengths


def _wire_field(named: str, field: str) -> str:
    """`score.midi[17]` as the request has it."""
    name, bracket, rest = named.removeprefix("score.").partition("[")
    wire = "measure_numbers" if name == "measure_number" else _FIELDS.get(name, name)
    return f"{field}.{wire}{bracket}{rest}"


def score_to_proto(score: Score) -> harmony_pb2.NotatedScore:
    """Write a score column by column."""
    names = _NOTE_COLUMNS | _MEASURE_COLUMNS
    columns = {name: getattr(score, own).tolist() for own, name in names.items()}
    return harmony_pb2.NotatedScore(**columns, measure_numbers=score.measure_number)


def key_from_proto(message: common_pb2.HarmonyKey, field: str) -> Key:
    """A key whose tonic is one of the 35."""
    try:
        return Key(message.tonic_fifths, message.is_minor)
    except InvalidInput as error:
        raise InvalidInput(f"{field}.tonic_fifths", error.description, reason=error.reason) from error


def key_to_proto(key: Key) -> common_pb2.HarmonyKey:
    """A key of the wire."""
    return common_pb2.HarmonyKey(tonic_fifths=key.tonic, is_minor=key.is_minor)


def labels_from_proto(messages: Sequence[common_pb2.HarmonyLabel], field: str = "labels") -> list[HarmonyLabel]:
    """Labels in order and without overlaps.

    Raises:
        InvalidInput: If there are too many, or one is off.
    """
    _check_count(field, len(messages), MAX_LABELS)
    labels: list[HarmonyLabel] = []
    for index, message in enumerate(messages):
        label = _label_from_proto(message, f"{field}[{index}]")
        if labels and label.start < labels[-1].end:
            raise InvalidInput(
                f"{field}[{index}].start_ticks",
                f"expected at least {labels[-1].end}, where the label before ends, got {label.start}. Sort the labels.",
            )
        labels.append(label)
    return labels


def _label_from_proto(message: common_pb2.HarmonyLabel, field: str) -> HarmonyLabel:
    if message.quality not in _QUALITIES:
        raise InvalidInput(f"{field}.quality", f"expected a quality of the wire, got {message.quality}. Name one.")
    if len(message.numeral) > MAX_NUMERAL_CHARACTERS or not message.numeral.isprintable():
        raise InvalidInput(
            f"{field}.numeral",
            f"expected at most {MAX_NUMERAL_CHARACTERS} printable characters, got {message.numeral!r}.",
        )
    key = key_from_proto(message.key, f"{field}.key")
    applied = (
        key_from_proto(message.tonicised_key, f"{field}.tonicised_key") if message.HasField("tonicised_key") else key
    )
    try:
        return HarmonyLabel(
            message.start_ticks,
            message.end_ticks,
            key,
            message.numeral,
            applied,
            message.root_fifths,
            _QUALITIES[message.quality],
            message.inversion,
            message.confidence,
        )
    except InvalidInput as error:
        names = {"label.end": "end_ticks", "label.root": "root_fifths"}
        name = names.get(error.field, error.field.removeprefix("label."))
        raise InvalidInput(f"{field}.{name}", error.description, reason=error.reason) from error


def labels_to_proto(
    labels: Sequence[HarmonyLabel], score: Score, *, first_measure: int = 0, start: int = 0
) -> list[common_pb2.HarmonyLabel]:
    """Labels with their places.

    Args:
        labels: In ticks of `score`.
        score: What they are of; it may be some measures of a piece.
        first_measure: Which measure of the piece is the first of `score`.
        start: Where in the piece `score` begins, in ticks.
    """
    starts = np.array([label.start for label in labels], np.int64)
    measures = score.measure_of(starts)
    beats = 1 + score.beat_position(starts) / score.beat_length(measures)
    return [
        _label_to_proto(label, score.measure_number[measure], int(measure) + first_measure, float(beat), start)
        for label, measure, beat in zip(labels, measures, beats)
    ]


def _label_to_proto(label: HarmonyLabel, number: str, measure: int, beat: float, start: int) -> common_pb2.HarmonyLabel:
    return common_pb2.HarmonyLabel(
        start_ticks=label.start + start,
        end_ticks=label.end + start,
        key=key_to_proto(label.key),
        numeral=label.numeral,
        tonicised_key=key_to_proto(label.tonicised),
        root_fifths=label.root,
        quality=_NUMBERS[label.quality],
        inversion=label.inversion,
        confidence=label.confidence,
        measure_index=measure,
        measure_number=number,
        beat=beat,
    )


def chords_to_proto(candidates: Iterable[Candidate[Chord]]) -> harmony_pb2.ChordCandidates:
    """Chords, the most probable first."""
    chords = [
        harmony_pb2.ChordCandidate(
            root_fifths=root, quality=_NUMBERS[quality], inversion=inversion, probability=candidate.probability
        )
        for candidate in candidates
        for root, quality, inversion in [candidate.value]
    ]
    return harmony_pb2.ChordCandidates(chords=chords)


def keys_to_proto(candidates: Iterable[Candidate[Key]]) -> list[harmony_pb2.KeyCandidate]:
    """Keys, the most probable first."""
    return [harmony_pb2.KeyCandidate(key=key_to_proto(each.value), probability=each.probability) for each in candidates]


def _check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidInput(field, f"expected at most {most}, got {count}. Send a part of the piece.")


def start_from_proto(start_ticks: int) -> int:
    """Where in a piece an excerpt begins.

    Raises:
        InvalidInput: If it is before the piece, or beyond the longest one.
    """
    if not 0 <= start_ticks <= MAX_TICKS:
        raise InvalidInput(
            "start_ticks", f"expected 0 to {MAX_TICKS}, got {start_ticks}. Count from the piece's start."
        )
    return start_ticks
