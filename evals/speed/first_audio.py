"""How soon and how fast the default cascade makes music, beside transformers' MusicGen of the same size.

The server is `stretto serve` in a process of its own; the client is this one. After one warm-up request, `--limit`
requests, one after another: time to the first audio chunk as the client sees it, and seconds of work for a second of
music. Then the language model alone through its engine, on the one thread of its default settings, and the peer on all
threads: `transformers.MusicgenForCausalLM` of the same geometry with random weights, its own key-value cache, both
branches of guidance as a batch of two, as many steps. Neither has codec, text encoder or wire. Each piece of either is
made in a fresh process after a warm-up second: in a process that has run ours, the peer is slower.

    python evals/speed/first_audio.py [--duration-s 10] [--limit 3] [--address …]

Cost: 52 s of music through the server, then three pieces of each language model: two minutes on a quiet machine, which
alone gives valid numbers. `--limit 1 --duration-s 3` is the quick check. `STRETTO_ACOUSTIC_WEIGHT_FORMAT=int8` before
the command measures that format, into a report of its own name.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, run

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from served import load_lm, report_name
from serving import serving
from stretto_acoustic import loading
from stretto_acoustic.engine import AcousticEngine, GenerateRequest
from stretto_acoustic.models.musicgen import MusicGenConfig
from stretto_acoustic.settings import AcousticSettings
from stretto_client import AudioChunk, StrettoClient
from stretto_embedding.loading import load_default
from stretto_shared.features import SamplingOptions, TextStates
from stretto_shared.weights import parse_model_list
from timing import spread

PROMPT = "a calm piano piece with soft strings"
DEFAULT_RUNS = 5
LM_ROUNDS = 3
GUIDANCE_SCALE, TOP_K = 3.0, 250
MAX_FIRST_AUDIO_S, MAX_REAL_TIME_FACTOR = 1.0, 0.5

PROTOCOL = (
    "One server process, warm, one request at a time over gRPC on the loopback; medians over the runs, each with its "
    "own seed, with 95 % bootstrap intervals. RTF is wall time of the whole call over seconds of music. The language "
    "models are measured after the server has ended, guidance 3, top-k 250, a piece each in turn, each in a fresh "
    "process after a warm-up second, ours on the one thread of its default settings, the peer on all; the ratio is of "
    "the same round. Claims are on medians, faster than the peer on the ratio's interval."
)


async def measure(client: StrettoClient, seed: int, duration_s: float) -> tuple[float, float]:
    """Seconds to the first audio, and seconds to the last, of one request."""
    start = time.perf_counter()
    first_s = 0.0
    async for event in client.generate_music(PROMPT, duration_s=duration_s, seed=seed, timeout_s=900.0):
        if isinstance(event, AudioChunk) and not first_s:
            first_s = time.perf_counter() - start
    return first_s, time.perf_counter() - start


def default_source() -> tuple[str, str]:
    """Name and source of the default language model."""
    return next(iter(parse_model_list(AcousticSettings().models or loading.DEFAULT_NAME).items()))


async def own_lm_s(load: Callable[[], loading.LoadedLM], duration_s: float, text: TextStates) -> float:
    """Seconds that our language model takes through its engine, guided, with the threads of its default settings."""
    name, _ = default_source()
    engine = AcousticEngine({name: load})
    await engine.start()
    sampling = SamplingOptions(guidance_scale=GUIDANCE_SCALE, top_k=TOP_K)
    start = time.perf_counter()
    async for _ in engine.generate(GenerateRequest(name, duration_s, 0, sampling, text=text)):
        pass
    elapsed_s = time.perf_counter() - start
    await engine.stop()
    return elapsed_s


@torch.inference_mode()
def peer_s(config: MusicGenConfig, duration_s: float, num_text_tokens: int) -> float:
    """Seconds that transformers' language model of the same geometry takes for as many steps, guided."""
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig
    from transformers.models.musicgen.modeling_musicgen import MusicgenForCausalLM

    model = MusicgenForCausalLM(
        MusicgenDecoderConfig(
            vocab_size=config.cardinality,
            max_position_embeddings=config.max_frames + 8,
            num_hidden_layers=config.num_layers,
            ffn_dim=config.ffn_dim,
            num_attention_heads=config.num_heads,
            hidden_size=config.dim,
            num_codebooks=config.num_codebooks,
            pad_token_id=config.cardinality,
            bos_token_id=config.cardinality,
        )
    ).eval()
    steps = round(duration_s * config.frame_rate_hz) + max(config.delays)
    text = torch.randn(2, num_text_tokens, config.dim)  # its decoder takes projected states
    columns = torch.full((2 * config.num_codebooks, 1), config.cardinality)
    generator = torch.Generator().manual_seed(0)
    cache = None
    start = time.perf_counter()
    for _ in range(steps):
        out = model(input_ids=columns, encoder_hidden_states=text, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        with_text, without = out.logits[:, -1].view(2, config.num_codebooks, -1)
        logits = without + GUIDANCE_SCALE * (with_text - without)
        top, places = logits.topk(min(TOP_K, logits.shape[-1]))
        noise = -torch.log(-torch.log(torch.rand(top.shape, generator=generator).clamp(1e-9, 1 - 1e-7)))
        chosen = places.gather(1, (top + noise).argmax(1, keepdim=True))  # Gumbel: a draw from the softmax
        columns = chosen.repeat(2, 1)
    return time.perf_counter() - start


async def language_model_s(which: str, duration_s: float) -> float:
    """Seconds of work of one language model, `ours` or `peer`, after a second of music to warm up."""
    settings, (name, source) = AcousticSettings(), default_source()
    text = load_default().encode([PROMPT])[0]
    if which == "peer":
        config = loading.load(name, source, weights_dir=settings.weights_dir).config
        peer_s(config, 1.0, text.states.shape[0])
        return peer_s(config, duration_s, text.states.shape[0])
    load = functools.partial(
        loading.load,
        name,
        source,
        weights_dir=settings.weights_dir,
        num_threads=settings.num_threads,
        weight_format=settings.weight_format,
        native_kernel_dir=settings.native_kernel_dir,
    )
    await own_lm_s(load, 1.0, text)
    return await own_lm_s(load, duration_s, text)


def alone_s(which: str, args: argparse.Namespace) -> float:
    """`language_model_s` in a process of its own."""
    command = [sys.executable, __file__, "--alone", which, "--duration-s", str(args.duration_s)]
    done = run([*command, "--threads", str(args.threads)], check=True, stdout=PIPE, text=True)
    return float(done.stdout.split()[-1])


async def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--alone", choices=("ours", "peer"), help="only print how long one language model takes")
    options.add_argument("--address", default="", help="a running server; empty starts one in a process of its own")
    options.add_argument("--duration-s", type=float, default=10.0, help="seconds of music a request")
    args = options.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.alone:
        print(await language_model_s(args.alone, args.duration_s))
        return
    async with serving(args.address, torch.get_num_threads()) as client:
        await measure(client, 0, min(2.0, args.duration_s))
        runs = [await measure(client, seed, args.duration_s) for seed in range(1, 1 + (args.limit or DEFAULT_RUNS))]
    loaded = load_lm()
    own_s, theirs_s = [], []
    for _ in range(min(args.limit or LM_ROUNDS, LM_ROUNDS)):
        own_s.append(alone_s("ours", args))
        theirs_s.append(alone_s("peer", args))
    own_rtf, peer_rtf = (spread(taken).times(1 / args.duration_s) for taken in (own_s, theirs_s))
    ratio = spread(np.array(theirs_s) / np.array(own_s))
    first = spread([first for first, _ in runs])
    rtf = spread([total for _, total in runs]).times(1 / args.duration_s)
    rows: list[tuple[object, ...]] = [
        (f"run {n}", first, total / args.duration_s) for n, (first, total) in enumerate(runs, 1)
    ]
    peer = "transformers MusicgenForCausalLM alone"
    rows += [
        ("median", first, rtf),
        ("our language model alone", "", own_rtf),
        (peer, "", peer_rtf),
        ("peer / ours", "", ratio),
    ]
    head = ("", "first audio s", "RTF")
    threads = f"{torch.get_num_threads()} torch threads"
    publish(
        Outcome(
            report_name("first_audio", [loaded.info]),
            PROTOCOL,
            f"{len(runs)} requests of {args.duration_s:g} s; {loaded.info.model_id}, {loaded.info.parameter_count:,} "
            f"parameters; {threads}",
            [Table("Speed", [head, *rows])],
            {
                "first_audio_s": first.numbers(),
                "real_time_factor": rtf.numbers(),
                "peer": peer,
                "peer_real_time_factor": peer_rtf.numbers(),
                "language_model_real_time_factor": own_rtf.numbers(),
                "peer_over_our_language_model": ratio.numbers(),
            },
            {
                "first_audio_within_1_s": first.median < MAX_FIRST_AUDIO_S,
                "real_time_factor_below_0.5": rtf.median < MAX_REAL_TIME_FACTOR,
                "faster_than_the_peer": ratio.surely_above(1.0),
            },
        ),
        args,
    )


if __name__ == "__main__":
    asyncio.run(main())
