"""Codecs on held-out real recordings, beside Opus on the same files.

Each codec whose weights are present encodes and decodes MAPS dev (real Disklavier recordings, 19 pieces) and the
held-out game music of the corpus folder (one shard a recording, made by `stretto_shared.training.corpus real`). Opus
(libopus through ffmpeg) does the same at 6 and 12 kb/s; `--lyra` adds Lyra v2, a SoundStream for speech. A codec of
ours that has no weights is named as missing, and fails its claim.

    python evals/quality/codec.py --data ../shared/data --corpus corpus/real [--limit 2]
    … --codec framecodec,soundstream=file:///DIR [--codebooks 4] [--lyra]

Cost: 12.6 minutes of audio through each codec, about seven minutes on one quiet core; `--limit 2` is one minute, but
too little audio to use most codes.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, need, parser, publish, surely_above
from stretto_codec import loading
from stretto_codec.settings import CodecSettings
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_shared.metrics.codebooks import codebook_perplexity, codebook_use
from stretto_shared.metrics.distortion import align, si_sdr_db
from stretto_shared.metrics.spectral import log_mel_distance, multi_resolution_stft_distance
from stretto_shared.training.dataset import AudioShards
from stretto_shared.weights import parse_model_list

Samples = NDArray[np.float32]

OUR_CODECS = ("framecodec", "soundstream")
MIN_USE = 0.7

SAMPLE_RATE_HZ = 24_000
METRIC_RATE_HZ = 16_000
MAX_LAG_S = 0.06
# Of packets of 20 or 60 ms and constant or variable bitrate (which undershoots), what scores best at each bitrate.
OPUS_PACKET_MS = {6: 60, 12: 20}
LYRA_QUANTIZERS = (16, 46)
MAPS_START_S, MAPS_DURATION_S = 10, 30
CLIPS_PER_RECORDING = 3

PROTOCOL = (
    "Mono at 24 kHz in, mono at 24 kHz out. Every codec's output is aligned by cross-correlation within 60 ms; metrics "
    "at 16 kHz, mean over clips: SI-SDR; mel = mean |difference| of log10 mel magnitudes, 80 bands, window 1024, hop "
    "256, floor 1e-5; MR-STFT = spectral convergence + mean |difference of ln magnitude| over windows 512, 1024, 2048. "
    "Bitrate of our codecs is K log2(V) x frame rate; of Opus (libopus, constant bitrate, packets of 60 ms at 6 kb/s "
    "and 20 at 12) the packets' bytes without the Ogg pages. Use and perplexity over all clips together, of each "
    "codebook and pooled: entries of all codebooks that occur at all, which the claim on use is about. Better than "
    "Opus at 6 kb/s: at no more bits, and the 95 % bootstrap interval over clips of the paired difference in mel "
    "distance lies above zero. RTF is encoding plus decoding."
)


@dataclass(frozen=True)
class Clip:
    """A piece of a recording at 24 kHz."""

    source: str
    recording: str
    samples: Samples


@dataclass
class Tally:
    """What one codec did."""

    name: str
    bits: float = 0.0
    seconds: float = 0.0
    work_s: float = 0.0
    scores: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    codes: list[NDArray[np.int64]] = field(default_factory=list)
    cardinality: int = 0
    num_parameters: int = 0

    def add(self, clip: Clip, decoded: Samples) -> None:
        """Score one decoded clip."""
        reference, estimate = (soxr.resample(each, SAMPLE_RATE_HZ, METRIC_RATE_HZ) for each in (clip.samples, decoded))
        reference, estimate = align(reference, estimate, int(MAX_LAG_S * METRIC_RATE_HZ))
        stft = multi_resolution_stft_distance(reference, estimate)
        score = (si_sdr_db(reference, estimate), log_mel_distance(reference, estimate, METRIC_RATE_HZ), stft.total)
        self.scores.setdefault(clip.source, []).append(score)
        self.seconds += clip.samples.shape[0] / SAMPLE_RATE_HZ

    def mean(self, source: str | None = None) -> list[float]:
        """SI-SDR, mel and MR-STFT, over one source or over all clips."""
        rows = [row for name, rows in self.scores.items() if source in (None, name) for row in rows]
        return [float(value) for value in np.mean(rows, axis=0)]

    def mels(self) -> NDArray[np.float64]:
        """The mel distance of every clip, in order."""
        return np.array([row[1] for rows in self.scores.values() for row in rows])

    @property
    def kbps(self) -> float:
        return self.bits / self.seconds / 1000

    @property
    def real_time_factor(self) -> float:
        return self.work_s / self.seconds


def maps_clips(data: Path, limit: int) -> Iterator[Clip]:
    """30 s of each Disklavier recording, from its tenth second."""
    paths = sorted(need(data / "maps" / "dev", "MAPS dev").glob("*.opus"))
    for path in paths[: limit or None]:
        with soundfile.SoundFile(str(path)) as file:
            file.seek(MAPS_START_S * file.samplerate)
            samples = file.read(MAPS_DURATION_S * file.samplerate, dtype="float32", always_2d=True).mean(axis=1)
            yield Clip("maps", path.stem, soxr.resample(samples, file.samplerate, SAMPLE_RATE_HZ))


def game_clips(corpus: Path, limit: int) -> Iterator[Clip]:
    """Up to three evenly spaced clips of 10.24 s of each held-out recording that is not of MAPS."""
    shards = AudioShards(need(corpus, "The corpus of real recordings"), "test")
    by_recording: dict[str, list[int]] = {}
    for index in range(len(shards)):
        record = shards.record(index)
        if record.source != "maps":
            by_recording.setdefault(f"{record.source}/{record.piece}", []).append(index)
    for recording, indices in list(by_recording.items())[: limit or None]:
        chosen = np.unique(np.linspace(0, len(indices) - 1, CLIPS_PER_RECORDING + 2).round().astype(int)[1:-1])
        for position in chosen:
            samples = shards.clip(indices[position]).astype(np.float32)
            yield Clip("game music", recording, samples / np.float32(32768))


@torch.inference_mode()
def run_codec(name: str, source: str, clips: Sequence[Clip], num_codebooks: int) -> Tally:
    """One of our codecs, through the service's own loading, decoding and encoding."""
    codec = loading.load(name, source, weights_dir=CodecSettings().weights_dir)
    config, module = codec.config, cast(Any, codec.module)
    kept = min(num_codebooks or config.num_codebooks, config.num_codebooks)
    label = name if kept == config.num_codebooks else f"{name} ({kept} of {config.num_codebooks})"
    tally = Tally(label, cardinality=config.cardinality, num_parameters=codec.info.parameter_count)
    for clip in clips:
        samples = soxr.resample(clip.samples, SAMPLE_RATE_HZ, config.sample_rate_hz)
        audio = torch.from_numpy(np.ascontiguousarray(samples))[None, None].expand(1, config.num_channels, -1)
        start = time.perf_counter()
        codes = codec.encode(audio)[0][:, :kept]
        decoded = module.decode(codes)
        tally.work_s += time.perf_counter() - start
        tally.codes.append(codes[0].numpy())
        tally.bits += codes.shape[1] * codes.shape[2] * math.log2(config.cardinality)
        heard = decoded[0].mean(0).numpy()[: samples.shape[0]]
        tally.add(clip, soxr.resample(heard, config.sample_rate_hz, SAMPLE_RATE_HZ))
    return tally


def run_opus(kbps: int, clips: Sequence[Clip]) -> Tally:
    """Opus as ffmpeg makes it, at a constant bitrate."""
    tally = Tally(f"Opus {kbps} kb/s")
    options = ("-application", "audio", "-frame_duration", str(OPUS_PACKET_MS[kbps]), "-vbr", "off")
    with tempfile.TemporaryDirectory() as folder:
        original, coded, decoded = (str(Path(folder) / name) for name in ("in.wav", "coded.opus", "out.wav"))
        for clip in clips:
            soundfile.write(original, clip.samples, SAMPLE_RATE_HZ, subtype="PCM_16")
            start = time.perf_counter()
            _run(
                "ffmpeg",
                "-y",
                "-v",
                "error",
                "-i",
                original,
                "-c:a",
                "libopus",
                *options,
                "-b:a",
                f"{kbps}k",
                coded,
            )
            _run("ffmpeg", "-y", "-v", "error", "-i", coded, "-ar", str(SAMPLE_RATE_HZ), decoded)
            tally.work_s += time.perf_counter() - start
            packets = _run("ffprobe", "-v", "error", "-show_entries", "packet=size", "-of", "csv=p=0", coded)
            tally.bits += 8 * sum(int(line.strip(",")) for line in packets.split())
            tally.add(clip, soundfile.read(decoded, dtype="float32")[0])
    return tally


def run_lyra(folder: Path, num_quantizers: int, clips: Sequence[Clip]) -> Tally:
    """Lyra v2, whose own rate is 16 kHz."""
    from peers.lyra import BITS_PER_QUANTIZER, Lyra  # needs ai-edge-litert

    lyra = Lyra(need(folder, "Lyra"), num_quantizers)
    tally = Tally(f"Lyra v2 {num_quantizers * BITS_PER_QUANTIZER * 50 / 1000:g} kb/s")
    for clip in clips:
        samples = soxr.resample(clip.samples, SAMPLE_RATE_HZ, 16_000)
        start = time.perf_counter()
        decoded = lyra.code(samples)
        tally.work_s += time.perf_counter() - start
        tally.bits += lyra.kbps * 1000 * clip.samples.shape[0] / SAMPLE_RATE_HZ
        tally.add(clip, soxr.resample(decoded, 16_000, SAMPLE_RATE_HZ))
    return tally


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def present_codecs(weights_dir: Path) -> dict[str, str]:
    """The codecs whose default weights are there."""
    return {path.parent.name: "default" for path in sorted(weights_dir.glob("*/config.json"))}


def table(tallies: Sequence[Tally], source: str | None) -> Table:
    """The scores of all codecs on one source."""
    head = ("codec", "kb/s", "SI-SDR dB", "mel L1", "MR-STFT", "clips")
    rows = [(t.name, t.kbps, *t.mean(source), len(t.scores[source]) if source else len(t.mels())) for t in tallies]
    return Table(source or "all clips", [head, *rows])


def use_table(ours: Sequence[Tally]) -> Table:
    """Codebook use and perplexity, per level."""
    rows: list[tuple[object, ...]] = [("codec, level", "use", "perplexity", "entries")]
    for tally in ours:
        codes = np.concatenate(tally.codes, axis=1)
        use, perplexity = codebook_use(codes, tally.cardinality), codebook_perplexity(codes, tally.cardinality)
        rows += [
            (f"{tally.name}, {k}", float(u), float(p), tally.cardinality)
            for k, (u, p) in enumerate(zip(use, perplexity, strict=True))
        ]
        rows.append((f"{tally.name}, pooled", float(use.mean()), "", tally.cardinality * len(use)))
    return Table("Codebooks", rows)


def numbers(tally: Tally, opus: Tally) -> dict[str, object]:
    """One codec for programs, and its claims."""
    si_sdr, mel, stft = tally.mean()
    found: dict[str, object] = {"kbps": tally.kbps, "si_sdr_db": si_sdr, "mel_l1": mel, "mr_stft": stft}
    found |= {"real_time_factor": tally.real_time_factor}
    for source in tally.scores:
        found[source] = dict(zip(("si_sdr_db", "mel_l1", "mr_stft"), tally.mean(source), strict=True))
    if tally.codes:
        codes = np.concatenate(tally.codes, axis=1)
        use = codebook_use(codes, tally.cardinality)
        gap = bootstrap_mean(opus.mels() - tally.mels())
        found |= {
            "parameter_count": tally.num_parameters,
            "codebook_use": use,
            "codebook_use_pooled": float(use.mean()),
            "codebook_use_least": float(use.min()),
            "codebook_perplexity": codebook_perplexity(codes, tally.cardinality),
            "mel_gain_over_opus6": {"mean": gap.mean, "low": gap.low, "high": gap.high},
        }
    return found


def claims(tally: Tally, opus: Tally) -> dict[str, bool]:
    """What one of our codecs has to show; on use only with all its codebooks."""
    gap = bootstrap_mean(opus.mels() - tally.mels())
    found = {f"{tally.name}: mel_better_than_opus6": surely_above(gap) and tally.kbps <= opus.kbps}
    if not tally.name.endswith(")"):
        use = codebook_use(np.concatenate(tally.codes, axis=1), tally.cardinality)
        found[f"{tally.name}: codebook_use_above_{MIN_USE:g}"] = bool(use.mean() > MIN_USE)
    return found


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--corpus", type=Path, default=Path("corpus/real"), help="prepared real recordings")
    options.add_argument("--codec", default="", help="name=source,… instead of the default weights that are present")
    options.add_argument("--codebooks", default="", help="comma list: also run each codec with so many codebooks")
    options.add_argument("--lyra", action="store_true", help="add Lyra v2 from DATA/judges (needs ai-edge-litert)")
    args = options.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    sources = parse_model_list(args.codec) if args.codec else present_codecs(CodecSettings().weights_dir)
    if not sources:
        raise SystemExit("No codec has weights here. Train one, or name an export with --codec NAME=file:///DIR.")
    clips = [*maps_clips(args.data, args.limit), *game_clips(args.corpus, args.limit)]
    counts = [0, *(int(part) for part in args.codebooks.split(",") if part)]
    ours = [run_codec(name, source, clips, count) for name, source in sources.items() for count in counts]
    peers = [run_opus(kbps, clips) for kbps in OPUS_PACKET_MS]
    if args.lyra:
        peers += [run_lyra(args.data / "judges" / "lyra", num_quantizers, clips) for num_quantizers in LYRA_QUANTIZERS]
    wanted = () if args.codec else OUR_CODECS
    missing = [name for name in wanted if name not in sources]
    passed = {f"{name}: has_weights": False for name in missing}
    for tally in ours:
        passed |= claims(tally, peers[0])
    everything = [*ours, *peers]
    speed = Table("Real-time factor", [("codec", "RTF"), *((t.name, t.real_time_factor) for t in everything)])
    tables = [table(everything, source) for source in (*ours[0].scores, None)]
    minutes = ours[0].seconds / 60
    publish(
        Outcome(
            "codec",
            PROTOCOL,
            f"{len(clips)} clips, {minutes:.1f} min: MAPS dev (held out, never trained on) and held-out game music; "
            f"without weights: {', '.join(missing) or 'none'}",
            [*tables, use_table(ours), speed],
            {"codecs": {tally.name: numbers(tally, peers[0]) for tally in everything}, "missing": missing},
            passed,
        ),
        args,
    )


if __name__ == "__main__":
    main()
