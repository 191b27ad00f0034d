"""Which temperature, top-k and guidance make music most like the validation clips: the language model's defaults.

For each setting of a grid, N clips of 10 s from held-out captions of validation clips, the same captions and seeds for
all settings, decoded with the default codec. Their distance from real music is the Frechet distance of YAMNet's
embeddings to other validation clips, on the leading principal axes of those. Beside it: whether YAMNet names a family
that the clip's score has, spectral flatness, onset density, level, and what runs into the codec's limits. The same
captions' own clips are judged too: through the codec they are the ceiling, as recorded the floor of the distance.

    python evals/quality/musicgen_sampling.py --data ../shared/data --corpus corpus/v1 [--model musicgen=file:///DIR]
    … --temperatures 0.8,0.9,1 --top-ks 100,250 --guidances 2,3,4 [--limit 8 --duration-s 5]

Cost, CPU time on one core: one minute for the reference, then about 2 s for each clip of 10 s: 32 clips of a setting a
minute, the default 18 settings twenty. `--limit 8 --duration-s 5` takes a tenth; the distance of few clips is coarse.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
from cascade import Cascade, load_cascade
from choice import Distance, Distances, choose, hits_and_chance
from harness import Outcome, Table, need, parser, publish
from peers.yamnet import FAMILY_CLASSES, FamilyJudge, Heard, Yamnet
from served import report_name
from stretto_shared.engine.sampling import Sampling
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_shared.metrics.level import clipped_share, rms_dbfs
from stretto_shared.metrics.onsets import onset_density_hz
from stretto_shared.metrics.spectral import spectral_flatness
from stretto_shared.training.corpus.records import ClipRecord
from stretto_shared.training.dataset import AudioShards

CORPUS_RATE_HZ, JUDGE_RATE_HZ = 24_000, 16_000
DEFAULT_CLIPS = 32
NUM_DIMS = 24
RECORDED, CODED = "as recorded (floor)", "through the codec (ceiling)"
MEASURES = ("flatness", "onsets/s", "dBFS", "clipped", "at peak")

PROTOCOL = (
    "Each setting: the same N captions (one held-out template each, chosen by seed) and the same seeds; pieces joined, "
    "else as the services make them. Distance: Frechet, of YAMNet embeddings of 0.96 s patches on the "
    f"{NUM_DIMS} leading principal axes of the reference, which are validation clips other than the captions'; its "
    "bias is alike for all rows, since N is. Intervals: 500 bootstrap resamples over captions, the same for all rows, "
    "recentred. Family: YAMNet, calibrated on the reference's solos, names a family that the caption's clip has; "
    "chance is the same answers against the other captions. At peak: share of synthesis frames that the frame codec "
    "turned down. Choice: of the settings within one standard error (of the paired difference) of the lowest "
    "distance, the one with the most families right."
)


@dataclass(frozen=True, eq=False)
class Row:
    """N clips as judged."""

    label: str
    heard: list[Heard]
    measures: dict[str, float]
    sampling: Sampling | None = None

    @property
    def embeddings(self) -> list[NDArray[np.float64]]:
        return [each.embeddings for each in self.heard]


@dataclass(frozen=True)
class Asked:
    """What one clip's caption asks for."""

    caption: str
    families: frozenset[str]


def asked_of(record: ClipRecord, seed: int) -> Asked:
    """One of the clip's held-out captions, and the families that its score has."""
    captions = record.heldout_captions or record.captions
    caption = captions[int(np.random.default_rng(seed).integers(len(captions)))]
    return Asked(caption, frozenset(use.family for use in record.instruments))


def split_indices(count: int, num_clips: int, num_references: int) -> tuple[list[int], list[int]]:
    """Evenly spread indices of the captions' clips, and of reference clips that are none of them."""
    if num_clips > count // 2:
        raise SystemExit(f"--limit must be at most {count // 2}: half of the split's clips are kept as the reference.")
    clips = np.unique(np.linspace(0, count - 1, num_clips).round().astype(int))
    others = np.setdiff1d(np.arange(count), clips)
    chosen = np.unique(np.linspace(0, len(others) - 1, min(num_references, len(others))).round().astype(int))
    return clips.tolist(), others[chosen].tolist()


def recorded(shards: AudioShards, indices: Sequence[int], duration_s: float) -> NDArray[np.float32]:
    """The beginnings [N, S] of rendered clips."""
    length = int(duration_s * CORPUS_RATE_HZ)
    clips: NDArray[np.float32] = np.stack([shards.clip(index)[:length] for index in indices]).astype(np.float32)
    return clips / np.float32(32768)


def hear(yamnet: Yamnet, samples: NDArray[np.float32], rate_hz: int) -> list[Heard]:
    """What YAMNet makes of clips [N, S]."""
    return [yamnet.hear(soxr.resample(clip.astype(np.float64), rate_hz, JUDGE_RATE_HZ)) for clip in samples]


def measure(samples: NDArray[np.float32], rate_hz: int) -> dict[str, float]:
    """Means over clips [N, S] of what a signal says of itself."""
    rows = [
        (
            spectral_flatness(clip),
            onset_density_hz(soxr.resample(clip.astype(np.float64), rate_hz, JUDGE_RATE_HZ), JUDGE_RATE_HZ),
            max(rms_dbfs(clip), -100.0),
            clipped_share(clip),
        )
        for clip in samples
    ]
    return dict(zip(MEASURES, map(float, np.mean(rows, axis=0))))


def generated(cascade: Cascade, yamnet: Yamnet, asked: Sequence[Asked], sampling: Sampling, duration_s: float) -> Row:
    """One setting's clips."""
    start = time.perf_counter()
    texts = cascade.encoder.encode([each.caption for each in asked])
    codes = cascade.generate(texts, sampling, range(len(asked)), duration_s=duration_s)
    row = coded(label_of(sampling), cascade, yamnet, codes, sampling)
    print(f"{row.label}: {time.perf_counter() - start:.0f} s", flush=True)
    return row


def coded(
    label: str, cascade: Cascade, yamnet: Yamnet, codes: NDArray[np.int64], sampling: Sampling | None = None
) -> Row:
    """Clips that came out of the codec."""
    samples, rate_hz = cascade.decode(codes), cascade.codec.config.sample_rate_hz
    measures = measure(samples, rate_hz) | {"at peak": float(cascade.share_at_peak(codes).mean())}
    return Row(label, hear(yamnet, samples, rate_hz), measures, sampling)


def label_of(sampling: Sampling) -> str:
    """`T 0.9 k 250 g 3`."""
    return f"T {sampling.temperature:g} k {sampling.top_k} g {sampling.guidance_scale:g}"


def grid(args: argparse.Namespace, default: Sampling) -> list[Sampling]:
    """The settings to try; the model's present default is always one of them."""
    axes = (args.guidances.split(","), args.top_ks.split(","), args.temperatures.split(","))
    made = [Sampling(float(t), int(k), default.top_p, float(g)) for g, k, t in itertools.product(*axes)]
    return made if default in made else [default, *made]


def report(
    rows: Sequence[Row], distances: dict[str, Distance], judge: FamilyJudge, asked: Sequence[Asked]
) -> tuple[Table, dict[str, dict[str, object]], dict[str, float]]:
    """The table, the numbers and the families right of all rows."""
    lines: list[Sequence[object]] = [("", "distance", "95 %", "family", "95 %", "chance", *MEASURES)]
    numbers: dict[str, dict[str, object]] = {}
    families: dict[str, float] = {}
    fitting = [i for i, each in enumerate(asked) if each.families & set(judge.families)]
    for row in rows:
        distance = distances[row.label]
        low, high = distance.interval
        hits, chance = hits_and_chance(
            [judge.name(row.heard[i].scores) for i in fitting], [asked[i].families for i in fitting]
        )
        right = bootstrap_mean(hits)
        families[row.label] = right.mean
        measures = [row.measures.get(name, "-") for name in MEASURES]
        spans = f"[{low:.2f}, {high:.2f}]", f"[{right.low:.2f}, {right.high:.2f}]"
        lines.append((row.label, distance.value, spans[0], right.mean, spans[1], chance, *measures))
        numbers[row.label] = {
            "distance": [distance.value, low, high],
            "family": [right.mean, right.low, right.high],
            "family_chance": chance,
            **row.measures,
        }
    return (
        Table(f"{len(asked)} clips each, {len(fitting)} of them with a family that YAMNet knows", lines),
        numbers,
        families,
    )


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--corpus", type=Path, default=Path("corpus/v1"), help="the rendered corpus")
    options.add_argument("--model", default="", help="name=file:///DIR of another language model")
    options.add_argument("--duration-s", type=float, default=10.0, help="of each clip")
    options.add_argument("--references", type=int, default=200, help="validation clips to compare with")
    options.add_argument("--temperatures", default="0.8,0.9,1.0")
    options.add_argument("--top-ks", default="100,250", help="0 keeps all codes")
    options.add_argument("--guidances", default="2,3,4")
    args = options.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    start = time.perf_counter()
    yamnet = Yamnet(need(args.data / "judges" / "yamnet", "YAMNet"))
    shards = AudioShards(need(args.corpus, "The rendered corpus"), "valid")
    cascade = load_cascade(args.model, num_threads=args.threads)
    clips, others = split_indices(len(shards), args.limit or DEFAULT_CLIPS, args.references)
    asked = [asked_of(shards.record(index), index) for index in clips]
    reference = hear(yamnet, recorded(shards, others, args.duration_s), CORPUS_RATE_HZ)
    reference_families = [{use.family for use in shards.record(index).instruments} for index in others]
    solos = [(next(iter(own)), h.scores) for own, h in zip(reference_families, reference, strict=True) if len(own) == 1]
    judge = FamilyJudge(yamnet.classes, list(FAMILY_CLASSES), solos)
    originals = recorded(shards, clips, args.duration_s)
    print(f"reference: {time.perf_counter() - start:.0f} s", flush=True)
    rows = [Row(RECORDED, hear(yamnet, originals, CORPUS_RATE_HZ), measure(originals, CORPUS_RATE_HZ))]
    rows.append(coded(CODED, cascade, yamnet, cascade.encode(originals)))
    default = cascade.default_sampling
    for sampling in grid(args, default):
        rows.append(generated(cascade, yamnet, asked, sampling, args.duration_s))
    space = Distances([each.embeddings for each in reference], NUM_DIMS)
    distances = {row.label: space.of(row.embeddings) for row in rows}
    table, numbers, families = report(rows, distances, judge, asked)
    settings = {row.label: row.sampling for row in rows if row.sampling is not None}
    chosen, tied = choose({label: distances[label] for label in settings}, families)
    best = settings[chosen]
    verdict = [
        ("chosen", chosen),
        ("present default", label_of(default)),
        ("within one standard error", "; ".join(tied)),
    ]
    publish(
        Outcome(
            report_name("musicgen_sampling", [cascade.lm.info]),
            PROTOCOL,
            f"{len(clips)} captions of the rendered corpus' validation split, {args.duration_s:g} s each; reference "
            f"{len(others)} other clips of it, {space.explained:.1%} of the variance on {NUM_DIMS} axes; models "
            f"{', '.join(cascade.model_ids)}",
            [table, Table("Choice", [("", "setting"), *verdict])],
            {
                "models": cascade.model_ids,
                "rows": numbers,
                "chosen": {"temperature": best.temperature, "top_k": best.top_k, "guidance_scale": best.guidance_scale},
                "within_one_standard_error": tied,
                "minutes": (time.perf_counter() - start) / 60,
            },
            {
                "default_within_one_standard_error": label_of(default) in tied,
                "codec_ceiling_nearer_than_every_setting": all(
                    distances[CODED].value < distances[label].value for label in settings
                ),
                "chosen_names_families_above_chance": bool(
                    numbers[chosen]["family"][1] > numbers[chosen]["family_chance"]  # type: ignore[index]
                ),
            },
        ),
        args,
    )


if __name__ == "__main__":
    main()
