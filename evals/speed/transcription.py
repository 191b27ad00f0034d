"""How fast TranscribeAudio is over a real channel, beside other transcribers, and whether an hour takes more memory.

The server is `stretto serve` in a process of its own. Parts of the Disklavier recordings of MAPS dev, another in each
round, are transcribed by one stream, by several at once, and by the peers, which take turns. Then an hour, a minute of
them again and again, goes through one stream, and the server's resident memory is
read after ten minutes and at the end.

    python evals/speed/transcription.py [--peer basic-pitch=VENV/bin/python] [--peer ...] [--limit 5] [--hour-s 3600]

Each peer runs in the environment named (`evals/peers/piano_notes.py` says what it must have), with its own default
threads, and is timed from audio file to notes after a warm-up. `--quick` makes one short round and ten minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import ROOT, Outcome, Row, Table, need, parser, publish
from serving import OwnServer, own_server
from stretto_client import StrettoClient, Waveform, write_audio
from timing import Spread, spread

PEER_PROGRAM = ROOT / "evals" / "peers" / "piano_notes.py"
SAMPLE_RATE_HZ = 44_100
CLIP_S, QUICK_CLIP_S, WARM_UP_S = 60.0, 20.0, 10.0
MINUTE_S = 60.0
FIRST_S = 10.0  # of a recording: it may begin with silence
NUM_STREAMS = 4
DEFAULT_ROUNDS = 3
HOUR_S, QUICK_HOUR_S = 3_600.0, 600.0
EARLY_SHARE = 1 / 6
MIN_SPEED, MAX_GROWTH = 30.0, 1.05
OURS, TOGETHER = "one stream", f"{NUM_STREAMS} streams at once"

PROTOCOL = (
    "One server process, warm, over gRPC on the loopback, 44.1 kHz mono in messages of a second; peers from a WAV "
    "file, each in a process of its own, after a warm-up. All take turns, each clip its own. Speed is seconds of audio "
    "for a second of wall time, medians over the rounds with 95 % bootstrap intervals, the ratio of the same "
    "round. Memory is the server's VmRSS, of all its services, after a sixth of the hour and at its end."
)


class Recordings:
    """Parts of recordings, resampled to the rate at which they are sent.

    Args:
        folder: Of the recordings.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*.opus")) + sorted(folder.glob("*.flac"))
        if not self._paths:
            raise ValueError(f"{folder}: expected recordings, NAME.opus or NAME.flac.")

    def part(self, number: int, duration_s: float) -> NDArray[np.float32]:
        """Part `number` [S]: from a recording of its own, while there are enough, its first seconds left out.

        Raises:
            ValueError: If the recording is too short.
        """
        path = self._paths[number % len(self._paths)]
        samples, rate = soundfile.read(path, dtype="float32")
        first, count = round(FIRST_S * rate), round(duration_s * rate)
        if len(samples) < first + count:
            raise ValueError(f"{path.name}: expected {FIRST_S + duration_s:g} s or more. Ask for shorter parts.")
        resampled = soxr.resample(samples[first : first + count], rate, SAMPLE_RATE_HZ)
        return np.asarray(resampled, np.float32)


async def transcribe(client: StrettoClient, samples: NDArray[np.float32]) -> float:
    """Seconds that a clip takes, from its first message to its last note."""
    start = time.perf_counter()
    async for _ in client.transcribe_audio(Waveform(samples, SAMPLE_RATE_HZ), timeout_s=3_600.0):
        pass
    return time.perf_counter() - start


def ask_peer(python: str, name: str, clips: Sequence[Path], folder: Path) -> float:
    """Wall seconds that the peer takes for the last clip, after the ones before it."""
    subprocess.run([python, str(PEER_PROGRAM), name, str(folder), *map(str, clips)], check=True, capture_output=True)
    return float(json.loads((folder / f"{clips[-1].stem}.json").read_text())["wall_s"])


async def rounds(
    client: StrettoClient, args: argparse.Namespace, recordings: Recordings, folder: Path
) -> dict[str, list[float]]:
    """Seconds of audio for a second of wall time, by who did it, round by round."""
    speeds: dict[str, list[float]] = {OURS: [], TOGETHER: [], **{name: [] for name in args.peers}}
    warm_up = folder / "warm-up.wav"
    write_audio(warm_up, Waveform(recordings.part(0, WARM_UP_S), SAMPLE_RATE_HZ))
    await transcribe(client, recordings.part(0, WARM_UP_S))
    for number in range(1, args.rounds + 1):
        clip = recordings.part(number, args.clip_s)
        speeds[OURS].append(args.clip_s / await transcribe(client, clip))
        start = time.perf_counter()
        await asyncio.gather(*(transcribe(client, clip) for _ in range(NUM_STREAMS)))
        speeds[TOGETHER].append(NUM_STREAMS * args.clip_s / (time.perf_counter() - start))
        wav = folder / f"clip-{number}.wav"
        write_audio(wav, Waveform(clip, SAMPLE_RATE_HZ))
        warm_up = warm_up.rename(folder / f"warm-up-{number}.wav")  # or a peer would pass it over
        for name, python in args.peers.items():
            taken_s = await asyncio.to_thread(ask_peer, python, name, [warm_up, wav], folder / name)
            speeds[name].append(args.clip_s / taken_s)
    return speeds


async def memory_over(server: OwnServer, samples: NDArray[np.float32], duration_s: float) -> dict[str, float]:
    """Resident bytes of the server after a sixth of a long stream and at its end, and how long it took.

    The stream is a minute of samples [S] again and again.
    """
    minute = Waveform(samples, SAMPLE_RATE_HZ)
    found: dict[str, float] = {}

    async def audio() -> AsyncIterator[Waveform]:
        for _ in range(round(duration_s / 60)):
            for second in range(60):
                piece = minute.samples[:, second * SAMPLE_RATE_HZ : (second + 1) * SAMPLE_RATE_HZ]
                yield Waveform(piece, SAMPLE_RATE_HZ)

    start = time.perf_counter()
    async for chunk in server.client.transcribe_audio(audio(), timeout_s=4 * 3_600.0):
        if "early_bytes" not in found and chunk.complete_s >= EARLY_SHARE * duration_s:
            found["early_bytes"] = server.memory_bytes("VmRSS")
    found["late_bytes"] = server.memory_bytes("VmRSS")
    found["wall_s"] = time.perf_counter() - start
    return found


def outcome(
    speeds: Mapping[str, Sequence[float]], memory: Mapping[str, float], hour_s: float, data: str, models: Sequence[str]
) -> Outcome:
    """What the runs say."""
    medians = {name: spread(values) for name, values in speeds.items()}
    rows: list[Row] = [("", "times real time"), *((name, each) for name, each in medians.items())]
    ratios: dict[str, Spread] = {
        name: spread(np.array(speeds[OURS]) / np.array(values))
        for name, values in speeds.items()
        if name not in (OURS, TOGETHER)
    }
    rows += [(f"one stream / {name}", each) for name, each in ratios.items()]
    growth = memory["late_bytes"] / memory["early_bytes"]
    megabytes = [memory[name] / 2**20 for name in ("early_bytes", "late_bytes")]
    early_s = EARLY_SHARE * hour_s
    hour: list[Row] = [
        ("one stream", f"MiB after {early_s:g} s", f"MiB after {hour_s:g} s", "times real time"),
        ("server, resident", *megabytes, hour_s / memory["wall_s"]),
    ]
    numbers: dict[str, Any] = {
        "models": list(models),
        "times_real_time": {name: each.numbers() for name, each in medians.items()},
        "over_peers": {name: each.numbers() for name, each in ratios.items()},
        "memory": dict(memory) | {"growth": growth, "audio_s": hour_s},
    }
    passed = {"30_times_real_time": medians[OURS].median >= MIN_SPEED, "memory_flat": growth <= MAX_GROWTH}
    passed |= {f"faster_than_{name}": each.surely_above(1.0) for name, each in ratios.items()}
    tables = [Table("Speed", rows), Table("An hour", hour)]
    return Outcome("transcription_speed", PROTOCOL, data, tables, numbers, passed)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, with the rounds and the seconds that apply."""
    options = parser(__doc__)
    options.add_argument("--peer", action="append", default=[], help="basic-pitch=PYTHON of its environment")
    options.add_argument("--clip-s", type=float, default=0.0, help="seconds of a clip; 0 takes the default")
    options.add_argument("--hour-s", type=float, default=0.0, help="seconds of the long stream; 0 takes the default")
    options.add_argument("--quick", action="store_true", help="one short round, and ten minutes in place of an hour")
    args = options.parse_args(arguments)
    args.rounds = args.limit or (1 if args.quick else DEFAULT_ROUNDS)
    args.clip_s = args.clip_s or (QUICK_CLIP_S if args.quick else CLIP_S)
    args.hour_s = args.hour_s or (QUICK_HOUR_S if args.quick else HOUR_S)
    args.peers = dict(peer.partition("=")[::2] for peer in args.peer)
    if len(args.peers) < len(args.peer) or not all(name and python for name, python in args.peers.items()):
        options.error("--peer: expected NAME=PYTHON, each NAME once")
    return args


async def main() -> None:
    """Command line."""
    args = parse()
    num_threads = args.threads or torch.get_num_threads()
    recordings = Recordings(need(args.data / "maps" / "dev", "MAPS dev"))
    try:
        recordings.part(0, max(args.clip_s, MINUTE_S))
    except ValueError as error:
        sys.exit(str(error))
    settings = {"OMP_NUM_THREADS": num_threads, "STRETTO_TRANSCRIBER_NUM_THREADS": num_threads}
    async with own_server(settings) as server:
        listed = (await server.client.list_models()).models
        models = [model.model_id for model in listed if model.service == "transcriber"]
        with tempfile.TemporaryDirectory() as folder:
            speeds = await rounds(server.client, args, recordings, Path(folder))
        memory = await memory_over(server, recordings.part(0, MINUTE_S), args.hour_s)
    data = f"{args.rounds} clips of {args.clip_s:g} s of MAPS dev; {', '.join(models)}; {num_threads} torch threads"
    publish(outcome(speeds, memory, args.hour_s, data, models), args)


if __name__ == "__main__":
    asyncio.run(main())
