"""The client's calls on the harmony of scores; `StrettoClient` has them all."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
from stretto.harmony.v1 import harmony_pb2
from stretto_shared.errors import InvalidInput
from stretto_shared.grpc import convert
from stretto_shared.grpc.convert_harmony import (
    key_from_proto,
    key_to_proto,
    labels_from_proto,
    labels_to_proto,
    quality_from_proto,
)
from stretto_shared.harmony import HarmonyKey, HarmonyLabel

from stretto_client.calls import answer, stream
from stretto_client.errors import ServerFailure
from stretto_client.harmony_values import (
    MEASURE_COLUMNS,
    NOTE_COLUMNS,
    AnalysisFormat,
    ChordCandidate,
    HarmonyAnalysis,
    HarmonyEvent,
    HarmonyOutline,
    HarmonyReceipt,
    HarmonyWindow,
    KeyCandidate,
    NotatedScore,
    ScoreFile,
    ScoreFormat,
    Spans,
)

HARMONY_TIMEOUT_S = 300.0

_SCORE_FORMATS = {
    ScoreFormat.MUSICXML: harmony_pb2.SCORE_FORMAT_MUSICXML,
    ScoreFormat.MIDI: harmony_pb2.SCORE_FORMAT_MIDI,
    ScoreFormat.HUMDRUM: harmony_pb2.SCORE_FORMAT_HUMDRUM,
}
_ANALYSIS_FORMATS = {
    AnalysisFormat.ROMANTEXT: harmony_pb2.ANALYSIS_FORMAT_ROMANTEXT,
    AnalysisFormat.DCML_TSV: harmony_pb2.ANALYSIS_FORMAT_DCML_TSV,
    AnalysisFormat.JSON: harmony_pb2.ANALYSIS_FORMAT_JSON,
    AnalysisFormat.MUSICXML: harmony_pb2.ANALYSIS_FORMAT_MUSICXML,
}


class HarmonyCalls:
    """Every method of the harmony service, as the door passes it on."""

    _harmony: Any  # the stub, from enter to exit

    async def read_score(self, file: ScoreFile, *, timeout_s: float = HARMONY_TIMEOUT_S) -> NotatedScore:
        """A file as the score that every analyzer reads."""
        request = harmony_pb2.ReadScoreRequest(file=_file_to_proto(file))
        reply = await answer(self._harmony.ReadScore(request, timeout=timeout_s))
        return _score_from_proto(reply.score)

    async def analyze_harmony(
        self, score: ScoreFile | NotatedScore, *, analyzer: str = "", timeout_s: float = HARMONY_TIMEOUT_S
    ) -> AsyncGenerator[HarmonyEvent, None]:
        """The outline, the labels window by window as they are found, and the receipt last.

        Args:
            score: A file, or a typed score.
            analyzer: Empty takes the server's default.
            timeout_s: Deadline of the whole call.
        """
        request = harmony_pb2.AnalyzeHarmonyRequest(model=analyzer, score=_input_to_proto(score))
        async with aclosing(stream(self._harmony.AnalyzeHarmony(request, timeout=timeout_s))) as replies:
            async for reply in replies:
                yield _event_from_proto(reply)

    async def reanalyze_harmony(
        self,
        score: NotatedScore,
        previous: HarmonyAnalysis,
        *,
        first_edited: int,
        num_edited: int = 1,
        timeout_s: float = HARMONY_TIMEOUT_S,
    ) -> HarmonyAnalysis:
        """The analysis of an edited score, of which only what the edit touches is sent and analysed.

        Args:
            score: The whole edited score.
            previous: The analysis before the edit.
            first_edited: The first edited measure, from 0. A note that was tied into a measure belongs to the measure
                where it begins.
            num_edited: How many measures were edited; where some were inserted or removed, all from there on.
            timeout_s: Deadline of the call.

        Raises:
            Conflict: If the server has another model by now.
            InvalidInput: If the edit is not in the score, or measures came or went that are not among the edited.
        """
        _check_edit(score, previous, first_edited, num_edited)
        last_edited = first_edited + num_edited
        first, last = previous.needed_measures(first_edited, last_edited, score.num_measures)
        request = harmony_pb2.ReanalyzeHarmonyRequest(
            model=previous.outline.model.name,
            model_id=previous.outline.model.model_id,
            score=_input_to_proto(score.measures(first, last)),
            first_measure_index=first,
            measure_count=score.num_measures,
            edited_measure_index=first_edited,
            edited_measure_count=num_edited,
            start_ticks=score.measure_start(first),
        )
        reply = await answer(self._harmony.ReanalyzeHarmony(request, timeout=timeout_s))
        window = HarmonyWindow(reply.first_measure_index, reply.measure_count, labels_from_proto(reply.labels))
        return previous.amended(window, score)

    async def write_harmony(
        self,
        score: ScoreFile | NotatedScore,
        labels: Iterable[HarmonyLabel],
        format: AnalysisFormat,
        *,
        title: str = "",
        analyst: str = "",
        timeout_s: float = HARMONY_TIMEOUT_S,
    ) -> bytes:
        """An analysis as the bytes of a file; as MusicXML, a MusicXML file is kept as it came."""
        request = harmony_pb2.WriteHarmonyRequest(
            score=_input_to_proto(score),
            labels=labels_to_proto(labels),
            format=_ANALYSIS_FORMATS[format],
            title=title,
            analyst=analyst,
        )
        return bytes((await answer(self._harmony.WriteHarmony(request, timeout=timeout_s))).data)

    async def find_chord_changes(
        self, score: ScoreFile | NotatedScore, *, analyzer: str = "", timeout_s: float = HARMONY_TIMEOUT_S
    ) -> list[float]:
        """For each note of the score, in its order, how probable it is that a chord begins with it."""
        request = harmony_pb2.FindChordChangesRequest(model=analyzer, score=_input_to_proto(score))
        return list((await answer(self._harmony.FindChordChanges(request, timeout=timeout_s))).probabilities)

    async def classify_chords(
        self,
        score: ScoreFile | NotatedScore,
        spans: Spans,
        *,
        num_candidates: int = 0,
        analyzer: str = "",
        timeout_s: float = HARMONY_TIMEOUT_S,
    ) -> list[list[ChordCandidate]]:
        """The likeliest chords of each span, given by its ticks; 0 candidates are the server's default number."""
        request = harmony_pb2.ClassifyChordsRequest(
            model=analyzer,
            score=_input_to_proto(score),
            spans=[harmony_pb2.TickSpan(start_ticks=start, end_ticks=end) for start, end in spans],
            candidate_count=num_candidates,
        )
        reply = await answer(self._harmony.ClassifyChords(request, timeout=timeout_s))
        return [_chords_from_proto(each) for each in reply.spans]

    async def predict_chord(
        self,
        score: ScoreFile | NotatedScore,
        labels: Sequence[HarmonyLabel],
        *,
        num_candidates: int = 0,
        analyzer: str = "",
        timeout_s: float = HARMONY_TIMEOUT_S,
    ) -> list[ChordCandidate]:
        """The likeliest chords after some."""
        request = harmony_pb2.PredictChordRequest(
            model=analyzer, score=_input_to_proto(score), labels=labels_to_proto(labels), candidate_count=num_candidates
        )
        return _chords_from_proto((await answer(self._harmony.PredictChord(request, timeout=timeout_s))).next)

    async def find_key_changes(
        self,
        score: ScoreFile | NotatedScore,
        labels: Sequence[HarmonyLabel],
        *,
        analyzer: str = "",
        timeout_s: float = HARMONY_TIMEOUT_S,
    ) -> list[float]:
        """For each label how probable it is that the key changes with it."""
        request = harmony_pb2.FindKeyChangesRequest(
            model=analyzer, score=_input_to_proto(score), labels=labels_to_proto(labels)
        )
        return list((await answer(self._harmony.FindKeyChanges(request, timeout=timeout_s))).probabilities)

    async def predict_key(
        self,
        score: ScoreFile | NotatedScore,
        labels: Sequence[HarmonyLabel],
        *,
        num_candidates: int = 0,
        analyzer: str = "",
        timeout_s: float = HARMONY_TIMEOUT_S,
    ) -> list[KeyCandidate]:
        """The likeliest keys with the last label, if the key changes there."""
        request = harmony_pb2.PredictKeyRequest(
            model=analyzer, score=_input_to_proto(score), labels=labels_to_proto(labels), candidate_count=num_candidates
        )
        reply = await answer(self._harmony.PredictKey(request, timeout=timeout_s))
        return [KeyCandidate(key_from_proto(each.key), each.probability) for each in reply.keys]

    async def predict_first_chord(
        self,
        key: HarmonyKey,
        *,
        num_candidates: int = 0,
        analyzer: str = "",
        timeout_s: float = HARMONY_TIMEOUT_S,
    ) -> list[ChordCandidate]:
        """The likeliest first chords of a piece in a key."""
        request = harmony_pb2.PredictFirstChordRequest(
            model=analyzer, key=key_to_proto(key), candidate_count=num_candidates
        )
        return _chords_from_proto((await answer(self._harmony.PredictFirstChord(request, timeout=timeout_s))).first)


def _check_edit(score: NotatedScore, previous: HarmonyAnalysis, first_edited: int, num_edited: int) -> None:
    if not 0 <= first_edited < score.num_measures or not 1 <= num_edited <= score.num_measures - first_edited:
        raise InvalidInput(
            "first_edited",
            f"expected measures of 0 to {score.num_measures - 1}, got {num_edited} from {first_edited} on.",
        )
    if score.num_measures != previous.outline.num_measures and first_edited + num_edited < score.num_measures:
        raise InvalidInput(
            "num_edited",
            f"expected all {score.num_measures - first_edited} measures from the first edited one on, since the piece "
            f"had {previous.outline.num_measures} measures and has {score.num_measures}; got {num_edited}.",
        )


def _file_to_proto(file: ScoreFile) -> harmony_pb2.ScoreFile:
    return harmony_pb2.ScoreFile(data=file.data, format=_SCORE_FORMATS[file.format])


def _input_to_proto(score: ScoreFile | NotatedScore) -> harmony_pb2.ScoreInput:
    if isinstance(score, ScoreFile):
        return harmony_pb2.ScoreInput(file=_file_to_proto(score))
    columns = {name: getattr(score, name).tolist() for name in (*NOTE_COLUMNS, *MEASURE_COLUMNS)}
    return harmony_pb2.ScoreInput(
        score=harmony_pb2.NotatedScore(**columns, measure_numbers=score.measure_numbers),
    )


def _score_from_proto(message: harmony_pb2.NotatedScore) -> NotatedScore:
    columns = {name: np.array(getattr(message, name), np.int64) for name in (*NOTE_COLUMNS, *MEASURE_COLUMNS)}
    return NotatedScore(**columns, measure_numbers=tuple(message.measure_numbers))


def _event_from_proto(message: harmony_pb2.AnalyzeHarmonyResponse) -> HarmonyEvent:
    """The one thing that a message of an analysis brings."""
    match message.WhichOneof("payload"):
        case "outline":
            outline = message.outline
            return HarmonyOutline(
                model=convert.model_info_from_proto(outline.model),
                num_measures=outline.measure_count,
                num_notes=outline.note_count,
                length_ticks=outline.length_ticks,
                window_measures=outline.window_measure_count,
                context_measures=outline.context_measure_count,
            )
        case "window":
            window = message.window
            return HarmonyWindow(window.first_measure_index, window.measure_count, labels_from_proto(window.labels))
        case "receipt":
            receipt = message.receipt
            return HarmonyReceipt(
                model=convert.model_info_from_proto(receipt.model),
                input_sha256=receipt.input_sha256,
                num_windows=receipt.window_count,
                stretto_version=receipt.stretto_version,
                total_latency_s=receipt.total_latency.ToTimedelta().total_seconds(),
            )
        case unknown:
            raise ServerFailure(f"The server sent a message that this client does not know ({unknown}). Update it.")


def _chords_from_proto(message: harmony_pb2.ChordCandidates) -> list[ChordCandidate]:
    return [
        ChordCandidate(each.root_fifths, quality_from_proto(each.quality), each.inversion, each.probability)
        for each in message.chords
    ]
