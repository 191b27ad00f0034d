"""Files of scores over a real channel: what is read, what is refused, and that nothing makes the server fail."""

from __future__ import annotations

import asyncio
import io
import random
import threading
import zipfile
from typing import Any

import grpc
import pytest
from harmony_calls import consume, failure, file_of, make_score, musicxml_of, violation
from stretto.common.v1 import harmony_pb2 as common_pb2
from stretto.harmony.v1 import harmony_pb2
from stretto_harmony.engine import ScoreFile, ScoreFiles, ScoreFormat
from stretto_harmony.engine.files import MAX_FILE_BYTES
from stretto_shared.errors import InvalidInput, Overloaded

KERN = b"**kern\n*M3/4\n*k[]\n=1\n4c\n4e\n4g\n=2\n2.cc\n==\n*-\n"
MUSICXML, HUMDRUM = harmony_pb2.SCORE_FORMAT_MUSICXML, harmony_pb2.SCORE_FORMAT_HUMDRUM


def packed(data: bytes, name: str = "score.xml", container: bytes | None = None) -> bytes:
    target = io.BytesIO()
    listing = f'<container><rootfiles><rootfile full-path="{name}"/></rootfiles></container>'.encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", container or listing)
        archive.writestr(name, data)
    return target.getvalue()


async def test_files_are_read_as_the_scores_that_they_hold(serve: Any) -> None:
    score = make_score(5, pickup=1)
    plain = musicxml_of(score)
    async with serve() as stub:
        read = [
            (await stub.ReadScore(harmony_pb2.ReadScoreRequest(file=file_of(data, number).file), timeout=60)).score
            for data, number in ((plain, MUSICXML), (packed(plain), MUSICXML), (KERN, HUMDRUM))
        ]
    assert read[0] == read[1] and list(read[0].pitch_midi) == score.midi.tolist()
    assert list(read[0].onset_ticks) == score.onset.tolist() and len(read[0].measure_length_ticks) == 5
    assert list(read[0].spelling_fifths) == score.fifths.tolist()
    assert list(read[2].pitch_midi) == [60, 64, 67, 72] and list(read[2].measure_length_ticks) == [30_240] * 2


async def test_what_is_no_score_is_refused_by_field_and_the_next_works(serve: Any) -> None:
    huge = packed(b"<score-partwise>" + bytes(70_000_000))
    wrong = [
        (file_of(b"").file, "file.data"),
        (file_of(b"<score-partwise/>", 0).file, "file.format"),
        (file_of(b"<score-partwise/>", 77).file, "file.format"),
        (file_of(b"no xml").file, "file.data"),
        (file_of(b"<html/>").file, "file.data"),
        (file_of(b"PK\x03\x04 broken").file, "file.data"),
        (file_of(huge).file, "file.data"),
        (file_of(packed(b"<score-partwise/>", container=b"<x/>")).file, "file.data"),
        (file_of(bytes(MAX_FILE_BYTES + 1), HUMDRUM).file, "file.data"),
        (file_of(b"not kern", HUMDRUM).file, "file.data"),
        (file_of(b"no midi", harmony_pb2.SCORE_FORMAT_MIDI).file, "file.data"),
    ]
    async with serve() as stub:
        for file, field in wrong:
            request = harmony_pb2.ReadScoreRequest(file=file)
            found, description = violation(await failure(stub.ReadScore(request, timeout=60)))
            assert found == field and description, (found, description)
        good = harmony_pb2.ReadScoreRequest(file=file_of(KERN, HUMDRUM).file)
        assert (await stub.ReadScore(good, timeout=60)).score.onset_ticks


async def test_a_score_that_would_unfold_is_refused_wherever_it_is_and_the_next_works(serve: Any) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    subset = f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]>'.encode()
    plain = musicxml_of(make_score(2))
    bomb = subset + plain[plain.index(b"<score-partwise") :].replace(b"</part>", b"<x>&l9;</x></part>")
    container = subset + b"<container>&l9;</container>"
    async with serve() as stub:
        for data in (bomb, packed(bomb), packed(plain, container=container)):
            file = file_of(data)
            calls = {
                "file.data": stub.ReadScore(harmony_pb2.ReadScoreRequest(file=file.file), timeout=60),
                "score.file.data": consume(
                    stub.AnalyzeHarmony(harmony_pb2.AnalyzeHarmonyRequest(score=file), timeout=60)
                ),
            }
            for field, call in calls.items():
                found, description = violation(await failure(call))
                assert found == field and "entities" in description, (found, description)
        doctype = b'<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 3.1 Partwise//EN" "partwise.dtd">'
        usual = harmony_pb2.ReadScoreRequest(file=file_of(doctype + plain[plain.index(b"<score-partwise") :]).file)
        assert (await stub.ReadScore(usual, timeout=60)).score.onset_ticks


def mangled(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some of them changed, left out, doubled or cut off."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(content))
        match rng.randrange(4):
            case 0:
                content[place] = rng.randrange(256)
            case 1:
                del content[place : place + rng.randint(1, 20)]
            case 2:
                content[place:place] = content[place : place + rng.randint(1, 20)]
            case 3:
                content[place : place + 4] = str(rng.choice([-1, 0, 10**9, 10**30, 0.5])).encode()
        if not content:
            break
    return bytes(content) or b"x"


async def test_mangled_files_never_make_the_server_fail(serve: Any) -> None:
    rng, codes = random.Random(7), set()
    sources = [(musicxml_of(make_score(3)), MUSICXML), (packed(musicxml_of(make_score(2))), MUSICXML), (KERN, HUMDRUM)]
    labels = [common_pb2.HarmonyLabel(end_ticks=5_000, quality=1, numeral="I", confidence=1.0)]
    async with serve() as stub:
        for index in range(150):
            data, number = sources[index % 3]
            source = file_of(mangled(data, rng), number)
            analyze = harmony_pb2.AnalyzeHarmonyRequest(score=source)
            write = harmony_pb2.WriteHarmonyRequest(score=source, labels=labels, format=4)
            try:
                if index // 3 % 2:
                    await stub.WriteHarmony(write, timeout=60)
                else:
                    await consume(stub.AnalyzeHarmony(analyze, timeout=60))
                codes.add("OK")
            except grpc.aio.AioRpcError as error:
                codes.add(error.code().name)
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (error, source)
    assert codes == {"OK", "INVALID_ARGUMENT"}


async def test_who_would_wait_behind_too_many_is_told_when_to_come_back_and_who_gives_up_is_never_begun() -> None:
    gate, begun = threading.Event(), []

    def slow(data: bytes, suffix: str) -> Any:
        begun.append(data)
        gate.wait(60)
        return make_score(1)

    files = ScoreFiles(slow, {}, max_waiting=1)
    first = asyncio.create_task(files.read(ScoreFile(b"first", ScoreFormat.HUMDRUM)))
    async with asyncio.timeout(60):
        while not begun:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    second = asyncio.create_task(files.read(ScoreFile(b"second", ScoreFormat.HUMDRUM)))
    await asyncio.sleep(0)
    assert files.count_waiting() == 1
    with pytest.raises(Overloaded) as caught:
        await files.read(ScoreFile(b"third", ScoreFormat.HUMDRUM))
    assert caught.value.retry_after_s > 0
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.set()
    assert (await first).num_measures == 1
    await files.stop()
    assert begun == [b"first"]


async def test_an_error_of_a_reader_has_the_field_of_the_request() -> None:
    def refuses(data: bytes, suffix: str) -> Any:
        raise InvalidInput("score.onset[3]", "expected a tick within a measure, got 9.")

    files = ScoreFiles(refuses, {})
    with pytest.raises(InvalidInput, match=r"^score\.file\.data: .*score\.onset\[3\]"):
        await files.read(ScoreFile(b"x", ScoreFormat.HUMDRUM))
    await files.stop()
