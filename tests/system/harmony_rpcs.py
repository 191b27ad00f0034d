"""The rows of the harmony service in the table of `test_every_rpc`."""

from collections.abc import Callable
from typing import Any

from stretto.common.v1 import harmony_pb2 as common_pb2
from stretto.harmony.v1 import harmony_pb2

SERVICE = "/stretto.harmony.v1.HarmonyService"
QUARTER = 10_080
CHORALE = ((60, 0, 52, 4), (59, 5, 50, 2), (57, 3, 53, -1), (59, 5, 55, 1))  # two voices: pitch and spelling of each


def music(num_measures: int) -> harmony_pb2.NotatedScore:
    """Bars of two quarters for two voices."""
    columns: dict[str, list[int]] = {name: [] for name in ("onset", "pitch", "spelling", "staff")}
    for beat in range(2 * num_measures):
        upper, upper_spelling, lower, lower_spelling = CHORALE[beat % len(CHORALE)]
        columns["onset"] += [beat * QUARTER] * 2
        columns["pitch"] += [lower, upper]
        columns["spelling"] += [lower_spelling, upper_spelling]
        columns["staff"] += [1, 0]
    return harmony_pb2.NotatedScore(
        onset_ticks=columns["onset"],
        duration_ticks=[QUARTER] * len(columns["onset"]),
        pitch_midi=columns["pitch"],
        spelling_fifths=columns["spelling"],
        staff_index=columns["staff"],
        measure_length_ticks=[2 * QUARTER] * num_measures,
        time_signature_numerator=[2] * num_measures,
        time_signature_denominator=[4] * num_measures,
        key_signature_fifths=[0] * num_measures,
    )


def label(start: int, root: int, **fields: Any) -> common_pb2.HarmonyLabel:
    ticks = {"start_ticks": start * QUARTER, "end_ticks": (start + 1) * QUARTER}
    return common_pb2.HarmonyLabel(
        **ticks | {"root_fifths": root, "quality": 1, "numeral": "I", "confidence": 1} | fields
    )


def rows(rpc: Callable[..., Any]) -> list[Any]:
    """One row for each method."""
    typed, long = harmony_pb2.ScoreInput(score=music(4)), harmony_pb2.ScoreInput(score=music(4_000))
    kern = harmony_pb2.ScoreFile(data=b"**kern\n*M2/4\n=1\n4c\n4e\n==\n*-\n", format=harmony_pb2.SCORE_FORMAT_HUMDRUM)
    broken = harmony_pb2.ScoreInput(file=harmony_pb2.ScoreFile(data=b"no music", format=1))
    nobody = {"model": "nobody"}
    labels, crossed = [label(0, 0), label(1, 1)], [label(1, 0), label(0, 1)]
    far = common_pb2.HarmonyKey(tonic_fifths=20)
    analyze, again = harmony_pb2.AnalyzeHarmonyRequest, harmony_pb2.ReanalyzeHarmonyRequest
    write, changes = harmony_pb2.WriteHarmonyRequest, harmony_pb2.FindChordChangesRequest
    classify, chord = harmony_pb2.ClassifyChordsRequest, harmony_pb2.PredictChordRequest
    key_changes, key = harmony_pb2.FindKeyChangesRequest, harmony_pb2.PredictKeyRequest
    first, span = harmony_pb2.PredictFirstChordRequest, [harmony_pb2.TickSpan(end_ticks=QUARTER)]
    return [
        rpc(
            f"{SERVICE}/ReadScore",
            harmony_pb2.ReadScoreRequest(file=kern),
            (
                (harmony_pb2.ReadScoreRequest(), "file.format"),
                (harmony_pb2.ReadScoreRequest(file=broken.file), "file.data"),
            ),
        ),
        rpc(
            f"{SERVICE}/AnalyzeHarmony",
            analyze(score=typed),
            (
                (analyze(), "score"),
                (analyze(score=broken), "score.file.data"),
                (analyze(score=harmony_pb2.ScoreInput(score=music(0))), "score.score.measure_length_ticks"),
                (analyze(score=typed, **nobody), "model"),
            ),
            analyze(score=long),
            works_at=f"{SERVICE}/AnalyzeHarmony",
        ),
        rpc(
            f"{SERVICE}/ReanalyzeHarmony",
            again(score=typed, edited_measure_count=1),
            (
                (again(), "score"),
                (again(score=typed), "edited_measure_count"),
                (again(score=typed, edited_measure_index=4, edited_measure_count=1), "edited_measure_index"),
                (again(score=typed, edited_measure_count=1, start_ticks=-1), "start_ticks"),
                (again(score=typed, edited_measure_count=1, **nobody), "model"),
            ),
        ),
        rpc(
            f"{SERVICE}/WriteHarmony",
            write(score=typed, labels=labels, format=1),
            (
                (write(score=typed), "format"),
                (write(score=typed, labels=crossed, format=1), "labels[1].start_ticks"),
                (write(score=typed, labels=[label(0, 0, quality=0)], format=1), "labels[0].quality"),
                (write(score=typed, format=1, title="x" * 201), "title"),
            ),
        ),
        rpc(
            f"{SERVICE}/FindChordChanges",
            changes(score=typed),
            (
                (changes(), "score"),
                (changes(score=broken), "score.file.data"),
                (changes(score=typed, **nobody), "model"),
            ),
        ),
        rpc(
            f"{SERVICE}/ClassifyChords",
            classify(score=typed, spans=span),
            (
                (classify(score=typed), "spans"),
                (classify(score=typed, spans=span, candidate_count=101), "candidate_count"),
                (classify(score=typed, spans=span, **nobody), "model"),
            ),
        ),
        rpc(
            f"{SERVICE}/PredictChord",
            chord(score=typed, labels=labels),
            (
                (chord(score=typed), "labels"),
                (chord(score=typed, labels=[label(0, 0, inversion=3)]), "labels[0].inversion"),
                (chord(score=typed, labels=[label(0, 19)]), "labels"),
                (chord(score=typed, labels=labels, **nobody), "model"),
            ),
        ),
        rpc(
            f"{SERVICE}/FindKeyChanges",
            key_changes(score=typed, labels=labels),
            (
                (key_changes(score=typed), "labels"),
                (key_changes(score=typed, labels=[label(0, 0, key=far)]), "labels[0].key.tonic_fifths"),
                (key_changes(score=typed, labels=labels, **nobody), "model"),
            ),
        ),
        rpc(
            f"{SERVICE}/PredictKey",
            key(score=typed, labels=labels),
            (
                (key(score=typed, labels=labels[:1]), "labels"),
                (key(score=typed, labels=labels, candidate_count=71), "candidate_count"),
                (key(score=typed, labels=labels, **nobody), "model"),
            ),
        ),
        rpc(
            f"{SERVICE}/PredictFirstChord",
            first(),
            (
                (first(key=far), "key.tonic_fifths"),
                (first(candidate_count=-1), "candidate_count"),
                (first(**nobody), "model"),
            ),
        ),
        rpc(f"{SERVICE}/ListModels", harmony_pb2.ListModelsRequest()),
    ]
