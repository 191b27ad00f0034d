"""How long an analysis of a sonata movement takes over a real channel, beside music21's, and how long an edit of it.

The server is `stretto serve` in a process of its own. The movement is the longest of
Mozart's sonatas that When in Rome has with its score (`harmony/when_in_rome.tar.xz`); its minutes are those of 120
quarters a minute, without repeats. music21, in this process, reads the same file, names a key for every measure from
the eight measures around it and a Roman numeral for every chord of the reduction to chords. An edit changes a note of
a measure in the middle; the same edit is made in the first third of the movement alone.

    python evals/speed/harmony.py --data ../shared/data [--limit 5] [--no-peer]

Cost: about two minutes; music21 takes most of them.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import music21
import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Row, Table, need, parser, publish
from serving import own_server
from stretto_client import HarmonyAnalysis, NotatedScore, ScoreFile, ScoreFormat, StrettoClient
from timing import spread

TICKS_PER_MINUTE = 120 * 10_080
TARGETS_S = {"chordgnn": 1.0, "modular": 10.0}
PER_MINUTES = 10.0
DEFAULT_ROUNDS = 5
MAX_EDIT_RATIO = 1.5
PEER_WINDOW = 8
SONATAS = "/Piano_Sonatas/Mozart"

PROTOCOL = (
    "One server process, warm, over gRPC on the loopback; medians over rounds, with 95 % bootstrap intervals. Reading "
    "the file is timed apart. Seconds for ten minutes are those of the movement, scaled by its length. music21 runs "
    "once, in this process: key of every measure from eight measures around it, numeral of every chord of chordify."
)


def longest_sonata_movement(archive: Path) -> tuple[str, bytes]:
    """The name and the file of the largest score of Mozart's sonatas."""
    with tarfile.open(need(archive, "When in Rome")) as tar:
        names = [member for member in tar.getmembers() if SONATAS in member.name and member.name.endswith("score.mxl")]
        chosen = max(names, key=lambda member: (member.size, member.name))
        file = tar.extractfile(chosen)
        assert file is not None, chosen.name
        return "/".join(Path(chosen.name).parts[-4:-1]), file.read()


def edited(score: NotatedScore, measure: int) -> NotatedScore:
    """The score with the first note of a measure an octave higher, or lower at the top."""
    at = int(np.searchsorted(score.onset_ticks, score.measure_start(measure)))
    pitch = score.pitch_midi.copy()
    pitch[at] += 12 if pitch[at] < 100 else -12
    order = np.lexsort((pitch, score.onset_ticks))
    columns = {name: getattr(score, name)[order] for name in ("duration_ticks", "spelling_fifths")}
    columns |= {name: getattr(score, name)[order] for name in ("staff_index", "voice_index")}
    return dataclasses.replace(score, pitch_midi=pitch[order], onset_ticks=score.onset_ticks[order], **columns)


async def timed(work: Callable[[], Awaitable[Any]], rounds: int) -> NDArray[np.float64]:
    """Seconds [rounds] of some work, after one for warmth."""
    await work()
    taken_s = []
    for _ in range(rounds):
        start = time.perf_counter()
        await work()
        taken_s.append(time.perf_counter() - start)
    return np.array(taken_s)


async def analyzer_times(
    client: StrettoClient, score: NotatedScore, analyzer: str, rounds: int
) -> dict[str, NDArray[np.float64]]:
    """Seconds of a whole analysis, of its first labels, and of an edit here and in a third of the piece."""

    async def whole() -> HarmonyAnalysis:
        return await HarmonyAnalysis.collect(client.analyze_harmony(score, analyzer=analyzer))

    async def first() -> None:
        events = client.analyze_harmony(score, analyzer=analyzer)
        await anext(events)  # the outline
        await anext(events)
        await events.aclose()

    third = score.measures(0, score.num_measures // 3)
    taken = {"whole": await timed(whole, rounds), "first labels": await timed(first, rounds)}
    for name, piece in (("an edit", score), ("an edit in a third", third)):
        before = await HarmonyAnalysis.collect(client.analyze_harmony(piece, analyzer=analyzer))
        measure = third.num_measures // 2
        after = edited(piece, measure)

        async def again(
            after: NotatedScore = after, before: HarmonyAnalysis = before, measure: int = measure
        ) -> HarmonyAnalysis:
            return await client.reanalyze_harmony(after, before, first_edited=measure)

        taken[name] = await timed(again, rounds)
    return taken


def music21_s(data: bytes) -> dict[str, float]:
    """Seconds that music21 takes to read a compressed MusicXML file, and to name keys and numerals."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "score.mxl"
        path.write_bytes(data)
        start = time.perf_counter()
        score = music21.converter.parse(path, forceSource=True)
    read_s = time.perf_counter() - start
    reduction = score.chordify()
    measures = list(reduction.getElementsByClass("Measure"))
    num_named = 0
    for index, measure in enumerate(measures):
        around = music21.stream.Stream(measures[max(0, index - PEER_WINDOW // 2) : index + PEER_WINDOW // 2])
        key = around.flatten().analyze("key")
        for chord in measure.recurse().getElementsByClass("Chord"):
            num_named += bool(music21.roman.romanNumeralFromChord(chord, key).figure)
    return {"read_s": read_s, "analyze_s": time.perf_counter() - start - read_s, "numerals": num_named}


def outcome(
    name: str, score: NotatedScore, taken: Mapping[str, Mapping[str, NDArray[np.float64]]], peer: Mapping[str, float]
) -> Outcome:
    """Tables, numbers and claims."""
    minutes = score.measure_start(score.num_measures) / TICKS_PER_MINUTE
    rows: list[Row] = [("", "seconds", f"for {PER_MINUTES:g} minutes", "low", "high")]
    numbers: dict[str, Any] = {"minutes": minutes, "notes": len(score.onset_ticks), "measures": score.num_measures}
    passed = {}
    for analyzer, times in taken.items():
        for what, seconds in times.items():
            found = spread(seconds)
            scaled = found.median * PER_MINUTES / minutes if what == "whole" else None
            rows.append((f"{analyzer}, {what}", found.median, "" if scaled is None else scaled, found.low, found.high))
            numbers[f"{analyzer} {what}"] = {"seconds": list(seconds), "for_ten_minutes_s": scaled}
            if scaled is not None and analyzer in TARGETS_S:
                target_s = TARGETS_S[analyzer]
                passed[f"{analyzer} reads ten minutes in less than {target_s:g} s"] = scaled < target_s
        ratio = float(np.median(times["an edit"]) / np.median(times["an edit in a third"]))
        numbers[f"{analyzer} edit ratio"] = ratio
        passed[f"an edit costs {analyzer} the same in a piece three times as long"] = ratio < MAX_EDIT_RATIO
        if peer:
            numbers[f"{analyzer} music21 ratio"] = peer["analyze_s"] / float(np.median(times["whole"]))
            rows.append((f"music21 takes, times {analyzer}", numbers[f"{analyzer} music21 ratio"], "", "", ""))
    if peer:
        rows.append(
            ("music21, keys and numerals", peer["analyze_s"], peer["analyze_s"] * PER_MINUTES / minutes, "", "")
        )
        rows.append(("music21, reading the file", peer["read_s"], "", "", ""))
    numbers["music21"] = dict(peer)
    data = f"{name}: {numbers['notes']} notes, {numbers['measures']} measures, {minutes:.1f} minutes at 120 quarters"
    return Outcome("harmony_speed", PROTOCOL, data, [Table("Seconds", rows)], numbers, passed)


async def measured(args: argparse.Namespace, name: str, data: bytes) -> Outcome:
    """Everything of one movement."""
    rounds = args.limit or DEFAULT_ROUNDS
    file = ScoreFile(data, ScoreFormat.MUSICXML)
    async with own_server() as server:
        start = time.perf_counter()
        score = await server.client.read_score(file)
        read_s = time.perf_counter() - start
        taken = {each: await analyzer_times(server.client, score, each, rounds) for each in TARGETS_S}
    peer = {} if args.no_peer else music21_s(data)
    found = outcome(name, score, taken, peer)
    return dataclasses.replace(found, numbers={**found.numbers, "read_s": read_s})


def main() -> None:
    """Parse, measure, publish."""
    options = parser(__doc__)
    options.add_argument("--no-peer", action="store_true", help="leave music21 out")
    args = options.parse_args()
    name, data = longest_sonata_movement(args.data / "harmony" / "when_in_rome.tar.xz")
    publish(asyncio.run(measured(args, name, data)), args)


if __name__ == "__main__":
    main()
