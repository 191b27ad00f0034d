"""What semantic tokens know of music, beside k-means tokens of log-mel: linear probes on the rendered test clips.

- Pitch class: the loudest of the clip's chroma at the frame, of 12; the chroma is computed from the audio.
- Beat position: the quarter of the beat that the frame lies in, by the score's tempo, in clips with drums.
- Instrument family: of clips in which one sounds alone.

Both kinds of tokens have as many centroids and 25 frames a second. A probe is linear in one-hot tokens of a frame and
its neighbours (pitch 2, beat 12 on either side), or in their shares of the whole clip (family); it is fitted on the
validation split with the same options for both, and scored on the test split, that no choice was made on.

    python evals/quality/semantic_tokens.py --corpus corpus/v1 --features corpus/features [--limit 100]

Cost: tokens of all validation and test clips and six probes, some minutes of one core. The features are `mel_`
(services/embedding/recipes/prepare_mel.py) and `chroma_` (services/acoustic/recipes/prepare_features.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2] / "services" / "semantic" / "recipes"))
import kmeans
from harness import ROOT, Outcome, Row, Table, need, parser, publish, surely_above
from mel_clips import MelClips
from stretto_semantic.models.w2vbert.config import FRAME_RATE_HZ, MEL_FRAMES_PER_TOKEN
from stretto_shared.metrics.bootstrap import Interval, bootstrap_mean
from stretto_shared.training.corpus.records import ClipRecord, read_records
from stretto_shared.training.token_probe import (
    NO_TRUTH,
    NUM_BEAT_POSITIONS,
    ProbeOptions,
    TokenProbe,
    beat_truth,
    family_truth,
    pitch_class_truth,
)
from torch import Tensor
from write_tokens import load_tokenizer, tokenize_clips

CONTEXTS = {"pitch class": 2, "beat position": 12, "family": None}
NUM_KMEANS_CLIPS = 600
KMEANS_ROUNDS = 25
NUM_KMEANS_FRAMES = 60_000

Ids = NDArray[np.int64]

PROTOCOL = (
    "Multinomial logistic regression on one-hot tokens (pitch class: 2 frames on either side; beat position: 12; "
    "family: shares over the clip), fitted on the validation split, scored on the test split, the same options for "
    "both kinds of tokens. Accuracy is the mean over clips of the share of frames that are right. Pitch class: the "
    "loudest by chroma of the audio (0.512 s windows, silence left out). Beat position: quarter of the beat by the "
    "score's tempo and first beat, clips with drums. Family: clips with one family alone. Chance is what the most "
    "frequent answer of the validation split scores. Log-mel tokens: k-means on four stacked frames of log-mel, "
    "normalised, on training clips. Intervals: 95 % bootstrap over clips of the paired difference."
)


@dataclass(frozen=True)
class Split:
    """Clips of one split: what is heard, what is known, and of how many of its shards."""

    mel: NDArray[np.float16]
    chroma: NDArray[np.int8]
    records: Sequence[ClipRecord]
    shards: Sequence[str]
    num_shards: int

    def described(self, kind: str) -> str:
        """`N KIND clips (chroma was there for n of m shards: …)`."""
        found = f"chroma was there for {len(self.shards)} of {self.num_shards} shards: {', '.join(self.shards)}"
        return f"{len(self.records)} {kind} clips ({found})"


def read_split(features: Path, corpus: Path, split: str, most: int) -> Split:
    """The clips of a split that have records, mel and chroma; at most so many, evenly spread, or all for 0."""
    mel, chroma, records, shards = [], [], [], []
    for path in sorted(need(features, "The features").glob(f"chroma_{split}_*.npy")):
        shard = path.stem.removeprefix(f"chroma_{split}_")
        own = read_records(need(corpus, "The rendered corpus") / f"clips_{split}_{shard}.jsonl")
        heard = np.load(need(features / f"mel_{split}_{shard}.npy", "The features"), mmap_mode="r")
        classes = np.load(path)
        if not len(own) == len(heard) == len(classes):
            raise SystemExit(f"Shard {split}_{shard} has {len(own)} records, {len(heard)} mel, {len(classes)} chroma.")
        mel.append(heard)
        chroma.append(classes)
        records += own
        shards.append(shard)
    if not records:
        need(features / f"chroma_{split}_0000.npy", "The features")
    count = min(most or len(records), len(records))
    kept = np.unique(np.linspace(0, len(records) - 1, count).round().astype(int))
    num_shards = len(list(corpus.glob(f"clips_{split}_*.jsonl")))
    told = [records[place] for place in kept]
    return Split(np.concatenate(mel)[kept], np.concatenate(chroma)[kept], told, shards, num_shards)


class LogMelTokens:
    """The baseline: k-means on four stacked frames of log-mel."""

    def __init__(self, clips: Tensor, num_centroids: int) -> None:
        frames = self._stack(clips).flatten(0, 1)
        self._mean, self._scale = frames.mean(0), 1 / frames.std(0)
        chosen = torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))[:NUM_KMEANS_FRAMES]
        points = (frames[chosen] - self._mean) * self._scale
        self._centroids = kmeans.fit(points, num_centroids, KMEANS_ROUNDS, seed=0)

    @staticmethod
    def _stack(mel: Tensor) -> Tensor:
        return mel.unflatten(1, (-1, MEL_FRAMES_PER_TOKEN)).flatten(2)

    def of(self, mel: NDArray[np.float16]) -> Ids:
        """Tokens [N, T] of log-mel [N, 4 T, M]."""
        rows = []
        for clip in mel:
            frames = self._stack(torch.from_numpy(clip.astype(np.float32))[None])[0]
            rows.append(kmeans.assign((frames - self._mean) * self._scale, self._centroids).numpy())
        return np.stack(rows)


def truths(split: Split, families: Sequence[str]) -> dict[str, Ids]:
    """What each probe looks for."""
    num_frames = split.mel.shape[1] // MEL_FRAMES_PER_TOKEN
    return {
        "pitch class": pitch_class_truth(split.chroma, num_frames, FRAME_RATE_HZ),
        "beat position": beat_truth(split.records, num_frames, FRAME_RATE_HZ),
        "family": family_truth(split.records, families),
    }


def chance(fitted: Ids, scored: Ids) -> float:
    """What the most frequent answer of the clips fitted on scores on others, as a mean over clips."""
    answer = np.bincount(fitted[fitted != NO_TRUTH]).argmax()
    told = scored != NO_TRUTH
    right = ((scored == answer) & told).sum(1)[told.any(1)] / told.sum(1)[told.any(1)]
    return float(right.mean())


def use_of(tokens: Ids, num_centroids: int) -> dict[str, float]:
    """How tokens are used: the share that occurs, perplexity, and bits a second by the counts and at most."""
    shares = np.bincount(tokens.ravel(), minlength=num_centroids) / tokens.size
    sounding = shares[shares > 0]
    bits = float(-(sounding * np.log2(sounding)).sum())
    return {
        "used": float(len(sounding) / num_centroids),
        "perplexity": float(2**bits),
        "bits_per_s": bits * FRAME_RATE_HZ,
        "most_bits_per_s": float(np.log2(num_centroids) * FRAME_RATE_HZ),
        "mean_run_frames": float(tokens.size / (tokens.shape[0] + (np.diff(tokens, axis=1) != 0).sum())),
    }


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--corpus", type=Path, default=ROOT / "corpus" / "v1", help="the rendered corpus")
    options.add_argument("--features", type=Path, default=ROOT / "corpus" / "features", help="its features")
    options.add_argument(
        "--tokenizer", type=Path, default=ROOT / "services" / "semantic" / "weights" / "w2vbert", help="a folder"
    )
    args = options.parse_args()
    torch.set_num_threads(args.threads or 1)
    publish(measure(args), args)


@dataclass(frozen=True)
class TaskScore:
    """What one probe reads off both kinds of tokens, over the clips that have its truth."""

    semantic: float
    log_mel: float
    gain: Interval
    chance: float

    def row(self, task: str) -> Row:
        """For people."""
        interval = f"{self.gain.mean:+.3f} [{self.gain.low:+.3f}, {self.gain.high:+.3f}]"
        return task, f"{self.semantic:.3f}", f"{self.log_mel:.3f}", interval, f"{self.chance:.3f}", self.gain.num_values

    def numbers(self) -> dict[str, Any]:
        """For programs."""
        gain = [self.gain.mean, self.gain.low, self.gain.high]
        clips = self.gain.num_values
        return {
            "semantic": self.semantic, "log_mel": self.log_mel, "gain": gain, "chance": self.chance, "clips": clips,
        }  # fmt: skip


def score_task(options: ProbeOptions, tokens: Mapping[str, Sequence[Ids]], fitted: Ids, scored: Ids) -> TaskScore:
    """Fit a probe of each kind of tokens (of valid, of test) on one truth, and score both on the other."""
    shares = {}
    for kind, (of_valid, of_test) in tokens.items():
        shares[kind] = TokenProbe(options, of_valid, fitted).accuracies(of_test, scored)
    told = ~np.isnan(shares["semantic"])
    own, other = shares["semantic"][told], shares["log-mel"][told]
    return TaskScore(float(own.mean()), float(other.mean()), bootstrap_mean(own - other), chance(fitted, scored))


def measure(args: argparse.Namespace) -> Outcome:
    """Tokens of both kinds, and what probes read off them."""
    valid, test = (read_split(args.features, args.corpus, split, args.limit) for split in ("valid", "test"))
    tokenizer = load_tokenizer(need(args.tokenizer, "The tokenizer"))
    num_centroids = tokenizer.config.num_centroids
    train = MelClips(args.features, "train", tokenizer.grid, 0).spread(args.limit or NUM_KMEANS_CLIPS)
    log_mel = LogMelTokens(train, num_centroids)
    tokens = {
        "semantic": [tokenize_clips(tokenizer, split.mel).astype(np.int64) for split in (valid, test)],
        "log-mel": [log_mel.of(split.mel) for split in (valid, test)],
    }
    families = sorted({use.family for record in valid.records for use in record.instruments})
    fitted, scored = truths(valid, families), truths(test, families)
    classes = {"pitch class": 12, "beat position": NUM_BEAT_POSITIONS, "family": len(families)}
    scores = {
        task: score_task(ProbeOptions(num_centroids, classes[task], context), tokens, fitted[task], scored[task])
        for task, context in CONTEXTS.items()
    }
    uses = {kind: use_of(of_test, num_centroids) for kind, (_, of_test) in tokens.items()}
    head = ("", "semantic", "log-mel", "gain, 95 %", "chance", "clips")
    use_rows = [(kind, *(f"{value:.3f}" for value in use.values())) for kind, use in uses.items()]
    tables = [
        Table("Accuracy on test clips", [head, *(score.row(task) for task, score in scores.items())]),
        Table("Use of the tokens", [("", *uses["semantic"]), *use_rows]),
    ]
    numbers = {"probes": {task: score.numbers() for task, score in scores.items()}, "use": uses}
    passed = {f"{task.replace(' ', '_')}_above_log_mel": surely_above(score.gain) for task, score in scores.items()}
    data = f"rendered corpus, to fit on {valid.described('validation')}; {test.described('test')}"
    return Outcome("semantic_tokens", PROTOCOL, data, tables, numbers, passed)


if __name__ == "__main__":
    main()
