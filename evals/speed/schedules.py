"""Has a piece the same bytes alone and in any company? 1,000 random schedules for each weight format.

Half of them play on the default checkpoint as the service loads it, half on a small model of random weights whose sizes
are odd ones: a feed-forward layer so wide that a lone float32 row takes another kernel than two rows do, and attention
that reaches less far than its pieces. A schedule brings 2 to 8 requests, of 1 to 16 frames each, to an engine with 1 to
8 slots: `random_schedules.py` says what is drawn. Each request's bytes are compared with those of its piece alone.

For each format two processes play one half of the schedules each. Both make every piece alone, in opposite order, and
their digests are compared: same bytes across processes.

    python evals/speed/schedules.py [--limit 1000] [--formats fp32 bf16 int8 int4 int4_kv4]

Cost: about 5 minutes on two cores; `--limit 40` is the quick check. How busy the machine is changes which pieces meet,
and must not change a byte.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from random_schedules import (
    MAX_PREFILL_COLUMNS,
    MAX_SLOTS,
    Codes,
    Request,
    Tally,
    alone,
    digest_of,
    draw_piece,
    draw_schedule,
    play,
)
from served import load_lm
from stretto_acoustic import loading
from stretto_acoustic.engine import Stepper, make_stepper
from stretto_acoustic.models.musicgen import MusicGenConfig, MusicGenLM
from stretto_acoustic.settings import AcousticSettings
from stretto_shared.engine.config import TokenEngineConfig

DEFAULT_SCHEDULES = 1000
NUM_PIECES = 48
FORMATS = ("fp32", "bf16", "int8", "int4", "int4_kv4")
NUM_PROCESSES = 2
LARGEST = TokenEngineConfig(max_slots=MAX_SLOTS, prefill_columns=MAX_PREFILL_COLUMNS)
SMALL = MusicGenConfig(
    cardinality=192,
    dim=96,
    num_layers=3,
    num_heads=6,
    ffn_dim=1536,
    text_dim=40,
    max_frames=40,
    attention_frames=9,
    melody_conditioning="prefix",
    chroma_frames=16,
)
PEAKED = 6.0  # random heads speak softly; louder ones draw codes that depend on what was read

PROTOCOL = (
    "Token engines of one to eight slots over the service's own stepper, one thread. Requests are drawn with text, "
    "melody, both or neither, prompts, any guidance and sampling; they come at random moments, paces and priorities, "
    "are resumed at random frames, and some readers go away. A real-time request that is refused is asked for again "
    "at best effort. Compared are all codes of a request with those of the same piece alone, and alone in two "
    "processes."
)


@dataclass(frozen=True)
class Played:
    """What one process did with one format.

    Args:
        tally: Over both models.
        shares_passes: Models whose requests shared passes.
        digest: Of every piece of every model alone.
    """

    tally: Tally
    shares_passes: tuple[str, ...]
    digest: str


def small_model(weight_format: str) -> loading.LoadedLM:
    """The model of odd sizes."""
    torch.manual_seed(0)
    module = MusicGenLM(SMALL)
    with torch.no_grad():
        module.heads.weight.mul_(PEAKED)
    return loading.make_loaded(
        "small",
        module,
        digest_sha256="0" * 64,
        weight_format=weight_format,
        native_kernel_dir=AcousticSettings().native_kernel_dir,
    )


def default_model(weight_format: str) -> loading.LoadedLM:
    """The default checkpoint as the service loads it."""
    return load_lm(weight_format=weight_format)


MODELS = {"small": small_model, "default": default_model}


async def play_all(
    model: Stepper, pieces: Sequence[Request], solos: Sequence[Codes], indices: range, frame_rate_hz: float
) -> Tally:
    """Play schedules one after the other."""
    tally = Tally()
    for index in indices:
        schedule = draw_schedule(index, len(pieces))
        tally.add(await play(model, schedule, pieces, solos, frame_rate_hz=frame_rate_hz))
    return tally


async def solos_of(model: Stepper, pieces: Sequence[Request], *, is_reversed: bool) -> list[Codes]:
    """Every piece alone, in order, made in that order or in the opposite one."""
    order = range(len(pieces))
    made = {at: await alone(model, pieces[at]) for at in (reversed(order) if is_reversed else order)}
    return [made[at] for at in order]


async def play_format(weight_format: str, part: int, num_schedules: int) -> Played:
    """One process's part of the schedules of one format."""
    tally, joined, solos = Tally(), [], []
    for name, load in MODELS.items():
        loaded = load(weight_format)
        model = make_stepper(loaded, LARGEST, joins=True)
        pieces = [draw_piece(index, loaded.config) for index in range(NUM_PIECES)]
        own = await solos_of(model, pieces, is_reversed=part % 2 == 1)
        share = part_of(num_schedules // len(MODELS), part)
        tally.add(await play_all(model, pieces, own, share, loaded.config.frame_rate_hz))
        joined += [name] if model.is_row_invariant else []
        solos += own
    return Played(tally, tuple(joined), digest_of(solos))


def part_of(num_schedules: int, part: int) -> range:
    """The numbers of the schedules that process `part` plays."""
    return range(part * num_schedules // NUM_PROCESSES, (part + 1) * num_schedules // NUM_PROCESSES)


def read_played(line: str) -> Played:
    """What a process printed."""
    record: dict[str, Any] = json.loads(line)
    return Played(Tally(**record["tally"]), tuple(record["shares_passes"]), record["digest"])


def in_two_processes(weight_format: str, num_schedules: int) -> list[Played]:
    """Play the schedules of one format, each process its part, at the same time."""
    command = [sys.executable, __file__, "--alone", weight_format, "--limit", str(num_schedules), "--part"]
    running = [Popen([*command, str(part)], stdout=PIPE, text=True) for part in range(NUM_PROCESSES)]
    printed = [process.communicate()[0] for process in running]
    failed = [process.returncode for process in running if process.returncode]
    if failed:
        raise SystemExit(f"A process that played {weight_format} ended with {failed[0]}; see above.")
    return [read_played(text.splitlines()[-1]) for text in printed]


def total(played: Sequence[Played]) -> Tally:
    """What all processes of a format counted together."""
    tally = Tally()
    for each in played:
        tally.add(each.tally)
    return tally


def shared_by(played: Sequence[Played]) -> str:
    """Which models shared passes; with how many of the processes, where not all agree."""
    counts = {name: sum(name in each.shares_passes for each in played) for name in MODELS}
    return ", ".join(
        name if count == len(played) else f"{name} ({count} of {len(played)})"
        for name, count in counts.items()
        if count
    )


def claims(found: Mapping[str, Sequence[Played]], num_schedules: int) -> dict[str, bool]:
    """Each claim of the eval, and whether it holds."""
    passed = {}
    for weight_format, played in found.items():
        tally = total(played)
        passed[f"{weight_format}: no_request_differs_in_{num_schedules}_schedules"] = (
            tally.differing == 0 and tally.schedules == num_schedules and tally.frames > 0
        )
        passed[f"{weight_format}: same_bytes_in_two_processes"] = (
            len(played) == NUM_PROCESSES and len({each.digest for each in played}) == 1
        )
    return passed


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.set_defaults(limit=DEFAULT_SCHEDULES)
    options.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="weight formats to play")
    options.add_argument("--alone", choices=FORMATS, help=argparse.SUPPRESS)
    options.add_argument("--part", type=int, default=0, help=argparse.SUPPRESS)
    args = options.parse_args()
    torch.set_num_threads(1)
    num_schedules = args.limit - args.limit % (len(MODELS) * NUM_PROCESSES)
    if num_schedules < 1:
        raise SystemExit(f"--limit: expected at least {len(MODELS) * NUM_PROCESSES} schedules, got {args.limit}.")
    if args.alone:
        print(json.dumps(asdict(asyncio.run(play_format(args.alone, args.part, num_schedules)))))
        return
    found = {}
    for weight_format in args.formats:
        print(f"playing {weight_format}", flush=True)
        found[weight_format] = in_two_processes(weight_format, num_schedules)
    names = [field.name for field in dataclasses.fields(Tally)]
    rows: list[tuple[object, ...]] = [("format", *names, "share passes", "digest")]
    for weight_format, played in found.items():
        tally, joined = total(played), shared_by(played)
        rows.append((weight_format, *(getattr(tally, name) for name in names), joined, played[0].digest[:12]))
    publish(
        Outcome(
            "schedules",
            PROTOCOL,
            f"{num_schedules} schedules a format over {NUM_PIECES} pieces a model: the default checkpoint, and random "
            f"weights of {SMALL.num_layers} layers of {SMALL.dim}, feed-forward {SMALL.ffn_dim}; torch "
            f"{torch.__version__}, numpy {np.__version__}",
            [Table("Requests compared with their pieces alone", rows)],
            {
                weight_format: {"total": asdict(total(played)), "processes": [asdict(each) for each in played]}
                for weight_format, played in found.items()
            },
            claims(found, num_schedules),
        ),
        args,
    )


if __name__ == "__main__":
    main()
