"""The speed of transcription is measured with the peer in turn, and only what the runs say is claimed."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from serving import OwnServer
from speed import transcription
from speed.transcription import OURS, SAMPLE_RATE_HZ, TOGETHER
from stretto_client import StrettoClient, Waveform


class FakeClient:
    """Is done with every message at once, and remembers how much it heard in each stream."""

    def __init__(self) -> None:
        self.heard_s: list[float] = []

    async def transcribe_audio(self, audio: Any, *, timeout_s: float) -> AsyncIterator[Any]:
        if isinstance(audio, Waveform):
            self.heard_s.append(audio.duration_s)
            await asyncio.sleep(0.01)
            yield SimpleNamespace(complete_s=audio.duration_s)
            return
        heard_s = 0.0
        async for part in audio:
            heard_s += part.duration_s
            yield SimpleNamespace(complete_s=heard_s)
        self.heard_s.append(heard_s)


def peer(folder: Path) -> str:
    """A program that writes what the peer's would, and notes what it was asked."""
    path = folder / "python"
    path.write_text(
        f"#!{sys.executable}\nimport json, pathlib, sys\n"
        "out = pathlib.Path(sys.argv[3]); out.mkdir(exist_ok=True)\n"
        "for file in sys.argv[4:]:\n"
        "    (out / f'{pathlib.Path(file).stem}.json').write_text(json.dumps({'cpu_s': 1, 'wall_s': 2.0}))\n"
        f"log = open({str(folder / 'asked')!r}, 'a')\n"
        "print(*sys.argv[2:3], *sys.argv[4:], file=log)\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_clips_are_as_long_as_they_say_and_each_is_another() -> None:
    first, second = transcription.tones(3.0, 1), transcription.tones(3.0, 2)
    assert first.size == second.size == 3 * SAMPLE_RATE_HZ and not np.array_equal(first, second)
    assert 0.01 < float(np.abs(first).max()) < 4


def test_one_stream_several_and_the_peer_take_turns_after_a_warm_up(tmp_path: Path) -> None:
    client = FakeClient()
    args = transcription.parse(["--peer", f"basic-pitch={peer(tmp_path)}", "--limit", "2", "--clip-s", "4"])
    speeds = asyncio.run(transcription.rounds(cast(StrettoClient, client), args, tmp_path))
    assert client.heard_s == [10.0, *[4.0] * 10]
    assert {name: len(values) for name, values in speeds.items()} == {OURS: 2, TOGETHER: 2, "basic-pitch": 2}
    assert speeds["basic-pitch"] == [2.0, 2.0], "four seconds in two, without the warm-up's"
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    assert [[name, *(Path(path).stem for path in paths)] for name, *paths in asked] == [
        ["basic-pitch", "warm-up-1", "clip-1"],
        ["basic-pitch", "warm-up-2", "clip-2"],
    ]


def test_memory_is_read_after_a_sixth_and_at_the_end() -> None:
    client, reads = FakeClient(), list[str]()

    def memory_bytes(field: str) -> int:
        reads.append(field)
        return 100 * len(reads)

    server = cast(OwnServer, SimpleNamespace(client=client, memory_bytes=memory_bytes))
    found = asyncio.run(transcription.memory_over(server, 120.0))
    assert client.heard_s == pytest.approx([120.0]) and reads == ["VmRSS", "VmRSS"]
    assert (found["early_bytes"], found["late_bytes"]) == (100, 200) and found["wall_s"] > 0


@pytest.mark.parametrize(
    ("ours", "late", "peers", "holds"),
    [
        (31.0, 104, 30.0, (True, True, True)),
        (29.0, 106, 30.0, (False, False, False)),
        (31.0, 100, 31.0, (True, True, False)),
    ],
)
def test_claims_follow_the_runs(ours: float, late: int, peers: float, holds: tuple[bool, ...]) -> None:
    speeds = {OURS: [ours] * 3, TOGETHER: [ours] * 3, "basic-pitch": [peers] * 3}
    memory = {"early_bytes": 100.0, "late_bytes": float(late), "wall_s": 60.0}
    made = transcription.outcome(speeds, memory, 3600.0, "data", ["model@0"])
    assert made.passed == dict(
        zip(("30_times_real_time", "memory_flat", "faster_than_basic-pitch"), holds, strict=True)
    )
    assert json.loads(json.dumps(made.numbers))["memory"]["audio_s"] == 3600.0
    rows = {row[0]: row[1:] for table in made.tables for row in table.rows}
    assert rows["server, resident"][2] == 60.0


def test_a_peer_without_a_program_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        transcription.parse(["--peer", "basic-pitch"])
    assert "NAME=PYTHON" in capsys.readouterr().err
