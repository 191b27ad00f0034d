"""How fast our codecs encode and decode, beside transformers' EnCodec (24 kHz, random weights) in the same run.

python evals/speed/codec.py [--codec NAME=file:///DIR] [--limit 2] [--threads 1]

Cost: 10 s of audio, eight calls of each kind: one to two minutes. `--limit 2 --duration-s 2` is the quick check. Only a
quiet machine gives valid numbers; the ratio to the peer suffers least, since the calls take turns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from stretto_codec import loading
from stretto_codec.settings import CodecSettings
from stretto_shared.weights import parse_model_list
from timing import spread, take_turns

DEFAULT_DURATION_S = 10.0
DEFAULT_ROUNDS = 7
PEER = "transformers EncodecModel, 6 kb/s"
ENCODE, DECODE, CHUNKED = "encode", "decode", "chunked decode"
PROTOCOL = (
    "Noise in one call. After one warm-up call each, every round makes each call of each codec once, so that "
    "what disturbs the machine disturbs all. RTF is seconds of work for a second of audio: medians over the rounds "
    "with 95 % bootstrap intervals. The ratio is the peer's time over ours, of the same round. `chunked decode` works "
    "on the chunk grid, as the service streams; its peer is the peer's plain decode, which does not stream."
)


@dataclass(frozen=True, eq=False)
class Contender:
    """One codec and what it does."""

    name: str
    num_parameters: int
    works: dict[str, Callable[[], object]]


def ours(name: str, source: str, duration_s: float) -> Contender:
    """One of our codecs, through the service's own loading."""
    codec = loading.load(name, source, weights_dir=CodecSettings().weights_dir)
    config, module = codec.config, cast(Any, codec.module)
    audio = 0.1 * torch.randn(1, config.num_channels, int(duration_s * config.sample_rate_hz))
    codes = codec.encode(audio)[0]

    def decode_chunked() -> None:
        decoder, size = codec.open_decoder(), codec.grid.chunk_frames
        for start in range(0, codes.shape[-1], size):
            stop = start + size
            decoder.step(codes[..., start:stop], codes[..., stop : stop + codec.grid.lookahead_frames], None)

    works: dict[str, Callable[[], object]] = {
        ENCODE: lambda: codec.encode(audio),
        DECODE: lambda: module.decode(codes),
    }
    if not codec.grid.is_scaled:
        works[CHUNKED] = decode_chunked
    return Contender(name, codec.info.parameter_count, works)


def peer(duration_s: float) -> Contender:
    """EnCodec 24 kHz of transformers."""
    from transformers import EncodecConfig, EncodecModel

    model: Any = EncodecModel(EncodecConfig())
    model.eval()
    audio = 0.1 * torch.randn(1, 1, int(duration_s * 24_000))
    coded = model.encode(audio, bandwidth=6.0)
    works: dict[str, Callable[[], object]] = {
        ENCODE: lambda: model.encode(audio, bandwidth=6.0),
        DECODE: lambda: model.decode(coded.audio_codes, coded.audio_scales),
    }
    return Contender(PEER, sum(p.numel() for p in model.parameters()), works)


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--codec", default="", help="name=source,… instead of the default weights that are present")
    options.add_argument("--duration-s", type=float, default=DEFAULT_DURATION_S, help="of the audio in one call")
    args = options.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    present = {path.parent.name: "default" for path in sorted(CodecSettings().weights_dir.glob("*/config.json"))}
    sources = parse_model_list(args.codec) if args.codec else present
    if not sources:
        raise SystemExit("No codec has weights here. Train one, or name an export with --codec NAME=file:///DIR.")
    rounds = args.limit or DEFAULT_ROUNDS
    with torch.inference_mode():
        contenders = [*(ours(name, source, args.duration_s) for name, source in sources.items()), peer(args.duration_s)]
        taken = take_turns({f"{c.name}\n{kind}": work for c in contenders for kind, work in c.works.items()}, rounds)
    rows: list[tuple[object, ...]] = [("codec", "", "RTF", "peer / ours", "parameters")]
    numbers: dict[str, dict[str, object]] = {}
    passed = {}
    for contender in contenders:
        size = f"{contender.num_parameters / 1e6:.1f} M"
        for kind in contender.works:
            times = taken[f"{contender.name}\n{kind}"]
            rtf = spread(times / args.duration_s)
            ratio = spread(taken[f"{PEER}\n{ENCODE if kind == ENCODE else DECODE}"] / times)
            is_peer = contender.name == PEER
            rows.append((contender.name, kind, rtf, "" if is_peer else ratio, size))
            own = numbers.setdefault(contender.name, {})
            own[kind] = {"rtf": rtf.numbers()} | ({} if is_peer else {"peer_over_ours": ratio.numbers()})
            if not is_peer:
                passed[f"{contender.name}: {kind}_faster_than_the_peer"] = ratio.surely_above(1.0)
    publish(
        Outcome(
            "codec_speed",
            PROTOCOL,
            f"{rounds} rounds of {args.duration_s:g} s, {torch.get_num_threads()} torch threads; peer weights random",
            [Table("Real-time factors", rows)],
            {"codecs": numbers, "peer": PEER},
            passed,
        ),
        args,
    )


if __name__ == "__main__":
    main()
