"""MusicGen-small's language model on a GPU, beside `transformers`' on the same weights and the memory's bandwidth.

Geometry and weights are `musicgen_small.py`'s, but for a text encoder of one layer, which favours the peer. Ours in
bfloat16 over slots that are allocated once and CUDA graphs, as the acoustic service runs it on a GPU
(`docs/adr/0009-one-shape-on-a-gpu.md`); for 1, 8, 16 and 32 guided streams, each in a pool of as many slots:

1. One pass of all streams: until its logits are done, and one after the other without waiting, beside the bytes of its
   matrices, and those of the whole pool's caches besides, over the bandwidth of the same run.
2. The token engine, which draws on the GPU: frames a second, and from a request to its first frame, when all come at
   once; then when each comes a little later than the one before; then each of the first streams alone. Same bytes?
3. The peer's `generate` on the same GPU, the same number of pieces as one static batch, in a process of its own: the
   time between two of its steps.

    python evals/speed/musicgen_small_cuda.py [--streams 1 8 16 32] [--peer-dtypes bf16 fp32] [--quick] [--device cpu]

Cost: 3 GB of disk for a while, 15 GB of the GPU's memory, about two minutes. With `--time-limit-s` no further number of
streams is begun after two thirds of it, and the peer, which loads meanwhile, is ended with it; what was measured is
reported. Without a GPU it ends with status 3; `--device cpu --quick` checks the program there: no graphs, 2 layers, no
valid number.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from bounds import count_weights, step_bound_ms
from harness import MISSING_STATUS, Outcome, Table, parser, publish
from stretto_acoustic import loading
from stretto_acoustic.models.musicgen import MusicGenCondition, PooledStepper
from stretto_acoustic.models.musicgen.slot_cache import SlotCache
from stretto_shared.engine.program import TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from timing import BANDWIDTH_BYTES, Spread, bandwidth_gb_s, spread, take_turns

PROMPT = "a calm piano piece with soft strings"
NUM_TEXT_TOKENS = len(PROMPT.split()) + 1  # the tokenizer's words and its end marker
STREAMS, QUICK_STREAMS = (1, 8, 16, 32), (1, 2)
LAYERS, QUICK_LAYERS = 24, 2
SAMPLING = Sampling(top_k=250, guidance_scale=3.0)
MAX_ALONE = 3  # streams that are made alone as well
STAGGER_S = 0.05
WARM_UP_STEPS = 8
PEER_SCRIPT = Path(__file__).resolve().parents[1] / "peers" / "musicgen.py"

PROTOCOL = (
    "Every number of streams has a pool of its own, tried at load as in a service, and the peer a process of its own. "
    "Step: medians over the steps of a piece after a warm-up, until its logits are done; its bound is the "
    "bytes of the matrices, or of matrices and all caches of the pool, over the bandwidth (best of sums and copies of "
    "{gigabytes:.0f} GiB on the device, "
    "before and after). Engine: {rounds} rounds of all streams at once, whole pieces of {own_s:g} s, wall time, "
    "text given as states. Peer: median time between its steps, over pieces of {peer_s:g} s, codec not counted."
)


@dataclass(frozen=True)
class Streams:
    """What so many guided streams took.

    Args:
        num_streams: Of the pool, and at once.
        joins: Whether they share a pass.
        ready_s: To allocate the pool, record its passes and try them.
        cache_bytes: Of the pool.
        step_ms: A pass of all streams, until its logits are done.
        pass_ms: The same without waiting, passes right after each other.
        bound_ms: What the bandwidth allows for the matrices.
        read_bound_ms: The same for the matrices and all caches.
        whole_s: Wall seconds of a round, each.
        first_frame_s: From a request to its first frame, the median and the most of all rounds.
        alone_s: Wall seconds of a piece alone in the same pool.
        same_bytes: Whether each seed gave one piece, whoever was there, and no two the same.
        digest: Of the codes of all pieces, to compare runs.
    """

    num_streams: int
    joins: bool
    ready_s: float
    cache_bytes: int
    step_ms: float
    pass_ms: float
    bound_ms: float
    read_bound_ms: float
    whole_s: list[float]
    first_frame_s: tuple[float, float]
    alone_s: float
    same_bytes: bool
    digest: str


def waiting(work: Callable[[], object]) -> Callable[[], None]:
    """The same work on a GPU until it is done."""

    def done() -> None:
        work()
        torch.cuda.synchronize()

    return done


def device_bandwidth_gb_s(device: str, num_rounds: int) -> float:
    """Gigabytes read or written in a second: the better of summing and of copying a large tensor."""
    if device == "cpu":
        return bandwidth_gb_s(num_rounds)
    large = torch.ones(BANDWIDTH_BYTES, device=device)  # 4 GiB, many times what caches hold
    copy = torch.empty_like(large)
    works: dict[str, Callable[[], object]] = {"sum": large.sum, "copy": lambda: copy.copy_(large)}
    taken = take_turns({name: waiting(work) for name, work in works.items()}, num_rounds)
    size = large.numel() * large.element_size()
    return float(max(size / taken["sum"].min(), 2 * size / taken["copy"].min()) / 1e9)


def condition_of(text_dim: int, seed: int) -> MusicGenCondition:
    """Text states of a piece."""
    states = np.random.default_rng(seed).standard_normal((NUM_TEXT_TOKENS, text_dim))
    return MusicGenCondition(states.astype(np.float32))


def step_times_ms(stepper: PooledStepper, num_streams: int, num_steps: int, text_dim: int) -> tuple[float, float]:
    """Medians of a pass of all streams: until its logits are done, and without logits, right after the one before."""
    column = np.zeros((len(stepper.delays), 1), dtype=np.int64)
    states = [
        stepper.open(condition_of(text_dim, seed), num_steps=2 * num_steps, guidance_scale=SAMPLING.guidance_scale)
        for seed in range(num_streams)
    ]
    parts = [states] if stepper.is_row_invariant else [[state] for state in states]

    def step(wants: bool) -> float:
        start = time.perf_counter()
        for part in parts:
            logits = stepper.step(part, [column] * len(part), [wants] * len(part))[-1]
            if logits is not None:
                logits.cpu()  # waits for all that the device has to do
        return time.perf_counter() - start

    with_logits = [step(True) for _ in range(num_steps)]
    start = time.perf_counter()
    for _ in range(num_steps - 1):
        step(False)
    step(True)  # waits for the device
    taken_s = time.perf_counter() - start
    for state in states:
        state.close()
    return float(np.median(with_logits[WARM_UP_STEPS:]) * 1e3), taken_s / num_steps * 1e3


class Listening:
    """Pieces by the token engine: their codes' digests by seed, and how long each listener waited."""

    def __init__(
        self, engine: TokenEngine[MusicGenCondition, Any], num_frames: int, *, num_codebooks: int, text_dim: int
    ) -> None:
        self._engine = engine
        self._num_frames = num_frames
        self._none = np.zeros((num_codebooks, 0), dtype=np.int32)
        self._text_dim = text_dim
        self.digests: dict[int, set[str]] = {}
        self.first_frame_s: list[float] = []

    async def piece(self, seed: int, after_s: float = 0.0) -> float:
        """Hear the whole of one piece that is asked for a little later; return the seconds from then on."""
        await asyncio.sleep(after_s)
        condition = condition_of(self._text_dim, seed)
        request = TokenRequest(condition, self._num_frames, self._none, self._none, SAMPLING, seed)
        start, first_s, blocks = time.perf_counter(), 0.0, []
        async with aclosing(self._engine.generate(request)) as stream:
            async for block in stream:
                first_s = first_s or time.perf_counter() - start
                blocks.append(block.codes)
        codes = np.concatenate(blocks, axis=1)
        if codes.shape[1] != self._num_frames:
            raise RuntimeError(f"expected {self._num_frames} frames of seed {seed}, got {codes.shape[1]}.")
        self.digests.setdefault(seed, set()).add(hashlib.sha256(codes.tobytes()).hexdigest())
        self.first_frame_s.append(first_s)
        return time.perf_counter() - start

    async def together(self, num_streams: int, stagger_s: float = 0.0) -> float:
        """Hear that many pieces, each asked for a little after the one before; return the wall seconds of all."""
        start = time.perf_counter()
        await asyncio.gather(*(self.piece(seed, stagger_s * seed) for seed in range(num_streams)))
        return time.perf_counter() - start

    @property
    def same_bytes(self) -> bool:
        """Whether each seed gave one piece, and no two seeds the same."""
        alike = all(len(each) == 1 for each in self.digests.values())
        return alike and len(set().union(*self.digests.values())) == len(self.digests)

    @property
    def digest(self) -> str:
        """Of all pieces."""
        joined = "".join(digest for seed in sorted(self.digests) for digest in sorted(self.digests[seed]))
        return hashlib.sha256(joined.encode()).hexdigest()[:16]


async def measure(
    loaded: loading.LoadedLM, num_streams: int, bandwidth: float, args: argparse.Namespace, num_rounds: int
) -> Streams:
    """Make a pool, time its passes, and hear pieces at once, one after the other, and alone."""
    config, module = loaded.config, loaded.module
    item_bytes = module.embeddings.weight.element_size()
    limits = TokenEngineConfig(
        max_slots=num_streams,
        max_queued=num_streams,
        first_block_frames=1,
        kv_budget_bytes=num_streams * SlotCache.slot_bytes(config, item_bytes),
    )
    num_frames = round(args.duration_s * config.frame_rate_hz)
    thread = ModelThread("cuda")

    def make() -> PooledStepper:
        return PooledStepper.tried(module, num_slots=num_streams, kv_budget_bytes=limits.kv_budget_bytes)

    start = time.perf_counter()
    stepper = await thread.run(make)
    ready_s = time.perf_counter() - start
    step_ms, pass_ms = await thread.run(lambda: step_times_ms(stepper, num_streams, num_frames // 2, config.text_dim))
    engine = TokenEngine(thread, stepper, stage="acoustic", config=limits, frame_rate_hz=config.frame_rate_hz)
    listening = Listening(engine, num_frames, num_codebooks=config.num_codebooks, text_dim=config.text_dim)
    await listening.together(num_streams)  # a warm-up, whose bytes count
    listening.first_frame_s.clear()
    whole_s = [await listening.together(num_streams) for _ in range(num_rounds)]
    first_frame_s = (float(np.median(listening.first_frame_s)), float(max(listening.first_frame_s)))
    await listening.together(num_streams, STAGGER_S)
    alone_s = [await listening.piece(seed) for seed in range(min(MAX_ALONE, num_streams))]
    await engine.close()
    await thread.close()
    matrix_bytes = count_weights(config).step * item_bytes
    return Streams(
        num_streams,
        stepper.is_row_invariant,
        ready_s,
        stepper.num_cache_bytes,
        step_ms,
        pass_ms,
        step_bound_ms(matrix_bytes, bandwidth),
        step_bound_ms(matrix_bytes + stepper.num_cache_bytes, bandwidth),
        whole_s,
        first_frame_s,
        float(np.median(alone_s)),
        listening.same_bytes,
        listening.digest,
    )


def may_begin(elapsed_s: float, limit_s: float) -> bool:
    """Whether there is time for another number of streams: a third of it is the peer's."""
    return limit_s == 0 or 3 * elapsed_s < 2 * limit_s


def begin_peer(args: argparse.Namespace, folder: Path, dtype: str) -> Popen[bytes]:
    """Start a peer, which loads its model and waits."""
    print(f"peer: {dtype}", flush=True)
    command = [sys.executable, str(PEER_SCRIPT), str(folder), "--prompt", PROMPT, "--dtype", dtype, "--wait"]
    command += ["--device", args.device, "--duration-s", str(args.peer_duration_s)]
    command += ["--threads", str(args.threads), "--batches", *map(str, args.streams)]
    return Popen(command, stdin=PIPE, stdout=PIPE, stderr=None if args.verbose else DEVNULL)


def wait_for(peer: Popen[bytes]) -> None:
    """Return when a peer is loaded, or failed: it would disturb what is measured."""
    assert peer.stdout is not None
    peer.stdout.readline()


def printed(peer: Popen[bytes], left_s: float | None) -> list[str]:
    """The whole JSON lines that a peer prints when it is told to begin, until it ends, or is ended after a while."""
    try:
        output, _ = peer.communicate(b"\n", timeout=left_s)
    except TimeoutExpired:
        peer.kill()
        output, _ = peer.communicate()
    if peer.returncode:
        print(f"the peer was ended, or failed: status {peer.returncode}", flush=True)
    return [line for line in output.decode().split("\n")[:-1] if line.startswith("{")]


def peer_steps_ms(lines: Sequence[str]) -> dict[tuple[str, int], float]:
    """Milliseconds of a step, the least of the rounds, from what `peers/musicgen.py` printed."""
    found: dict[tuple[str, int], float] = {}
    for line in lines:
        record: dict[str, Any] = json.loads(line)
        key = (str(record["dtype"]), int(record["pieces"]))
        found[key] = min(record["step_ms"], found.get(key, record["step_ms"]))
    return found


def claims(found: Sequence[Streams], peer_ms: Mapping[tuple[str, int], float], duration_s: float) -> dict[str, bool]:
    """Each claim of the eval, and whether it holds."""
    made = {"step_of_one_stream_within_1.4_of_the_bandwidth": _is_near(found[0].step_ms, found[0].bound_ms)}
    for each in found:
        made[f"{each.num_streams}_same_bytes_alone_and_in_company"] = each.same_bytes
        made[f"{each.num_streams}_in_real_time"] = float(np.median(each.whole_s)) < duration_s
    for (dtype, size), ms in peer_ms.items():
        own = next((each for each in found if each.num_streams == size), None)
        if own is not None:
            made[f"{size}_faster_than_transformers_{dtype}"] = engine_step_ms(own, duration_s) < ms
    return made


def engine_step_ms(streams: Streams, duration_s: float, frame_rate_hz: float = 50.0) -> float:
    """Milliseconds of one frame of all streams by the engine, sampling and all else included."""
    return float(np.median(streams.whole_s)) * 1e3 / (duration_s * frame_rate_hz)


def _is_near(ms: float, bound_ms: float) -> bool:
    return ms <= 1.4 * bound_ms


def tables(found: Sequence[Streams], peer_ms: Mapping[tuple[str, int], float], args: argparse.Namespace) -> list[Table]:
    """For people."""
    steps: list[tuple[object, ...]] = [
        ("streams", "one pass", "ms with logits", "ms without", "bound: matrices", "of it", "and caches", "of it")
    ]
    whole: list[tuple[object, ...]] = [
        (
            "streams",
            "RTF of each",
            "frames / s",
            "first frame s",
            "the most",
            "RTF alone",
            "same bytes",
            "ready s",
            "MiB",
        )
    ]
    beside: list[tuple[object, ...]] = [
        ("streams", "engine ms", "frames / s", "peer", "peer ms", "frames / s", "peer / engine")
    ]
    for each in found:
        rtf: Spread = spread(each.whole_s).times(1 / args.duration_s)
        steps.append(
            (
                *(str(each.num_streams), "yes" if each.joins else "no", each.step_ms, each.pass_ms, each.bound_ms),
                *(each.step_ms / each.bound_ms, each.read_bound_ms, each.step_ms / each.read_bound_ms),
            )
        )
        whole.append(
            (
                *(str(each.num_streams), rtf, 50.0 * each.num_streams / rtf.median, *each.first_frame_s),
                *(each.alone_s / args.duration_s, "yes" if each.same_bytes else "NO", each.ready_s),
                each.cache_bytes >> 20,
            )
        )
        own_ms = engine_step_ms(each, args.duration_s)
        for (dtype, size), ms in peer_ms.items():
            if size == each.num_streams:
                name = f"transformers {dtype}"
                beside.append((str(size), own_ms, 1e3 * size / own_ms, name, ms, 1e3 * size / ms, ms / own_ms))
    return [Table("One pass", steps), Table("The token engine", whole), Table("Beside the peer, one step", beside)]


def options() -> argparse.Namespace:
    """The command line; `--quick` overrides what makes a run long."""
    made = parser(__doc__)
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a check of the program")
    made.add_argument("--streams", type=int, nargs="+", default=list(STREAMS), help="at once, each number in turn")
    made.add_argument("--duration-s", type=float, default=10.0, help="seconds of music of our pieces")
    made.add_argument("--peer-duration-s", type=float, default=2.0, help="seconds of music of the peer's")
    made.add_argument("--peer-dtypes", nargs="*", choices=("bf16", "fp32"), default=["bf16"], help="of the peer")
    made.add_argument("--folder", type=Path, help="where weights are written and kept; a temporary one if not given")
    made.add_argument("--layers", type=int, default=LAYERS, help="of the language model")
    made.add_argument("--time-limit-s", type=float, default=0.0, help="report what is measured by then; 0: no limit")
    made.add_argument("--quick", action="store_true", help="a check that the program works; no valid numbers")
    made.add_argument("--verbose", action="store_true", help="show what the peer writes to stderr")
    args = made.parse_args()
    if args.quick:
        args.streams, args.layers, args.duration_s, args.peer_duration_s = list(QUICK_STREAMS), QUICK_LAYERS, 1.0, 0.5
        args.limit = args.limit or 1
    return args


def build(folder: Path, num_layers: int) -> None:
    """Write the checkpoint, unless the folder has one."""
    from peers import musicgen

    if not (folder / "text" / "tokenizer.json").exists():
        musicgen.build(folder, musicgen.geometry(num_layers, num_text_layers=1))


def evaluate(args: argparse.Namespace, folder: Path) -> None:
    """Build, measure one number of streams after the other, then the peer; publish."""
    num_rounds, start_s = args.limit or 3, time.perf_counter()
    print(f"weights: {folder}", flush=True)
    build(folder, args.layers)
    source = (folder / "acoustic").resolve().as_uri()
    before = device_bandwidth_gb_s(args.device, 5)
    peers = [begin_peer(args, folder, dtype) for dtype in args.peer_dtypes]
    loaded = loading.load(
        "musicgen-small", source, weights_dir=folder, dtype="bfloat16", device=args.device, num_threads=args.threads
    )
    for peer in peers:
        wait_for(peer)
    found = []
    for num_streams in args.streams:
        if found and not may_begin(time.perf_counter() - start_s, args.time_limit_s):
            print(f"no time for {num_streams} streams", flush=True)
            continue
        print(f"streams: {num_streams}", flush=True)
        found.append(asyncio.run(measure(loaded, num_streams, before, args, num_rounds)))
        print(json.dumps({"streams": asdict(found[-1])}), flush=True)
    bandwidth = max(before, device_bandwidth_gb_s(args.device, 5))
    peak_bytes = torch.cuda.max_memory_allocated() if args.device == "cuda" else 0
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    version = torch.__version__
    del loaded
    lines: list[str] = []
    for peer in peers:
        left_s = max(0.0, args.time_limit_s - (time.perf_counter() - start_s)) if args.time_limit_s else None
        lines += printed(peer, left_s)
    peer_ms = peer_steps_ms(lines)
    publish(
        Outcome(
            "musicgen_small_cuda" if args.device == "cuda" else "musicgen_small_cuda_on_cpu",
            PROTOCOL.format(gigabytes=4, rounds=num_rounds, own_s=args.duration_s, peer_s=args.peer_duration_s),
            f"random weights, {args.layers} layers in bfloat16; {device}, {bandwidth:.0f} GB/s, torch {version}",
            tables(found, peer_ms, args),
            {
                "device": device,
                "layers": args.layers,
                "bandwidth_gb_s": bandwidth,
                "peak_device_bytes": peak_bytes,
                "streams": [asdict(each) for each in found],
                "peer_step_ms": {f"{dtype} x {size}": ms for (dtype, size), ms in peer_ms.items()},
            },
            claims(found, peer_ms, args.duration_s),
        ),
        args,
    )


def main() -> None:
    """Command line."""
    args = options()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            f"missing: torch {torch.__version__} finds no CUDA GPU here. Run it on a machine with one.", file=sys.stderr
        )
        raise SystemExit(MISSING_STATUS)
    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="musicgen-small-")))
        evaluate(args, folder.resolve())


if __name__ == "__main__":
    main()
