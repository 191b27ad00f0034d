"""EngraveScore over a real channel, with a made-up engraver."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from stretto.common.v1 import score_pb2
from stretto.transcriber.v1 import transcriber_pb2, transcriber_pb2_grpc
from stretto_shared.errors import Overloaded
from stretto_shared.grpc.convert_score import score_from_proto
from stretto_shared.score import Score, TimeSignature
from stretto_transcriber import loading
from stretto_transcriber.engine import Engraving
from transcriber_calls import failure, until, violation

Request = transcriber_pb2.EngraveScoreRequest


def performance(num_notes: int = 3, **changes: Any) -> score_pb2.Score:
    columns: dict[str, Any] = {
        "onset_s": [0.5 * index for index in range(num_notes)],
        "duration_s": [0.4] * num_notes,
        "pitch_midi": [60] * num_notes,
        "velocity": [64] * num_notes,
        "part_index": [0] * num_notes,
        "parts": [score_pb2.Part(name="piano")],
        "beat_s": [0.0, 0.5, 1.0],
        "beat_in_bar": [1, 2, 3],
    }
    return score_pb2.Score(**columns | changes)


def beats(count: int, bar: int = 4) -> dict[str, Any]:
    """So many beats, two a second; places in a bar go up to 64, as the wire has it."""
    return {
        "beat_s": [0.5 * index for index in range(count)],
        "beat_in_bar": [min(index % bar + 1, 64) for index in range(count)],
    }


def made_up(performance: Score, title: str) -> tuple[Score, bytes]:
    """The same notes in three four, and the title as MusicXML."""
    score = Score(
        performance.onset_s,
        performance.duration_s,
        performance.pitch_midi,
        performance.velocity,
        performance.part_index,
        performance.parts,
        time_signatures=(TimeSignature(0.0, 3, 4),),
    )
    return score, f"<{title}/>".encode()


async def test_a_performance_comes_back_as_score_and_musicxml(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def watched(performance: Score, title: str) -> tuple[Score, bytes]:
        threads.append(threading.current_thread().name)
        return made_up(performance, title)

    monkeypatch.setattr(loading, "engrave_score", watched)
    async with serve() as channel:
        stub = transcriber_pb2_grpc.TranscriberServiceStub(channel)
        engraved = await stub.EngraveScore(Request(score=performance(), title="waltz"), timeout=60)
    assert engraved.musicxml == b"<waltz/>" and engraved.score.time_signatures[0].numerator == 3
    assert list(engraved.score.onset_s) == [0.0, 0.5, 1.0]
    assert threads == ["model-engraving"]


async def test_what_cannot_be_engraved_is_refused_by_field_and_the_next_one_works(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "engrave_score", made_up)
    invalid = [
        (Request(), "score.beat_s", "got 0"),
        (Request(score=performance(beat_s=[0.0], beat_in_bar=[1])), "score.beat_s", "got 1"),
        (Request(score=performance(beat_s=[0.0, 0.0, 1.0])), "score.beat_s[1]", "above the beat before"),
        (Request(score=performance(pitch_midi=[60, 61, 128])), "score.pitch_midi[2]", "128"),
        (Request(score=performance(20_001)), "score.onset_s", "at most 20000, got 20001"),
        (Request(score=performance(**beats(10_001))), "score.beat_s", "at most 10000, got 10001. Send the music in"),
        (Request(score=performance(), title="x" * 201), "title", "at most 200 characters, got 201"),
    ]
    async with serve() as channel:
        stub = transcriber_pb2_grpc.TranscriberServiceStub(channel)
        for request, field, said in invalid:
            found, description = violation(await failure(stub.EngraveScore(request, timeout=60)))
            assert found == field and said in description
        for score in (performance(), performance(**beats(10_000))):
            assert (await stub.EngraveScore(Request(score=score), timeout=60)).musicxml


async def test_what_no_piano_score_can_be_made_of_is_refused_by_a_field_that_was_sent(serve: Any) -> None:
    in_three = [0.5 * third / 3 for third in range(180)]
    compound = performance(len(in_three), onset_s=in_three, **beats(61, 30))
    invalid = [
        (performance(parts=[score_pb2.Part(is_drum=True)]), "score.parts[0]", "got drums"),
        (performance(onset_s=[0.0, 0.5, 34.0]), "score.beat_s", "within 64 of every note"),
        (performance(**beats(131, 65)), "score.beat_in_bar[0]", "at most 64 beats, got 65. Divide the bar."),
        (compound, "score.beat_in_bar[0]", "at most 21 beats in 3 parts each, got 30. Divide the bar."),
    ]
    async with serve() as channel:
        stub = transcriber_pb2_grpc.TranscriberServiceStub(channel)
        for score, field, said in invalid:
            found, description = violation(await failure(stub.EngraveScore(Request(score=score), timeout=60)))
            assert found == field and said in description, (found, description)


async def test_who_would_wait_behind_too_many_is_told_when_to_come_back_and_who_gives_up_is_never_begun() -> None:
    gate, begun = threading.Event(), []

    def slow(performance: Score, title: str) -> tuple[Score, bytes]:
        begun.append(title)
        gate.wait(60)
        return made_up(performance, title)

    score = score_from_proto(performance())
    engraving = Engraving(slow, max_waiting=1)
    first = asyncio.create_task(engraving.engrave(score, "first"))
    await until(lambda: bool(begun))
    second = asyncio.create_task(engraving.engrave(score, "second"))
    await asyncio.sleep(0)
    assert engraving.count_waiting() == 1
    with pytest.raises(Overloaded) as caught:
        await engraving.engrave(score, "third")
    assert caught.value.retry_after_s > 0
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.set()
    assert (await first).musicxml == b"<first/>"
    await engraving.stop()
    assert begun == ["first"]
