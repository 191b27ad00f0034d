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
import soundfile
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


@pytest.fixture
def recordings(tmp_path: Path) -> transcription.Recordings:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(2):
        tone = np.sin(2 * np.pi * 440 * (number + 1) * np.arange(16_000 * 20) / 16_000)
        soundfile.write(folder / f"{number}.flac", 0.5 * tone, 16_000)
    return transcription.Recordings(folder)


def test_parts_are_as_long_as_they_say_and_each_of_another_recording(
    recordings: transcription.Recordings, tmp_path: Path
) -> None:
    parts = [recordings.part(number, 3.0) for number in range(3)]
    assert [part.size for part in parts] == [3 * SAMPLE_RATE_HZ] * 3
    found_hz = [np.abs(np.fft.rfft(part)).argmax() / 3.0 for part in parts]
    assert found_hz == pytest.approx([440, 880, 440], abs=1)
    with pytest.raises(ValueError, match=r"1\.flac: expected 21 s or more"):
        recordings.part(1, 11.0)
    with pytest.raises(ValueError, match=r"expected recordings"):
        transcription.Recordings(tmp_path)


def test_one_stream_several_and_the_peers_take_turns_after_a_warm_up(
    recordings: transcription.Recordings, tmp_path: Path
) -> None:
    client, python = FakeClient(), peer(tmp_path)
    peers = ["--peer", f"basic-pitch={python}", "--peer", f"transkun={python}"]
    args = transcription.parse([*peers, "--limit", "2", "--clip-s", "4"])
    speeds = asyncio.run(transcription.rounds(cast(StrettoClient, client), args, recordings, tmp_path))
    assert client.heard_s == [10.0, *[4.0] * 10]
    assert {name: len(values) for name, values in speeds.items()} == dict.fromkeys(
        (OURS, TOGETHER, "basic-pitch", "transkun"), 2
    )
    assert speeds["basic-pitch"] == [2.0, 2.0], "four seconds in two, without the warm-up's"
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    assert [[name, *(Path(path).stem for path in paths)] for name, *paths in asked] == [
        [name, f"warm-up-{number}", f"clip-{number}"] for number in (1, 2) for name in ("basic-pitch", "transkun")
    ]


def test_memory_is_read_after_a_sixth_and_at_the_end() -> None:
    client, reads = FakeClient(), list[str]()

    def memory_bytes(field: str) -> int:
        reads.append(field)
        return 100 * len(reads)

    server = cast(OwnServer, SimpleNamespace(client=client, memory_bytes=memory_bytes))
    found = asyncio.run(transcription.memory_over(server, np.zeros(60 * SAMPLE_RATE_HZ, np.float32), 120.0))
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
    with pytest.raises(SystemExit):
        transcription.parse(["--peer", "transkun=a", "--peer", "transkun=b"])
    assert "each NAME once" in capsys.readouterr().err
