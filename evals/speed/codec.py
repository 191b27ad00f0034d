"""How fast our codecs encode and decode, beside transformers' EnCodec (24 kHz, random weights) in the same run.

python evals/speed/codec.py [--codec NAME=file:///DIR] [--limit 5] [--threads 1]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from stretto_codec import loading
from stretto_codec.settings import CodecSettings
from stretto_shared.weights import parse_model_list

DURATION_S = 10.0
DEFAULT_RUNS = 5
PEER = "transformers EncodecModel, 6 kb/s"
PROTOCOL = (
    "10 s of noise in one call, after one warm-up call, medians over the runs; RTF is seconds of work for a second of "
    "audio. `chunked` decodes 0.2 s at a time, as the service streams."
)


def median_s(work: Callable[[], object], runs: int) -> float:
    """Median seconds of a call."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def ours(name: str, source: str, runs: int) -> tuple[str, float, float, float | str, str]:
    """Encoding, decoding and chunked decoding of one codec."""
    codec = loading.load(name, source, weights_dir=CodecSettings().weights_dir)
    config = codec.config
    audio = 0.1 * torch.randn(1, config.num_channels, int(DURATION_S * config.sample_rate_hz))
    codes = codec.encode(audio)[0]

    def decode_chunked() -> None:
        decoder, size = codec.open_decoder(), codec.grid.chunk_frames
        for start in range(0, codes.shape[-1], size):
            stop = start + size
            decoder.step(codes[..., start:stop], codes[..., stop : stop + codec.grid.lookahead_frames], None)

    chunked = "-" if codec.grid.is_scaled else median_s(decode_chunked, runs) / DURATION_S
    encoding, decoding = (
        median_s(work, runs) / DURATION_S for work in (lambda: codec.encode(audio), lambda: codec.module.decode(codes))
    )
    return name, encoding, decoding, chunked, f"{codec.info.parameter_count / 1e6:.1f} M"


def peer(runs: int) -> tuple[str, float, float, str, str]:
    """EnCodec 24 kHz of transformers."""
    from transformers import EncodecConfig, EncodecModel

    model = EncodecModel(EncodecConfig()).eval()
    audio = 0.1 * torch.randn(1, 1, int(DURATION_S * 24_000))
    coded = model.encode(audio, bandwidth=6.0)
    encoding = median_s(lambda: model.encode(audio, bandwidth=6.0), runs) / DURATION_S
    decoding = median_s(lambda: model.decode(coded.audio_codes, coded.audio_scales), runs) / DURATION_S
    return PEER, encoding, decoding, "-", f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M"


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--codec", default="", help="name=source,… instead of the default weights that are present")
    args = options.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    present = {path.parent.name: "default" for path in sorted(CodecSettings().weights_dir.glob("*/config.json"))}
    sources = parse_model_list(args.codec) if args.codec else present
    if not sources:
        raise SystemExit("No codec has weights here. Train one, or name an export with --codec NAME=file:///DIR.")
    runs = args.limit or DEFAULT_RUNS
    with torch.inference_mode():
        rows = [*(ours(name, source, runs) for name, source in sources.items()), peer(runs)]
    by_name = {row[0]: {"encode_rtf": row[1], "decode_rtf": row[2], "chunked_decode_rtf": row[3]} for row in rows}
    theirs = rows[-1]
    publish(
        Outcome(
            "codec_speed",
            PROTOCOL,
            f"{runs} runs, {torch.get_num_threads()} torch threads",
            [Table("Real-time factors", [("codec", "encode", "decode", "chunked decode", "parameters"), *rows])],
            {"codecs": by_name},
            {
                f"{name}: faster_than_the_peer": encoding < theirs[1] and decoding < theirs[2]
                for name, encoding, decoding, *_ in rows[:-1]
            },
        ),
        args,
    )


if __name__ == "__main__":
    main()
