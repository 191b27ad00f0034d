"""MusicGen-small's geometry end to end, beside `transformers` on the same random weights, prompt and guidance.

Geometry: 24 layers of 1024, 16 heads, feed-forward 4096, 4 x 2048 codes at 50 Hz, T5-base, EnCodec 32 kHz, guidance 3,
top-k 250. One set of weights, drawn from a fixed seed, is written in the Hugging Face layout; `stretto serve` and the
peer, each in a process of its own and one after the other, read the same files. Nothing is downloaded.

1. Ours over gRPC, text in, 32 kHz out: one stream after the other, then 8 at once. Most memory of the server process.
2. One decode step of the service's own model, two rows (conditional and null), beside the memory's bandwidth.
3. `MusicgenForConditionalGeneration.generate`, text encoder and codec included, in fp32 and bf16: one piece, then 8 as
   one static batch. Shorter pieces than ours, which favours the peer: attention has less to look back on.

    python evals/speed/musicgen_small.py [--weight-format int4] [--duration-s 10] [--quick]

Cost: 5 GB of disk in a temporary folder (`--folder` keeps it), 12 GB of memory, about 7 minutes on two quiet cores.
Only a quiet machine gives valid numbers; `--quick` checks the program: 4 layers, 2 s, one round, no valid number.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from subprocess import DEVNULL, PIPE, run
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from bounds import BYTES_PER_WEIGHT, FLOAT_BYTES, cache_bytes, count_weights, step_bound_ms
from harness import Outcome, Table, parser, publish
from served import load_lm, stepper_of
from serving import OwnServer, own_server, status_bytes
from stretto_acoustic import loading
from stretto_acoustic.models.musicgen import MusicGenCondition, MusicGenConfig
from stretto_client import AudioChunk, Receipt, StrettoClient
from stretto_shared.features import SamplingOptions
from timing import Bandwidth, Spread, spread

PROMPT = "a calm piano piece with soft strings"
NUM_PIECES = 8
NUM_PARTS = 10  # of a piece whose steps are timed, in turn with the bandwidth
LAYERS, QUICK_LAYERS = 24, 4
GUIDANCE_SCALE, TOP_K = 3.0, 250
GIGABYTE = 1e9
SERVICES = "orchestrator,embedding,acoustic,codec"  # those that MusicGen takes
WARM_UP_S = 1.0
PEER_SCRIPT = Path(__file__).resolve().parents[1] / "peers" / "musicgen.py"
SINGLE, EIGHT = "one stream", f"{NUM_PIECES} at once"
IMPORTS = """
import stretto_acoustic.main, stretto_client.cli.main, stretto_codec.main, stretto_embedding.main
import stretto_orchestrator.main
print(open("/proc/self/status").read())
"""

PROTOCOL = (
    "Server, step and peers one after the other, each in a process of its own, every one after a warm-up. Ours: wall "
    "time of whole calls over the loopback, each piece with its own seed; RTF is wall time over seconds of music, "
    "single streams as the median of the rounds. Aggregate: seconds of music by all streams a second of wall time. "
    "Peer: the least of its rounds, per second of music, of pieces of {peer_s:g} s where ours have {own_s:g} s. Step: "
    "a step of two rows, caches and heads included, sampling not, in ten parts of a piece; each part's median beside "
    "its bound, the bytes of its matrices over the bandwidth just then (a sum of 1 GiB before it and one after it), "
    "since other tenants of a machine's memory come and go; the claim is about the median of the ten ratios. Memory: "
    "VmHWM of the server process from /proc, of its whole life and, reset once it is ready, of its serving; its bound "
    "is language model in the format + caches of 8 pieces + codec + text encoder in float32, and counts neither "
    "interpreter nor libraries."
)


@dataclass(frozen=True)
class Served:
    """What the server did.

    Args:
        single: (first audio, whole call) in seconds, for each round.
        eight_s: Wall seconds of each round of 8 at once.
        same_bytes: Whether every seed gave the same bytes alone and in company.
        ready_bytes: Resident when ready to serve.
        load_peak_bytes: Most that was resident until then.
        single_peak_bytes: Most while one stream was served.
        eight_peak_bytes: Most while 8 were, or one.
        float_bytes: Of the parameters of codec and text encoder.
    """

    single: Sequence[tuple[float, float]]
    eight_s: Sequence[float]
    same_bytes: bool
    ready_bytes: int
    load_peak_bytes: int
    single_peak_bytes: int
    eight_peak_bytes: int
    float_bytes: int


@dataclass(frozen=True)
class Measured:
    """What the claims are about. Real-time factors are seconds of work for a second of music; of batches, of all music.

    Args:
        rtf: Ours, one stream.
        first_audio_s: Ours, one stream.
        eight_rtf: Ours, 8 at once.
        peer_rtf: The peer's, by number format and pieces at once.
        step_ms: Of two rows, in each part of a piece.
        step_bound_ms: What the bandwidth allowed in that part.
        peak_bytes: Most memory of the server in its whole life.
        serving_bytes: Most while it served.
        bound_bytes: What it must hold at least.
    """

    rtf: float
    first_audio_s: float
    eight_rtf: float
    peer_rtf: Mapping[tuple[str, int], float]
    step_ms: Sequence[float]
    step_bound_ms: Sequence[float]
    peak_bytes: float
    serving_bytes: float
    bound_bytes: float

    @property
    def step_over_bound(self) -> Spread:
        """A step's time over its bound, part by part."""
        return spread([own / bound for own, bound in zip(self.step_ms, self.step_bound_ms, strict=True)])


def claims(found: Measured) -> dict[str, bool]:
    """Each claim of the eval, and whether it holds."""
    alone, batch = (lambda dtype: found.peer_rtf[dtype, 1]), (lambda dtype: found.peer_rtf[dtype, NUM_PIECES])
    return {
        "real_time_factor_at_most_0.8": found.rtf <= 0.8,
        "first_audio_within_0.5_s": found.first_audio_s <= 0.5,
        "one_stream_16_times_transformers_fp32": alone("fp32") >= 16 * found.rtf,
        "one_stream_4_times_transformers_bf16": alone("bf16") >= 4 * found.rtf,
        "8_streams_2.5_times_one_stream": found.rtf >= 2.5 * found.eight_rtf,
        "8_streams_8_times_transformers_fp32_batch": batch("fp32") >= 8 * found.eight_rtf,
        "8_streams_3_times_transformers_bf16_batch": batch("bf16") >= 3 * found.eight_rtf,
        "step_within_1.4_of_the_bandwidth": found.step_over_bound.median <= 1.4,
        "peak_memory_within_1.3_of_what_must_be_held": found.peak_bytes <= 1.3 * found.bound_bytes,
        "memory_while_serving_within_1.3": found.serving_bytes <= 1.3 * found.bound_bytes,
    }


def peer_rtfs(lines: Sequence[str]) -> dict[tuple[str, int], float]:
    """Seconds of work for a second of music, the least of the rounds, from what `peers/musicgen.py` printed."""
    found: dict[tuple[str, int], float] = {}
    for line in lines:
        record: dict[str, Any] = json.loads(line)
        key = (str(record["dtype"]), int(record["pieces"]))
        rtf = record["work_s"] / record["music_s"]
        found[key] = min(rtf, found.get(key, rtf))
    return found


def server_settings(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The environment of the server: the three parts as each service's only model, and room for 8 pieces."""
    return {
        "OMP_NUM_THREADS": args.threads,
        "STRETTO_ACOUSTIC_MODELS": f"musicgen-small={(folder / 'acoustic').as_uri()}",
        "STRETTO_ACOUSTIC_WEIGHT_FORMAT": args.weight_format,
        "STRETTO_ACOUSTIC_NUM_THREADS": args.threads,
        "STRETTO_ACOUSTIC_MAX_SLOTS": NUM_PIECES,
        "STRETTO_CODEC_MODELS": f"encodec_32khz={(folder / 'codec').as_uri()}",
        "STRETTO_CODEC_NUM_THREADS": args.codec_threads,
        "STRETTO_CODEC_DTYPE": args.codec_dtype,
        "STRETTO_EMBEDDING_TEXT_MODELS": f"t5-base={(folder / 'text').as_uri()}",
        "STRETTO_EMBEDDING_NUM_THREADS": args.threads,
        "STRETTO_EMBEDDING_WEIGHTS_DIR": folder / "none",  # MusicGen needs no joint encoders
    }


async def piece(client: StrettoClient, seed: int, duration_s: float) -> tuple[float, float, str]:
    """Seconds to the first audio and to the end of one guided piece, and the digest of its samples."""
    start, first_s, digest = time.perf_counter(), 0.0, ""
    sampling = SamplingOptions(guidance_scale=GUIDANCE_SCALE, top_k=TOP_K)
    async for event in client.generate_music(
        PROMPT, duration_s=duration_s, seed=seed, sampling=sampling, timeout_s=900.0
    ):
        if isinstance(event, AudioChunk) and not first_s:
            first_s = time.perf_counter() - start
        if isinstance(event, Receipt):
            digest = event.output_sha256
    if not digest:
        raise RuntimeError(f"the piece with seed {seed} ended without its receipt.")
    return first_s, time.perf_counter() - start, digest


async def serve(args: argparse.Namespace, folder: Path, num_rounds: int) -> Served:
    """Measure the server, one stream and 8."""
    async with own_server(server_settings(args, folder), services=SERVICES) as server:
        ready_bytes, load_peak_bytes = server.memory_bytes("VmRSS"), server.memory_bytes()
        float_bytes = await other_parameters(server) * FLOAT_BYTES
        server.reset_peak()
        await piece(server.client, 0, min(WARM_UP_S, args.duration_s))
        single = [await piece(server.client, seed, args.duration_s) for seed in range(1, 1 + num_rounds)]
        single_peak_bytes = server.memory_bytes()
        eight_s, digests = [], {seed: {digest} for seed, (_, _, digest) in enumerate(single, 1)}
        for _ in range(num_rounds):
            start = time.perf_counter()
            together = await asyncio.gather(
                *(piece(server.client, seed, args.duration_s) for seed in range(1, 1 + NUM_PIECES))
            )
            eight_s.append(time.perf_counter() - start)
            for seed, (_, _, digest) in enumerate(together, 1):
                digests.setdefault(seed, set()).add(digest)
        return Served(
            [(first_s, whole_s) for first_s, whole_s, _ in single],
            eight_s,
            all(len(same) == 1 for same in digests.values()) and len(set.union(*digests.values())) == len(digests),
            ready_bytes,
            load_peak_bytes,
            single_peak_bytes,
            server.memory_bytes(),
            float_bytes,
        )


async def other_parameters(server: OwnServer) -> int:
    """How many parameters the server has beside its language model, by its own word."""
    listed = await server.client.list_models()
    return sum(model.parameter_count for model in listed.models if model.service != "acoustic")


def step_times(args: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Median milliseconds of a step of two rows in each part of a piece, and the bandwidth just before and after it."""
    models = f"musicgen-small={(folder / 'acoustic').as_uri()}"
    loaded = load_lm(models, weight_format=args.weight_format, num_threads=args.threads)
    config, stepper = loaded.config, stepper_of(loaded, joins=True)
    bandwidth = Bandwidth()
    text = np.random.default_rng(0).standard_normal((8, config.text_dim)).astype(np.float32)
    num_steps = round(args.duration_s * config.frame_rate_hz) + max(config.delays)
    column = np.zeros((config.num_codebooks, 1), dtype=np.int64)
    warm_up = stepper.open(MusicGenCondition(text), num_steps=8, guidance_scale=GUIDANCE_SCALE)
    for _ in range(8):
        stepper.step([warm_up], [column], [True])
    state = stepper.open(MusicGenCondition(text), num_steps=num_steps, guidance_scale=GUIDANCE_SCALE)
    part_ms: list[float] = []
    gb_s = [bandwidth.gb_s()]
    for steps in np.array_split(np.arange(num_steps), NUM_PARTS):
        taken_s = []
        for _ in steps:
            start = time.perf_counter()
            stepper.step([state], [column], [True])
            taken_s.append(time.perf_counter() - start)
        part_ms.append(float(np.median(taken_s) * 1e3))
        gb_s.append(bandwidth.gb_s())
    return {"step_ms": part_ms, "bandwidth_gb_s": [(before + after) / 2 for before, after in pairwise(gb_s)]}


def in_own_process(args: argparse.Namespace, folder: Path, program: Path, *more: object) -> list[str]:
    """The lines of JSON that a program printed."""
    command = [sys.executable, str(program), *map(str, more), "--threads", str(args.threads)]
    done = run(command, check=True, stdout=PIPE, stderr=None if args.verbose else DEVNULL, text=True)
    return [line for line in done.stdout.splitlines() if line.startswith("{")]


def measure_peers(args: argparse.Namespace, folder: Path) -> dict[tuple[str, int], float]:
    """Real-time factors of the peer by number format and pieces at once."""
    lines: list[str] = []
    batches = [size for _ in range(args.peer_rounds) for size in (1, NUM_PIECES)]
    for dtype in ("fp32", "bf16"):
        print(f"peer: {dtype}", flush=True)
        more = ("--prompt", PROMPT, "--dtype", dtype, "--duration-s", args.peer_duration_s, "--batches", *batches)
        lines += in_own_process(args, folder, PEER_SCRIPT, folder, *more)
    return peer_rtfs(lines)


def imports_bytes() -> int:
    """Memory of a process that has imported the services and done nothing."""
    done = run([sys.executable, "-c", IMPORTS], check=True, stdout=PIPE, text=True)
    return status_bytes(done.stdout, "VmRSS")


def build(folder: Path, num_layers: int) -> None:
    """Write the checkpoint, unless the folder has one."""
    from peers import musicgen

    if not (folder / "text" / "tokenizer.json").exists():
        musicgen.build(folder, musicgen.geometry(num_layers))


def tables(
    served: Served, found: Measured, first: Spread, rtf: Spread, eight: Spread, kept: Mapping[str, float]
) -> list[Table]:
    """For people."""
    rows: list[tuple[object, ...]] = [("", "pieces", "RTF", "music s / s", "peer / ours", "first audio s")]
    rows.append(("Stretto", 1, rtf, 1 / found.rtf, "", first))
    rows.append(("Stretto", NUM_PIECES, eight, 1 / found.eight_rtf, "", ""))
    for (dtype, size), peer in found.peer_rtf.items():
        own = found.rtf if size == 1 else found.eight_rtf
        rows.append((f"transformers {dtype}", size, peer, 1 / peer, peer / own, ""))
    memory: list[tuple[object, ...]] = [("the server's memory", "GB", "of the bound")]
    for name, taken in (
        ("interpreter and libraries alone", imports_bytes()),
        ("ready to serve", served.ready_bytes),
        ("most while loading", served.load_peak_bytes),
        (f"most, {SINGLE}", served.single_peak_bytes),
        (f"most, {EIGHT}", served.eight_peak_bytes),
    ):
        memory.append((name, taken / GIGABYTE, taken / found.bound_bytes))
    memory += [(f"bound: {name}", size / GIGABYTE, "") for name, size in kept.items()]
    memory.append(("bound", found.bound_bytes / GIGABYTE, 1.0))
    best_ms = min(found.step_bound_ms)
    step = [
        ("a step of two rows", "ms", "of the bound"),
        ("measured", spread(found.step_ms), found.step_over_bound),
        ("bytes of its matrices over the bandwidth", spread(found.step_bound_ms), 1.0),
        ("the same at the best bandwidth of all parts", best_ms, 1.0),
        ("measured, beside that", spread(found.step_ms), spread(found.step_ms).times(1 / best_ms)),
    ]
    return [Table("Speed, end to end", rows), Table("One step", step), Table("Memory", memory)]


def bound_parts(config: MusicGenConfig, args: argparse.Namespace, float_bytes: int) -> dict[str, float]:
    """What the server must hold, in bytes."""
    num_text_tokens = len(PROMPT.split()) + 1  # the tokenizer's words and its end marker
    return {
        f"language model in {args.weight_format}": count_weights(config).held_bytes(args.weight_format),
        f"attention caches, {NUM_PIECES} pieces": cache_bytes(
            config,
            args.weight_format,
            duration_s=args.duration_s,
            num_text_tokens=num_text_tokens,
            num_pieces=NUM_PIECES,
        ),
        "codec and text encoder": float_bytes,
    }


def options() -> argparse.Namespace:
    """The command line; `--quick` overrides what makes a run long."""
    made = parser(__doc__)
    made.set_defaults(threads=2)
    made.add_argument(
        "--weight-format", choices=("fp32", "bf16", "int8", "int4", "int4_kv4"), default="int4", help="of ours"
    )
    made.add_argument("--codec-threads", type=int, default=1, help="of the server's codec")
    made.add_argument(
        "--codec-dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of the server's codec"
    )
    made.add_argument("--duration-s", type=float, default=10.0, help="seconds of music of our pieces")
    made.add_argument("--peer-duration-s", type=float, default=2.0, help="seconds of music of the peer's")
    made.add_argument("--peer-rounds", type=int, default=2, help="of the peer; the least counts")
    made.add_argument("--folder", type=Path, help="where weights are written and kept; a temporary one if not given")
    made.add_argument("--layers", type=int, default=LAYERS, help="of the language model")
    made.add_argument("--quick", action="store_true", help="a check that the program works; no valid numbers")
    made.add_argument("--verbose", action="store_true", help="show what the peer writes to stderr")
    made.add_argument("--alone", choices=("step",), help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.quick:
        args.layers, args.duration_s, args.peer_duration_s, args.peer_rounds = QUICK_LAYERS, 2.0, 0.5, 1
        args.limit = args.limit or 1
    return args


def evaluate(args: argparse.Namespace, folder: Path) -> None:
    """Build, measure one after the other, publish."""
    num_rounds = args.limit or 3
    print(f"weights: {folder}", flush=True)
    build(folder, args.layers)
    print("server", flush=True)
    served = asyncio.run(serve(args, folder, num_rounds))
    print("step", flush=True)
    more = ("--alone", "step", "--folder", folder, "--weight-format", args.weight_format)
    [line] = in_own_process(args, folder, Path(__file__), *more, "--duration-s", args.duration_s)
    step = json.loads(line)
    peers = measure_peers(args, folder)
    config = loading.config_from_hugging_face(json.loads((folder / "acoustic" / "config.json").read_text()))
    kept = bound_parts(config, args, served.float_bytes)
    first = spread([first_s for first_s, _ in served.single])
    rtf = spread([whole_s for _, whole_s in served.single]).times(1 / args.duration_s)
    eight = spread(served.eight_s).times(1 / (NUM_PIECES * args.duration_s))
    found = Measured(
        rtf=rtf.median,
        first_audio_s=first.median,
        eight_rtf=eight.median,
        peer_rtf=peers,
        step_ms=step["step_ms"],
        step_bound_ms=[
            step_bound_ms(count_weights(config).step_bytes(args.weight_format), gb_s) for gb_s in step["bandwidth_gb_s"]
        ],
        peak_bytes=max(served.load_peak_bytes, served.eight_peak_bytes),
        serving_bytes=served.eight_peak_bytes,
        bound_bytes=sum(kept.values()),
    )
    publish(
        Outcome(
            f"musicgen_small_{args.weight_format}",
            PROTOCOL.format(peer_s=args.peer_duration_s, own_s=args.duration_s),
            f"random weights, {args.layers} layers, {args.weight_format} ({BYTES_PER_WEIGHT[args.weight_format]:.2f} "
            f"bytes a weight); {num_rounds} rounds, {args.threads} threads, codec {args.codec_threads} "
            f"in {args.codec_dtype}; torch {torch.__version__}; {spread(step['bandwidth_gb_s'])} GB/s",
            tables(served, found, first, rtf, eight, kept),
            {
                "layers": args.layers,
                "weight_format": args.weight_format,
                "real_time_factor": rtf.numbers(),
                "first_audio_s": first.numbers(),
                "real_time_factor_of_8": eight.numbers(),
                "peer_real_time_factor": {f"{dtype} x {size}": each for (dtype, size), each in peers.items()},
                "step_ms": found.step_ms,
                "step_bound_ms": found.step_bound_ms,
                "bandwidth_gb_s": step["bandwidth_gb_s"],
                "memory_bytes": {
                    "ready": served.ready_bytes,
                    "most_while_loading": served.load_peak_bytes,
                    "most_with_one_stream": served.single_peak_bytes,
                    "most_with_8": served.eight_peak_bytes,
                    "bound": kept,
                },
            },
            claims(found) | {"same_bytes_alone_and_among_8": served.same_bytes},
        ),
        args,
    )


def main() -> None:
    """Command line."""
    args = options()
    torch.set_num_threads(args.threads)
    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="musicgen-small-")))
        folder = folder.resolve()
        if args.alone:
            print(json.dumps(step_times(args, folder)))
            return
        evaluate(args, folder)


if __name__ == "__main__":
    main()
