"""Every module of an analyzer by itself, over a real channel."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from harmony_calls import failure, make_score, typed, violation
from stretto.common.v1 import harmony_pb2 as common_pb2
from stretto.harmony.v1 import harmony_pb2
from stretto_harmony.convert import labels_to_proto, score_to_proto
from stretto_harmony.scores.labels import NUM_CHORDS, Key, chord_of_index
from tiny_analyzers import TinyModules, label_of

SCORE = make_score(3)
NAN = float("nan")
INPUT = typed(score_to_proto(SCORE))
LABELS = labels_to_proto([label_of(0, 5_000, 12_345), label_of(5_000, 9_000, 54_321)], SCORE)


async def test_each_note_gets_the_probability_that_a_chord_begins(serve: Any) -> None:
    async with serve() as stub:
        found = await stub.FindChordChanges(harmony_pb2.FindChordChangesRequest(score=INPUT), timeout=60)
    assert list(found.probabilities) == [midi % 10 / 10 for midi in SCORE.midi]
    assert list(found.onset_ticks) == SCORE.onset.tolist() and found.model.name == "second"


async def test_each_span_gets_its_likeliest_chords_first(serve: Any) -> None:
    spans = [harmony_pb2.TickSpan(start_ticks=0, end_ticks=400), harmony_pb2.TickSpan(start_ticks=10, end_ticks=20)]
    request = harmony_pb2.ClassifyChordsRequest(score=INPUT, spans=spans)
    async with serve() as stub:
        found = await stub.ClassifyChords(request, timeout=60)
        request.candidate_count = 2
        fewer = await stub.ClassifyChords(request, timeout=60)
    for span, candidates in zip(spans, found.spans, strict=True):
        place = (span.start_ticks + span.end_ticks + SCORE.num_notes) % NUM_CHORDS
        best = candidates.chords[0]
        root, quality, inversion = chord_of_index(place)
        assert (best.root_fifths, best.inversion) == (root, inversion) and best.probability == 0.5
        assert common_pb2.ChordQuality.Name(best.quality) == f"CHORD_QUALITY_{quality.name}"
        assert len(candidates.chords) == 5 and candidates.chords[1].probability < 0.5
    assert [len(candidates.chords) for candidates in fewer.spans] == [2, 2]


async def test_many_spans_take_many_turns_and_come_back_in_order(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    ask = TinyModules.classify_chords

    def counted(self: TinyModules, score: Any, spans: Any) -> Any:
        turns.append(len(spans))
        return ask(self, score, spans)

    monkeypatch.setattr(TinyModules, "classify_chords", counted)
    spans = [harmony_pb2.TickSpan(start_ticks=index, end_ticks=2 * index + 1) for index in range(100)]
    request = harmony_pb2.ClassifyChordsRequest(score=INPUT, spans=spans, candidate_count=1)
    async with serve() as stub:
        found = await stub.ClassifyChords(request, timeout=60)
    assert turns == [32, 32, 32, 4]
    places = [(3 * index + 1 + SCORE.num_notes) % NUM_CHORDS for index in range(100)]
    roots = [each.chords[0].root_fifths for each in found.spans]
    assert roots == [chord_of_index(place)[0] for place in places]


async def test_a_module_that_does_not_know_a_chord_says_so_by_field(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: TinyModules, score: Any, labels: Any) -> Any:
        raise ValueError("labels[1].root: expected at most 14 fifths from the tonic, got B##.")

    monkeypatch.setattr(TinyModules, "next_chords", refuses)
    async with serve() as stub:
        error = await failure(
            stub.PredictChord(harmony_pb2.PredictChordRequest(score=INPUT, labels=LABELS), timeout=60)
        )
        one = harmony_pb2.PredictKeyRequest(score=INPUT, labels=LABELS[:1])
        too_few = violation(await failure(stub.PredictKey(one, timeout=60)))
    found, description = violation(error)
    assert found == "labels" and "B##" in description and too_few[0] == "labels" and "2 to 1000" in too_few[1]


async def test_chords_so_far_give_the_next_one_the_key_changes_and_the_next_key(serve: Any) -> None:
    async with serve() as stub:
        chord = await stub.PredictChord(harmony_pb2.PredictChordRequest(score=INPUT, labels=LABELS), timeout=60)
        one = await stub.PredictChord(harmony_pb2.PredictChordRequest(score=INPUT, labels=LABELS[:1]), timeout=60)
        changes = await stub.FindKeyChanges(harmony_pb2.FindKeyChangesRequest(score=INPUT, labels=LABELS), timeout=60)
        keys = await stub.PredictKey(
            harmony_pb2.PredictKeyRequest(score=INPUT, labels=LABELS, candidate_count=70), timeout=60
        )
    assert chord.next.chords[0].root_fifths == chord_of_index((LABELS[1].root_fifths + 103) % NUM_CHORDS)[0]
    assert chord.next != one.next
    assert list(changes.probabilities) == [label.inversion / 4 for label in LABELS]
    assert keys.keys[0].key == LABELS[1].key and len(keys.keys) == 70
    assert sum(each.probability for each in keys.keys) == pytest.approx(1)


async def test_a_key_gives_the_first_chord(serve: Any) -> None:
    key = common_pb2.HarmonyKey(tonic_fifths=2, is_minor=True)
    async with serve() as stub:
        found = await stub.PredictFirstChord(harmony_pb2.PredictFirstChordRequest(key=key), timeout=60)
        default = await stub.PredictFirstChord(harmony_pb2.PredictFirstChordRequest(), timeout=60)
    for reply, index in ((found, Key(2, True).index), (default, Key(0).index)):
        assert reply.first.chords[0].root_fifths == chord_of_index(index)[0] and reply.model.name == "second"


def changed(**fields: Any) -> common_pb2.HarmonyLabel:
    label = common_pb2.HarmonyLabel()
    label.CopyFrom(LABELS[0])
    for name, value in fields.items():
        if isinstance(value, common_pb2.HarmonyKey):
            getattr(label, name).CopyFrom(value)
        else:
            setattr(label, name, value)
    return label


async def test_wrong_questions_are_refused_by_field(serve: Any) -> None:
    far = common_pb2.HarmonyKey(tonic_fifths=20)
    span = harmony_pb2.TickSpan
    classify, predict, keys = (
        harmony_pb2.ClassifyChordsRequest, harmony_pb2.PredictChordRequest, harmony_pb2.PredictKeyRequest
    )  # fmt: skip
    async with serve() as stub:
        wrong = [
            (stub.ClassifyChords, classify(score=INPUT), "spans"),
            (stub.ClassifyChords, classify(score=INPUT, spans=[span(end_ticks=1)] * 1001), "spans"),
            (stub.ClassifyChords, classify(score=INPUT, spans=[span(end_ticks=5), span()]), "spans[1]"),
            (stub.ClassifyChords, classify(score=INPUT, spans=[span(start_ticks=-1, end_ticks=5)]), "spans[0]"),
            (stub.ClassifyChords, classify(score=INPUT, spans=[span(start_ticks=2**40, end_ticks=2**41)]), "spans[0]"),
            (
                stub.ClassifyChords, classify(score=INPUT, spans=[span(end_ticks=5)], candidate_count=101),
                "candidate_count",
            ),
            (stub.PredictChord, predict(score=INPUT), "labels"),
            (stub.PredictChord, predict(score=INPUT, labels=LABELS[::-1]), "labels[1].start_ticks"),
            (stub.PredictChord, predict(score=INPUT, labels=[changed(quality=0)]), "labels[0].quality"),
            (stub.PredictChord, predict(score=INPUT, labels=[changed(inversion=4)]), "labels[0].inversion"),
            (stub.PredictChord, predict(score=INPUT, labels=[changed(root_fifths=20)]), "labels[0].root_fifths"),
            (stub.PredictChord, predict(score=INPUT, labels=[changed(end_ticks=0)]), "labels[0].end_ticks"),
            (stub.PredictChord, predict(score=INPUT, labels=[changed(end_ticks=2**40)]), "labels[0].end_ticks"),
            (stub.PredictChord, predict(score=INPUT, labels=[changed(numeral="x" * 65)]), "labels[0].numeral"),
            (stub.PredictChord, predict(score=INPUT, labels=[changed(confidence=NAN)]), "labels[0].confidence"),
            (stub.PredictChord, predict(score=INPUT, labels=[changed(key=far)]), "labels[0].key.tonic_fifths"),
            (stub.PredictKey, keys(score=INPUT, labels=LABELS, candidate_count=71), "candidate_count"),
            (stub.FindKeyChanges, harmony_pb2.FindKeyChangesRequest(labels=LABELS), "score"),
            (stub.PredictFirstChord, harmony_pb2.PredictFirstChordRequest(key=far), "key.tonic_fifths"),
        ]  # fmt: skip
        for method, request, field in wrong:
            found, description = violation(await failure(method(request, timeout=60)))
            assert found == field and description, (found, field)
        error = await failure(stub.PredictKey(keys(score=INPUT, labels=LABELS, model="first"), timeout=60))
        assert error.code() is grpc.StatusCode.NOT_FOUND and "second" in error.details()
