"""What every eval shares: its options, its table, its JSON line and its dated report.

An eval is a program: `main` parses, measures, and hands an `Outcome` to `publish`. The last line of its output is one
JSON object. Nothing of this is imported by the product.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stretto_client import AudioChunk, Receipt, StrettoClient
from stretto_client.embedded import embedded_server
from stretto_shared.audio import Waveform
from stretto_shared.features import SamplingOptions
from stretto_shared.metrics.bootstrap import Interval

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "evals" / "results"

MISSING_STATUS = 3
"""Exit status of an eval whose data are not here; any other than 0 is a failure."""

HOW_TO_GET: Mapping[str, str] = MappingProxyType(
    {
        "MAPS dev": "Name the folder of data: --data DIR, or make eval DATA=DIR.",
        "YAMNet": "Name the folder of data: --data DIR, or make eval DATA=DIR.",
        "The corpus of real recordings": (
            "Make it: python -m stretto_shared.training.corpus real --data DIR --out corpus/real"
        ),
        "The rendered corpus": "Make it: python -m stretto_shared.training.corpus render --data DIR --out corpus/v1",
        "The piano corpus": "Make it: python services/transcriber/recipes/render_piano.py --help",
        "The harmony corpus": "Make it: python services/harmony/recipes/prepare_harmony.py --help",
        "AugmentedNet": "Name the folder of data: --data DIR, or make eval DATA=DIR.",
        "The features": "Make them: python services/acoustic/recipes/prepare_features.py --help",
    }
)
"""What `need` may miss, and the command that helps."""

Row = Sequence[object]

MIN_CLAIM_VALUES = 6  # fewer cannot contradict chance at 95 %: five coins fall alike once in sixteen throws


@dataclass(frozen=True)
class Table:
    """A table for people; the first row is its head."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Outcome:
    """What an eval found.

    Args:
        name: The eval, as in the file name of its report.
        protocol: How it was measured, in one or a few sentences.
        data: What it was measured on, with the split.
        tables: For people.
        numbers: For programs.
        passed: Each claim of the eval and whether it holds.
    """

    name: str
    protocol: str
    data: str
    tables: Sequence[Table]
    numbers: Mapping[str, Any]
    passed: Mapping[str, bool] = field(default_factory=dict)


def surely_above(interval: Interval, floor: float = 0.0) -> bool:
    """Whether a claim may say that a mean lies above `floor`: its interval does, and it is of enough values."""
    return interval.num_values >= MIN_CLAIM_VALUES and interval.low > floor


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all evals take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="MAPS and judges")
    made.add_argument("--limit", type=int, default=0, help="how many items of each kind; 0 takes the eval's default")
    made.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves the choice to torch")
    made.add_argument("--report", action="store_true", help="write evals/results/YYYY-MM-DD-NAME.md and .json")
    made.add_argument(
        "--suffix", default="", help="after the report's name: of another machine, beside the first one's"
    )
    made.add_argument("--commit", default="", help="what the report names, where the tree has no git")
    return made


def need(path: Path, what: str) -> Path:
    """A path that exists, or an end with `MISSING_STATUS` and one line that says what is missing and how to make it."""
    if not path.exists():
        how = HOW_TO_GET.get(what, "Name its place on the command line; --help lists the options.")
        print(f"missing: {what} is not at {path}. {how}", file=sys.stderr)
        raise SystemExit(MISSING_STATUS)
    return path


def publish(outcome: Outcome, args: argparse.Namespace) -> None:
    """Print the tables, write the report where one is asked for, and print the JSON line last."""
    for table in outcome.tables:
        print(f"\n{table.title}")
        print(_plain(table.rows))
    for claim, holds in outcome.passed.items():
        print(f"{'pass' if holds else 'FAIL'}  {claim}")
    record = {
        "eval": outcome.name,
        "date": datetime.date.today().isoformat(),
        "commit": getattr(args, "commit", "") or commit(),
        "hardware": hardware(),
        "command": f"python {shlex.join([_relative(sys.argv[0]), *sys.argv[1:]])}",
        "data": outcome.data,
        "protocol": outcome.protocol,
        "passed": dict(outcome.passed),
        **outcome.numbers,
    }
    line = json.dumps(_finite(record), ensure_ascii=False)
    if args.report:
        suffix = getattr(args, "suffix", "")
        stem = RESULTS / f"{record['date']}-{outcome.name}{f'_{suffix}' if suffix else ''}"
        RESULTS.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".md").write_text(_report(outcome, record), encoding="utf-8")
        stem.with_suffix(".json").write_text(json.dumps(_finite(record), indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(line)


def commit() -> str:
    """The commit of the working tree, marked where tracked files differ from it; `unknown` without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        described = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        described = ""
    return described or "unknown"


def hardware() -> str:
    """Processor, cores and load: `model, N cores, load L`."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, load {os.getloadavg()[0]:.1f}"


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[StrettoClient]:
    """A client of the server at `address`, or of one in this process where that is empty."""
    if address:
        async with StrettoClient(address) as client:
            yield client
        return
    async with embedded_server() as own, StrettoClient(own) as client:
        yield client


async def generate(
    client: StrettoClient,
    prompt: str,
    *,
    duration_s: float,
    seed: int,
    guidance_scale: float | None = None,
    melody: Waveform | None = None,
) -> tuple[Waveform, Receipt]:
    """One whole piece and its receipt."""
    sampling = None if guidance_scale is None else SamplingOptions(guidance_scale=guidance_scale)
    parts: list[Waveform] = []
    receipt: Receipt | None = None
    async for event in client.generate_music(
        prompt, duration_s=duration_s, seed=seed, sampling=sampling, melody=melody, timeout_s=900.0
    ):
        if isinstance(event, AudioChunk):
            parts.append(event.waveform)
        elif isinstance(event, Receipt):
            receipt = event
    if receipt is None or not parts:
        raise RuntimeError(f"no audio and receipt for {prompt!r}")
    samples = np.concatenate([part.samples for part in parts], axis=1)
    return Waveform(samples, parts[0].sample_rate_hz), receipt


def mono(waveform: Waveform) -> NDArray[np.float64]:
    """The samples [S] of a clip, mixed to one channel, as the metrics take them."""
    samples: NDArray[np.float64] = waveform.mono().samples[0].astype(np.float64)
    return samples


def _relative(path: str) -> str:
    resolved = Path(path).resolve()
    return str(resolved.relative_to(ROOT)) if resolved.is_relative_to(ROOT) else resolved.name


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _plain(rows: Sequence[Row]) -> str:
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) if column == 0 else text.rjust(width) for column, (text, width) in cells).rstrip()
        for cells in (enumerate(zip(row, widths, strict=True)) for row in texts)
    )


def _report(outcome: Outcome, record: Mapping[str, Any]) -> str:
    lines = [f"# {outcome.name}", ""]
    for key in ("date", "commit", "hardware", "data"):
        lines.append(f"- {key}: {record[key]}")
    lines += [f"- command: `{record['command']}`", f"- protocol: {outcome.protocol}", ""]
    for table in outcome.tables:
        head, *body = [[_cell(value) for value in row] for row in table.rows]
        lines += [f"## {table.title}", "", _markdown(head), _markdown(["---"] * len(head)), *map(_markdown, body), ""]
    if outcome.passed:
        lines += ["## Claims", ""]
        lines += [
            f"- {'holds' if holds else '**does not hold**'}: `{claim}`" for claim, holds in outcome.passed.items()
        ]
    return "\n".join(lines).rstrip() + "\n"


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _finite(value: Any) -> Any:
    """The same value as JSON can hold it: rounded, numpy unwrapped, infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_finite(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return round(float(value), 5) if math.isfinite(value) else None
    return value
