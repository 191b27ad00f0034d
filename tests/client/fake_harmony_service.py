"""A tiny harmony service: what it says of a measure follows from the notes of it and of the one before and after."""

from __future__ import annotations

from typing import Any

from google.protobuf import duration_pb2
from stretto.common.v1 import harmony_pb2 as common_pb2
from stretto.harmony.v1 import harmony_pb2, harmony_pb2_grpc
from stretto_shared.errors import InvalidInput, NotFound

QUARTER, WINDOW, CONTEXT = 10_080, 2, 1


def label_of(start: int, end: int, number: int, *, measure: int = 0) -> common_pb2.HarmonyLabel:
    key = common_pb2.HarmonyKey(tonic_fifths=number % 3, is_minor=bool(number % 2))
    return common_pb2.HarmonyLabel(
        start_ticks=start, end_ticks=end, key=key, numeral=("I", "IV", "V7")[number % 3], tonicised_key=key,
        root_fifths=number % 5, quality=1 + number % 12, inversion=number % 3, confidence=0.25,
        measure_index=measure, measure_number=str(measure + 1), beat=1.0,
    )  # fmt: skip


def score_of(num_measures: int) -> harmony_pb2.NotatedScore:
    """A note for each measure of two quarters."""
    notes, measures = range(num_measures), [1] * num_measures
    return harmony_pb2.NotatedScore(
        onset_ticks=[2 * QUARTER * note for note in notes], duration_ticks=[QUARTER] * num_measures,
        pitch_midi=[60] * num_measures, spelling_fifths=[0] * num_measures, staff_index=[0] * num_measures,
        voice_index=[0] * num_measures, measure_length_ticks=[2 * QUARTER] * num_measures,
        measure_offset_ticks=[0] * num_measures, time_signature_numerator=[2] * num_measures,
        time_signature_denominator=[4] * num_measures, key_signature_fifths=measures,
        measure_numbers=[str(index + 1) for index in range(num_measures)],
    )  # fmt: skip


class Harmony(harmony_pb2_grpc.HarmonyServiceServicer):  # type: ignore[misc]
    """A file holds the number of its measures as text, after `<`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.requests: list[Any] = []

    def _score(self, source: harmony_pb2.ScoreInput) -> harmony_pb2.NotatedScore:
        if source.WhichOneof("source") == "score":
            return source.score
        if not source.file.data.startswith(b"<"):
            raise InvalidInput("score.file.data", "expected MusicXML, got something else.")
        return score_of(int(source.file.data[1:]))

    def _label(self, score: harmony_pb2.NotatedScore, measure: int, first: int = 0, start: int = 0) -> Any:
        at = [sum(score.measure_length_ticks[:index]) for index in range(len(score.measure_length_ticks) + 1)]
        low, high = at[max(0, measure - 1)], at[min(len(at) - 1, measure + 2)]
        notes = zip(score.onset_ticks, score.pitch_midi)
        number = sum(pitch * (1 + (onset - low) // QUARTER) for onset, pitch in notes if low <= onset < high)
        return label_of(at[measure] + start, at[measure + 1] + start, number, measure=measure + first)

    async def ReadScore(self, request: Any, context: Any) -> Any:
        return harmony_pb2.ReadScoreResponse(score=self._score(harmony_pb2.ScoreInput(file=request.file)))

    async def AnalyzeHarmony(self, request: Any, context: Any) -> Any:
        if request.model == "missing":
            raise NotFound("model", "expected tiny, got 'missing'. Choose one.")
        score = self._score(request.score)
        response, count = harmony_pb2.AnalyzeHarmonyResponse, len(score.measure_length_ticks)
        yield response(
            outline=harmony_pb2.AnalysisOutline(
                model=self.model, measure_count=count, note_count=len(score.onset_ticks),
                length_ticks=sum(score.measure_length_ticks), window_measure_count=WINDOW,
                context_measure_count=CONTEXT,
            )
        )  # fmt: skip
        for first in range(0, count, WINDOW):
            labels = [self._label(score, measure) for measure in range(first, min(count, first + WINDOW))]
            yield response(
                window=harmony_pb2.AnalyzedWindow(first_measure_index=first, measure_count=len(labels), labels=labels)
            )
        if request.model == "breaks":
            return
        yield response(
            receipt=harmony_pb2.HarmonyReceipt(
                model=self.model, input_sha256="ab" * 32, window_count=-(-count // WINDOW), stretto_version="0.1.0",
                total_latency=duration_pb2.Duration(nanos=500_000_000),
            )
        )  # fmt: skip

    async def ReanalyzeHarmony(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        score, at_hand = request.score.score, request.first_measure_index
        low = max(0, request.edited_measure_index - CONTEXT) // WINDOW * WINDOW
        edited_last = request.edited_measure_index + request.edited_measure_count
        high = min(request.measure_count, -(-min(request.measure_count, edited_last + CONTEXT) // WINDOW) * WINDOW)
        assert at_hand <= max(0, low - CONTEXT), "too few measures before the edit"
        assert at_hand + len(score.measure_length_ticks) >= min(request.measure_count, high + CONTEXT)
        labels = [self._label(score, m - at_hand, at_hand, request.start_ticks) for m in range(low, high)]
        return harmony_pb2.ReanalyzeHarmonyResponse(
            first_measure_index=low, measure_count=high - low, labels=labels, start_ticks=labels[0].start_ticks,
            end_ticks=labels[-1].end_ticks, window_count=1, model=self.model,
        )  # fmt: skip

    async def WriteHarmony(self, request: Any, context: Any) -> Any:
        numerals = " ".join(label.numeral for label in request.labels)
        told = f"{request.format} {request.title} {request.analyst} {request.score.WhichOneof('source')}: {numerals}"
        return harmony_pb2.WriteHarmonyResponse(data=told.encode())

    async def FindChordChanges(self, request: Any, context: Any) -> Any:
        return harmony_pb2.FindChordChangesResponse(probabilities=[0.5] * len(self._score(request.score).onset_ticks))

    async def ClassifyChords(self, request: Any, context: Any) -> Any:
        spans = [self._chords(span.end_ticks - span.start_ticks, request.candidate_count) for span in request.spans]
        return harmony_pb2.ClassifyChordsResponse(spans=spans)

    async def PredictChord(self, request: Any, context: Any) -> Any:
        return harmony_pb2.PredictChordResponse(next=self._chords(request.labels[-1].root_fifths, 1))

    async def FindKeyChanges(self, request: Any, context: Any) -> Any:
        return harmony_pb2.FindKeyChangesResponse(probabilities=[label.confidence for label in request.labels])

    async def PredictKey(self, request: Any, context: Any) -> Any:
        keys = [harmony_pb2.KeyCandidate(key=request.labels[-1].key, probability=0.75)]
        return harmony_pb2.PredictKeyResponse(keys=keys)

    async def PredictFirstChord(self, request: Any, context: Any) -> Any:
        return harmony_pb2.PredictFirstChordResponse(first=self._chords(request.key.tonic_fifths, 1))

    def _chords(self, root: int, count: int) -> harmony_pb2.ChordCandidates:
        chord = harmony_pb2.ChordCandidate(root_fifths=root, quality=2, inversion=1, probability=0.5)
        return harmony_pb2.ChordCandidates(chords=[chord] * count)
