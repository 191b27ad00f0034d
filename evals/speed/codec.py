"""How fast our codecs encode and decode, beside transformers' EnCodec (24 kHz, random weights) in the same run.

And how fast EnCodec 32 kHz, which MusicGen speaks, decodes on its grid of chunks, one stream and eight that share
steps, in float32 and bfloat16, beside transformers' whole decode of the same codes with the same random weights; and
how far bfloat16 is from float32 then, and with the default codec.

python evals/speed/codec.py [--codec NAME=file:///DIR] [--limit 2] [--threads 1]

Cost: 5 s of audio, and 2 s a stream of EnCodec 32 kHz, six calls of each kind: under two minutes. `--limit 2
--duration-s 2` is the quick check. Only a quiet machine gives valid numbers; the ratio to the peer suffers least, since
the calls take turns.
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
from stretto_codec.models.encodec import GEOMETRIES, Encodec
from stretto_codec.models.encodec.layouts import convert_state
from stretto_codec.models.streaming import decode_on_grid, step_together
from stretto_codec.settings import CodecSettings
from stretto_shared.metrics.distortion import si_sdr_db
from stretto_shared.metrics.spectral import log_mel_distance
from stretto_shared.weights import parse_model_list
from timing import MIN_CLAIM_RUNS, spread, take_turns

DEFAULT_DURATION_S = 5.0
DEFAULT_ROUNDS = 5
STREAM_S = 2.0
NUM_STREAMS = 8
DTYPES = ("float32", "bfloat16")
PEER = "transformers EncodecModel, 6 kb/s"
ENCODE, DECODE, CHUNKED = "encode", "decode", "chunked decode"
PROTOCOL = (
    "Noise in one call. After one warm-up call each, every round makes each call of each codec once, so that "
    "what disturbs the machine disturbs all. RTF is seconds of work for a second of audio: medians over the rounds "
    "with 95 % bootstrap intervals. The ratio is the peer's time over ours, of the same round. `chunked decode` works "
    "on the chunk grid, as the service streams; its peer is the peer's plain decode, which does not stream. "
    "EnCodec 32 kHz has its own peer: transformers' whole decode of the same codes, with the same weights and number "
    "format, of eight clips as one batch."
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

    works: dict[str, Callable[[], object]] = {
        ENCODE: lambda: codec.encode(audio),
        DECODE: lambda: module.decode(codes),
    }
    if not codec.grid.is_scaled:
        works[CHUNKED] = lambda: decode_on_grid(codec.open_decoder(), codec.grid, codes)
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


class EncodecStreams:
    """EnCodec 32 kHz with random weights: ours on the grid of chunks, transformers' at once."""

    def __init__(self) -> None:
        from transformers import EncodecConfig, EncodecModel

        torch.manual_seed(0)
        config = GEOMETRIES["encodec_32khz"]
        theirs = EncodecConfig(
            sampling_rate=config.sample_rate_hz,
            codebook_size=config.cardinality,
            num_filters=config.num_filters,
            upsampling_ratios=list(config.ratios),
            target_bandwidths=[2.2],
            use_causal_conv=False,
            use_conv_shortcut=False,
        )
        reference: Any = EncodecModel(theirs).eval()
        for key, tensor in reference.state_dict().items():
            if key.endswith(".embed"):  # zeros, before training
                tensor.copy_(0.3 * torch.randn(tensor.shape))
        state = convert_state(reference.state_dict())
        self.peers = {"float32": reference, "bfloat16": EncodecModel(theirs).eval().bfloat16()}
        self.peers["bfloat16"].load_state_dict(reference.state_dict())
        self.codecs: dict[str, loading.LoadedCodec] = {}
        for dtype in DTYPES:
            module = Encodec(config)
            module.load_state_dict(state)
            self.codecs[dtype] = loading.make_loaded(
                "encodec_32khz",
                module,
                loading.ARCHITECTURES["Encodec"],
                config,
                digest_sha256="0" * 64,
                dtype=dtype,
                max_joined=NUM_STREAMS,
            )
        shape = (NUM_STREAMS, config.num_codebooks, round(STREAM_S * config.frame_rate_hz))
        self.codes = torch.randint(0, config.cardinality, shape)

    def works(self) -> dict[str, Callable[[], object]]:
        """Every call, by `stretto` or `transformers`, the number of streams, and the number format."""
        works: dict[str, Callable[[], object]] = {}
        for dtype in DTYPES:
            for count in (1, NUM_STREAMS):
                works[f"stretto {count} {dtype}"] = lambda d=dtype, n=count: self.decode(d, n)
                works[f"transformers {count} {dtype}"] = lambda d=dtype, n=count: self.decode_peer(d, n)
        return works

    def decode(self, dtype: str, count: int) -> list[torch.Tensor]:
        """The audio of `count` streams on the grid, in as few steps as the codec's trial allows."""
        codec, codes = self.codecs[dtype], self.codes[:count]
        clips, size = [codec.open_decoder() for _ in range(count)], min(count, codec.max_joined)
        parts: list[list[torch.Tensor]] = [[] for _ in clips]
        for start, stop in codec.grid.cuts(codes.shape[-1]):
            for first in range(0, count, size):
                audios = step_together(clips[first : first + size], codes[first : first + size, :, start:stop])
                for own, audio in zip(parts[first:], audios):
                    own.append(audio)
        rests = [clip.finish() for clip in clips]
        return [torch.cat([*own, *([] if rest is None else [rest])], -1) for own, rest in zip(parts, rests)]

    def decode_peer(self, dtype: str, count: int) -> torch.Tensor:
        """The audio of `count` clips by transformers [B, 1, S]."""
        audio: torch.Tensor = self.peers[dtype].decode(self.codes[None, :count], [None]).audio_values
        return audio

    def check(self) -> None:
        """Raise unless both give the same audio: a ratio of different work means nothing."""
        torch.testing.assert_close(self.decode("float32", 1)[0], self.decode_peer("float32", 1), atol=1e-4, rtol=1e-3)


def stream_rows(taken: dict[str, Any], streams: EncodecStreams) -> tuple[list[tuple[object, ...]], dict[str, Any]]:
    """Table and numbers of EnCodec 32 kHz."""
    rows: list[tuple[object, ...]] = [("EnCodec 32 kHz", "streams", "RTF", "transformers RTF", "transformers / ours")]
    numbers: dict[str, Any] = {}
    for dtype in DTYPES:
        for count in (1, NUM_STREAMS):
            own, other = (taken[f"{who} {count} {dtype}"] for who in ("stretto", "transformers"))
            audio_s = STREAM_S * count
            rtf, peer_rtf, ratio = spread(own / audio_s), spread(other / audio_s), spread(other / own)
            rows.append((dtype, count, rtf, peer_rtf, ratio))
            numbers[f"{count} {dtype}"] = {
                "rtf": rtf.numbers(),
                "peer_rtf": peer_rtf.numbers(),
                "peer_over_ours": ratio.numbers(),
                "max_joined": streams.codecs[dtype].max_joined,
            }
    return rows, numbers


def notes(sample_rate_hz: int) -> torch.Tensor:
    """Six decaying notes of five partials over faint noise [1, 1, S]."""
    time_s = torch.arange(int(0.48 * sample_rate_hz)) / sample_rate_hz
    parts = []
    for pitch_hz in (220.0, 277.2, 329.6, 440.0, 164.8, 110.0):
        partials = [torch.sin(2 * torch.pi * k * pitch_hz * time_s) / k**1.5 for k in range(1, 6)]
        parts.append(0.2 * torch.stack(partials).sum(0) * torch.exp(-3 * time_s))
    return (torch.cat(parts) + 2e-3 * torch.randn(len(parts) * len(time_s)))[None, None]


def rounding(streams: EncodecStreams) -> tuple[list[tuple[object, ...]], dict[str, Any]]:
    """What bfloat16 does to the samples of EnCodec 32 kHz, on random codes, and of the default codec, on notes."""
    rows: list[tuple[object, ...]] = [
        ("bfloat16", "SI-SDR to float32, dB", "mel distance to float32", "mel to the original: float32", "bfloat16")
    ]
    numbers: dict[str, Any] = {}
    name, weights_dir = loading.DEFAULT_NAME, CodecSettings().weights_dir
    default = {d: loading.load(name, "default", weights_dir=weights_dir, dtype=d) for d in DTYPES}
    rate_hz = default["float32"].config.sample_rate_hz
    original = notes(rate_hz)
    codes = default["float32"].encode(original)[0]
    decoded = {d: decode_on_grid(codec.open_decoder(), codec.grid, codes)[0, 0] for d, codec in default.items()}
    random = {d: streams.decode(d, 1)[0][0, 0] for d in DTYPES}
    for title, audio, hz in (("encodec_32khz", random, 32_000), (name, decoded, rate_hz)):
        exact, rounded = (audio[d].numpy() for d in DTYPES)
        found = {"si_sdr_db": si_sdr_db(exact, rounded), "mel": log_mel_distance(exact, rounded, hz)}
        to_original: list[object] = ["", ""]
        if title == name:
            reference = original[0, 0].numpy()
            to_original = [log_mel_distance(reference, each[: len(reference)], hz) for each in (exact, rounded)]
            found |= {"mel_float32": to_original[0], "mel_bfloat16": to_original[1]}
        rows.append((title, found["si_sdr_db"], found["mel"], *to_original))
        numbers[title] = found
    return rows, numbers


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
        streams = EncodecStreams()
        streams.check()
        works = {f"{c.name}\n{kind}": work for c in contenders for kind, work in c.works.items()}
        taken = take_turns(works | streams.works(), rounds)
        rounded_rows, rounded_numbers = rounding(streams)
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
    streamed_rows, streamed_numbers = stream_rows(taken, streams)
    for kind, found in streamed_numbers.items():
        passed[f"encodec_32khz: {kind.replace(' ', '_')}_faster_than_the_peer"] = (
            rounds >= MIN_CLAIM_RUNS and found["peer_over_ours"][1] > 1.0
        )
    publish(
        Outcome(
            "codec_speed",
            PROTOCOL,
            f"{rounds} rounds of {args.duration_s:g} s, {torch.get_num_threads()} torch threads; peer weights random",
            [
                Table("Real-time factors", rows),
                Table("EnCodec 32 kHz on its grid of chunks", streamed_rows),
                Table("What bfloat16 costs", rounded_rows),
            ],
            {"codecs": numbers, "peer": PEER, "encodec_32khz": streamed_numbers, "bfloat16": rounded_numbers},
            passed,
        ),
        args,
    )


if __name__ == "__main__":
    main()
