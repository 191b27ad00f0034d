"""Whether MuLan relates text and music: retrieval, words of captions as tags, real recordings, foreign prompts.

- Retrieval: the clip for a caption of a held-out template among 100 and 1,000 test clips, beside a bag of attributes
  that hears (`evals/attributes.py`: ridge regression on the mean and spread of each mel band of training clips, and the
  caption's words), beside the oracle that counts which of the stated attributes the clips truly have, and chance.
- The modality gap: how far the means of both modalities lie apart, and retrieval and codes with and without them; which
  of the served codes a caption and its clip share, beside another clip's.
- Tags: ROC-AUC of instruments, tempos and mode on test clips, by words of the training captions, beside what the ridge
  regression was trained to say.
- Real recordings, MAPS dev and held-out game music: how often the best instrument tag is YAMNet's family.
- MusicCaps captions: whether the ten best clips have what the caption's aspects name, beside another caption's.

    python evals/quality/mulan.py --data ../shared/data --corpus corpus/v1 --features corpus/features --real corpus/real
    … [--mulan DIR] [--limit 40]

Cost: a few minutes on one core; `--limit` is the number of clips a shard, of recordings and of foreign captions.
"""

from __future__ import annotations

import argparse
import ast
import csv
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1]))
from attributes import Attribute, BagOfAttributes, agreement, hit_rates, roc_auc, stated, summary_of
from harness import ROOT, Outcome, Table, need, parser, publish, surely_above
from peers.yamnet import FAMILY_CLASSES, FamilyJudge, Yamnet
from stretto_embedding.loading import TextEncoder, load_default
from stretto_embedding.models.mulan import INSTRUMENT_TAGS, MODE_TAGS, TEMPO_TAGS, MuLan, build_mulan
from stretto_shared import weights
from stretto_shared.dsp.log_mel import HOP_LENGTH, SAMPLE_RATE_HZ, log_mel
from stretto_shared.metrics.bootstrap import Interval, bootstrap_mean
from stretto_shared.nn.rvq import ResidualVectorQuantizer
from stretto_shared.training.corpus.records import CLIP_SAMPLES, ClipRecord, read_records

JUDGE_RATE_HZ = 16_000
POOLS = ((100, 1), (100, 10), (1000, 1), (1000, 10))
NUM_TRAIN_CLIPS = 4000  # of the baseline
NUM_FOREIGN, NUM_BEST = 200, 10
MAX_SOLOS, MAX_RECORDED, CLIPS_PER_RECORDING = 120, 120, 3
MIN_POSITIVES = 10
VALID_PER_SHARD = 30
GAP_CODES = 64

PROTOCOL = (
    "Test clips of 10.24 s (rendered, pieces kept out of training) and the longest of their captions of templates "
    "that training never used. Retrieval: R@k over pools of 100 and one of 1,000, drawn by seed; equals in random "
    "order. Bag of attributes: ridge regression on mean and standard deviation of 80 log-mel bands, 4,000 training "
    "clips; a text fits by the product of what is heard for the attributes that its words state; it has the "
    "vocabulary of the captions. The oracle counts the stated attributes that the record has. Tags: cosine of clip "
    f"and tag; macro ROC-AUC over families with {MIN_POSITIVES} clips or more; mode: major minus minor. YAMNet: the "
    "family of 14 that is best relative to rendered validation clips of one family, MuLan's relative to all "
    "validation clips; MuLan was trained with captions from YAMNet's tags of other recordings. MusicCaps: share of "
    f"the attributes that the aspects name and the {NUM_BEST} best of all test clips have; shuffled gives each the "
    "clips of another caption. Codes of the gap: one codebook of 64 fitted to validation clips, with and without "
    "the means. Served codes: the share of captions whose code at a level is that of their clip, and of any other "
    "test clip. Intervals: 95 % bootstrap over captions or clips, paired; of recordings, over pieces or tracks, each "
    "the mean of its clips."
)


@dataclass
class Findings:
    """What the parts found, gathered for one report."""

    tables: list[Table] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    passed: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Split:
    """Clips of one split: spectrograms float16 [N, T, M] and records."""

    mels: NDArray[np.float16]
    records: list[ClipRecord]


@dataclass(frozen=True, eq=False)
class Ears:
    """The model under test and the text encoder that it stands on; what they made once is kept."""

    model: MuLan
    encoder: TextEncoder
    read: dict[str, Tensor] = field(default_factory=dict)
    heard: dict[int, Tensor] = field(default_factory=dict)

    def texts(self, texts: Sequence[str], *, raw: bool = False) -> Tensor:
        """Points [N, D] of texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self.read]
        with torch.inference_mode():
            for text, states in zip(new, self.encoder.encode(new), strict=True):
                self.read[text] = self.model.raw_text(torch.from_numpy(states.states.copy())[None])[0]
        points = torch.stack([self.read[text] for text in texts])
        return points if raw else F.normalize(points - self.model.text_mean, dim=1)

    def clips(self, split: Split, *, raw: bool = False) -> Tensor:
        """Points [N, D] of the clips of a split."""
        if id(split) not in self.heard:
            batches = (split.mels[first : first + 32].astype(np.float32) for first in range(0, len(split.mels), 32))
            with torch.inference_mode():
                self.heard[id(split)] = torch.cat([self.model.raw_audio(torch.from_numpy(each)) for each in batches])
        points = self.heard[id(split)]
        return points if raw else F.normalize(points - self.model.audio_mean, dim=1)


def read_split(args: argparse.Namespace, split: str, per_shard: int) -> Split:
    """Up to `per_shard` clips of every shard of a split; 0 takes all."""
    need(args.corpus, "The rendered corpus")
    mels, records = [], []
    for path in sorted(args.corpus.glob(f"clips_{split}_*.jsonl")):
        mel = need(args.features / f"{path.stem.replace('clips_', 'mel_')}.npy", "The features")
        mels.append(np.load(mel, mmap_mode="r")[: per_shard or None])
        records += read_records(path)[: per_shard or None]
    if not records:
        need(args.corpus / f"clips_{split}_0000.jsonl", "The rendered corpus")
    return Split(np.concatenate(mels), records)


def load_mulan(folder: Path) -> MuLan:
    """The exported MuLan in `folder`, verified."""
    resolved = weights.resolve(folder.resolve().as_uri(), name="mulan", default_dir=folder)
    return build_mulan(resolved.config["config"], weights.load_tensors(resolved))


def pooled_rates(scores: NDArray[np.float64], pool: int, most: int) -> NDArray[np.float64]:
    """Hit rates over random pools of `pool` clips of [N, N]; clips that fill no pool are left out."""
    order = np.random.default_rng(0).permutation(len(scores))
    pools = [order[first : first + pool] for first in range(0, len(order) - pool + 1, pool)]
    return np.concatenate([hit_rates(scores[np.ix_(each, each)], most) for each in pools or [order]])


def span(interval: Interval) -> str:
    """`mean [low, high]`."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def triple(interval: Interval) -> list[float]:
    """As programs read it."""
    return [interval.mean, interval.low, interval.high]


def similarity(texts: Tensor, clips: Tensor) -> NDArray[np.float64]:
    """Cosines [texts, clips] of unit vectors."""
    product: NDArray[np.float64] = (texts @ clips.t()).double().numpy()
    return product


def judge_retrieval(ears: Ears, bag: BagOfAttributes, test: Split, found: Findings) -> None:
    """The right clip for each caption."""
    captions = [record.heldout_captions[-1] for record in test.records]
    said = [stated(caption) for caption in captions]
    oracle = np.array([[agreement(words, record) for record in test.records] for words in said], float)
    systems = {
        "MuLan": similarity(ears.texts(captions), ears.clips(test)),
        "bag of attributes": bag.scores(said, summary_of(test.mels)),
        "oracle of the record": oracle,
    }
    pools = [(min(pool, len(captions)), most) for pool, most in POOLS]
    rates = {name: [pooled_rates(scores, *each) for each in pools] for name, scores in systems.items()}
    head = ("", *(f"R@{most} of {pool}" for pool, most in pools))
    rows = [(name, *(span(bootstrap_mean(values)) for values in row)) for name, row in rates.items()]
    chance = ("chance", *(most / pool for pool, most in pools))
    found.tables.append(Table(f"Text to audio, {len(captions)} held-out captions", [head, *rows, chance]))
    found.numbers["retrieval"] = {
        name: {head[1 + place]: triple(bootstrap_mean(values)) for place, values in enumerate(row)}
        for name, row in rates.items()
    }
    for place, (_, most) in enumerate(pools):
        gap = bootstrap_mean(rates["MuLan"][place] - rates["bag of attributes"][place])
        found.passed[f"retrieval_r{most}_of_{POOLS[place][0]}_above_the_bag"] = surely_above(gap)


def codes_of(fitted_to: Tensor, *points: Tensor) -> list[NDArray[np.int64]]:
    """First codes [N] of points [N, D] by one codebook fitted to other points."""
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(fitted_to.shape[1], 1, GAP_CODES)
    quantizer.initialise(fitted_to[:, None])
    return [quantizer.encode(each[:, None])[:, 0, 0].numpy() for each in points]


def judge_gap(ears: Ears, test: Split, valid: Split, found: Findings) -> None:
    """What taking out the means does."""
    captions = [record.heldout_captions[-1] for record in test.records]
    rows: list[tuple[object, ...]] = []
    same: dict[str, NDArray[np.float64]] = {}
    for name, raw in (("with the means (raw)", True), ("without them (as served)", False)):
        text, audio = ears.texts(captions, raw=raw), ears.clips(test, raw=raw)
        of_text, of_audio = codes_of(ears.clips(valid, raw=raw), text, audio)
        same[name] = (of_text == of_audio).astype(float)
        apart = float((text.mean(0) - audio.mean(0)).norm())
        rate = float(pooled_rates(similarity(text, audio), min(100, len(captions)), 1).mean())
        used = len(np.unique(of_text)), len(np.unique(of_audio))
        pair = float((text * audio).sum(1).mean())
        rows.append((name, apart, pair, rate, span(bootstrap_mean(same[name])), *used))
        found.numbers.setdefault("gap", {})[name] = {
            "apart": apart,
            "cosine_of_pairs": pair,
            "r1_of_100": rate,
            "same_code": float(same[name].mean()),
            "used": used,
        }
    head = ("", "means apart", "cosine of pairs", "R@1 of 100", "same first code", "codes of text", "codes of audio")
    found.tables.append(Table("The modality gap", [head, *rows]))
    raw_same, own_same = same.values()
    found.passed["text_and_clip_share_codes_more_without_the_means"] = surely_above(bootstrap_mean(own_same - raw_same))


def shared_codes(
    of_text: NDArray[np.int64], of_audio: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whether codes [N, K] of a text are those of its own clip [N, K], and the share of other clips that have them."""
    own = (of_text == of_audio).astype(float)
    levels = zip(of_text.T, of_audio.T, strict=True)
    everywhere = np.stack([(text[:, None] == audio).sum(1) for text, audio in levels], axis=1)
    return own, (everywhere - own) / (len(of_audio) - 1)


def judge_codes(ears: Ears, test: Split, found: Findings) -> None:
    """Which codes of the shipped quantiser a caption shares with its clip."""
    text = ears.texts([record.heldout_captions[-1] for record in test.records])
    own, other = shared_codes(*(ears.model.quantize(each).numpy() for each in (text, ears.clips(test))))
    rows: list[tuple[object, ...]] = [("codebook", "its own clip's", "another clip's", "difference, paired")]
    for level, (mine, theirs) in enumerate(zip(own.T, other.T, strict=True)):
        same, gap = bootstrap_mean(mine), bootstrap_mean(mine - theirs)
        rows.append((level, span(same), float(theirs.mean()), span(gap)))
        found.numbers.setdefault("served_codes", []).append([*triple(same), float(theirs.mean()), *triple(gap)])
    found.tables.append(Table("Served codes that a caption shares", rows))


def auc_interval(scores: NDArray[np.float64], positive: NDArray[np.bool_], num_resamples: int = 500) -> Interval:
    """ROC-AUC and its bootstrap interval over clips."""
    random = np.random.default_rng(0)
    drawn = [random.integers(len(scores), size=len(scores)) for _ in range(num_resamples)]
    values = [roc_auc(scores[d], positive[d]) for d in drawn if positive[d].any() and not positive[d].all()]
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(roc_auc(scores, positive), float(low), float(high), 0.95, len(scores))


def judge_tags(ears: Ears, bag: BagOfAttributes, test: Split, found: Findings) -> None:
    """Instruments, tempos and mode of test clips by the default tags."""
    clips, summaries = ears.clips(test), summary_of(test.mels)
    rows: list[tuple[object, ...]] = [("", "clips", "positive", "MuLan, by the tag", "bag, trained")]
    means: dict[str, list[tuple[float, float]]] = {}

    def add(
        kind: str, name: str, scores: NDArray[np.float64], trained: NDArray[np.float64], true: NDArray[Any]
    ) -> None:
        if MIN_POSITIVES <= true.sum() <= len(true) - MIN_POSITIVES:
            own, other = auc_interval(scores, true), roc_auc(trained, true)
            means.setdefault(kind, []).append((own.mean, other))
            rows.append((f"{kind}: {name}", len(true), int(true.sum()), span(own), other))
            found.numbers.setdefault("auc", {})[f"{kind}: {name}"] = [*triple(own), other]

    for family, tag in INSTRUMENT_TAGS.items():
        true = np.array([any(use.family == family for use in record.instruments) for record in test.records])
        words = {use.name for record in test.records for use in record.instruments if use.family == family}
        trained = np.sum(
            [bag.heard(Attribute("name", word), summaries) for word in sorted(words)] or [true * 0.0], axis=0
        )
        add("instrument", family, similarity(ears.texts([tag]), clips)[0], trained, true)
    known = np.array([record.tempo_word is not None for record in test.records])
    for word, tag in TEMPO_TAGS.items():
        true = np.array([record.tempo_word == word for record in test.records])[known]
        trained = bag.heard(Attribute("tempo_word", tag), summaries)[known]
        add("tempo", word, similarity(ears.texts([tag]), clips)[0][known], trained, true)
    known = np.array([record.key_mode is not None for record in test.records])
    modes = similarity(ears.texts(list(MODE_TAGS.values())), clips)
    trained = bag.heard(Attribute("key_mode", "major"), summaries) - bag.heard(
        Attribute("key_mode", "minor"), summaries
    )
    true = np.array([record.key_mode == "major" for record in test.records])[known]
    add("mode", "major, not minor", (modes[0] - modes[1])[known], trained[known], true)
    for kind, values in means.items():
        own, other = np.mean(values, axis=0)
        rows.append((f"{kind}: mean", "", "", float(own), float(other)))
        found.numbers["auc"][f"{kind}: mean"] = [float(own), float(other)]
        lows = [
            low for name, (_, low, *_) in found.numbers["auc"].items() if name.startswith(kind) and "mean" not in name
        ]
        found.passed[f"{kind}_tags_above_chance"] = float(np.mean(lows)) > 0.5
    found.tables.append(Table("Words of the training captions as tags: ROC-AUC", rows))


Recorded = tuple[str, NDArray[np.float32]]


def recorded(args: argparse.Namespace) -> dict[str, list[Recorded]]:
    """Pieces and clips of them at 24 kHz: MAPS dev, three a piece, and the game music that training never heard."""
    most = args.limit or MAX_RECORDED
    pianos: list[Recorded] = []
    for path in sorted(need(args.data / "maps" / "dev", "MAPS dev").glob("*.opus"))[: args.limit or None]:
        with soundfile.SoundFile(str(path)) as source:
            for number in range(CLIPS_PER_RECORDING):
                source.seek(
                    min(int((10 + 20 * number) * source.samplerate), max(0, source.frames - 12 * source.samplerate))
                )
                samples = source.read(12 * source.samplerate, dtype="float32", always_2d=True).mean(axis=1)
                clip = soxr.resample(samples, source.samplerate, SAMPLE_RATE_HZ)[:CLIP_SAMPLES]
                pianos.append((path.stem, clip[: len(clip) // HOP_LENGTH * HOP_LENGTH]))
    games: list[Recorded] = []
    for path in sorted(need(args.real, "The corpus of real recordings").glob("clips_test_*.jsonl")):
        clips = np.load(path.with_name(path.name.replace("clips_", "audio_")).with_suffix(".npy"), mmap_mode="r")
        games += [
            (f"{record.source} {record.piece}", clip.astype(np.float32) / 32768)
            for clip, record in zip(clips, read_records(path), strict=True)
            if record.source != "maps"
        ]
    places = np.unique(np.linspace(0, len(games) - 1, min(most, len(games))).round().astype(int))
    return {"MAPS dev": pianos, "held-out game music": [games[place] for place in places]}


def by_piece(values: NDArray[np.float64], pieces: Sequence[str]) -> NDArray[np.float64]:
    """The mean [P] of the values [N] of each piece: clips of one are no independent witnesses."""
    names = np.array(pieces)
    return np.array([values[names == piece].mean() for piece in dict.fromkeys(pieces)])


def agreement_on(
    name: str, own: Sequence[str], theirs: Sequence[str], pieces: Sequence[str], found: Findings
) -> tuple[object, ...]:
    """A row on the families that MuLan and YAMNet name in the clips of some recordings, and a claim, piece by piece."""
    hits = np.array([a == b for a, b in zip(own, theirs, strict=True)], float)
    by_chance = np.array([np.mean([a == b for b in theirs]) for a in own])
    same, gap = (bootstrap_mean(by_piece(each, pieces)) for each in (hits, hits - by_chance))
    chance = same.mean - gap.mean
    pianos = [sum(each == "piano" for each in named) / len(named) for named in (own, theirs)]
    found.numbers.setdefault("recordings", {})[name] = {
        "same": triple(same), "gap": triple(gap), "chance": chance, "pieces": same.num_values, "piano": pianos,
        "own": dict(Counter(own)), "yamnet": dict(Counter(theirs)),
    }  # fmt: skip
    if name == "MAPS dev":
        piano = bootstrap_mean(by_piece(np.array([each == "piano" for each in own], float), pieces))
        found.passed["pianos_of_maps_are_heard_as_pianos"] = surely_above(piano, 0.5)
    else:
        found.passed["agrees_with_yamnet_more_than_by_chance"] = surely_above(gap)
    return name, same.num_values, len(own), span(same), chance, *pianos


def judge_recordings(ears: Ears, valid: Split, args: argparse.Namespace, found: Findings) -> None:
    """MuLan's best instrument tag and YAMNet's family on real recordings."""
    yamnet, families = Yamnet(need(args.data / "judges" / "yamnet", "YAMNet")), list(FAMILY_CLASSES)

    def heard(samples: NDArray[np.floating]) -> NDArray[np.float64]:
        return yamnet.scores(soxr.resample(samples, SAMPLE_RATE_HZ, JUDGE_RATE_HZ).astype(np.float64))

    alone = [
        (path, row, record.instruments[0].family)
        for path in sorted(args.corpus.glob("clips_valid_*.jsonl"))
        for row, record in enumerate(read_records(path))
        if len({use.family for use in record.instruments}) == 1 and record.instruments[0].family in families
    ]
    kept = [alone[place] for place in np.unique(np.linspace(0, len(alone) - 1, args.limit or MAX_SOLOS).astype(int))]
    solos = []
    for path, row, family in kept:
        audio = np.load(path.with_name(path.name.replace("clips_", "audio_")).with_suffix(".npy"), mmap_mode="r")
        solos.append((family, heard(audio[row].astype(np.float32) / 32768)))
    judge = FamilyJudge(yamnet.classes, families, solos)
    tags = ears.texts([INSTRUMENT_TAGS[family] for family in families])
    base = similarity(tags, ears.clips(valid)).mean(1)  # as YAMNet's, each family against its own level
    rows: list[tuple[object, ...]] = [
        ("", "pieces", "clips", "same family", "another clip's", "piano: MuLan", "piano: YAMNet")
    ]
    for name, clips_of_pieces in recorded(args).items():
        pieces, clips = zip(*clips_of_pieces, strict=True)
        points = torch.cat([ears.model.embed_audio(log_mel(torch.from_numpy(clip)[None])).detach() for clip in clips])
        own = [families[place] for place in (similarity(tags, points) - base[:, None]).argmax(0)]
        theirs = [judge.name(heard(clip)) for clip in clips]
        rows.append(agreement_on(name, own, theirs, pieces, found))
    found.tables.append(Table(f"Best of {len(families)} instrument tags on real recordings", rows))


def judge_foreign(ears: Ears, test: Split, args: argparse.Namespace, found: Findings) -> None:
    """Captions of MusicCaps as prompts: what the ten best clips have of what the aspects name."""
    path = need(args.data / "text" / "musiccaps-public.csv", "MusicCaps' captions")
    prompts, wanted = [], []
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            said = frozenset().union(*(stated(aspect) for aspect in ast.literal_eval(row["aspect_list"])))
            said = frozenset(each for each in said if each.kind in ("name", "mood", "tempo_word"))
            if said and len(row["caption"]) < 600:
                prompts.append(row["caption"])
                wanted.append(said)
    order = np.random.default_rng(0).permutation(len(prompts))[: args.limit or NUM_FOREIGN]
    scores = similarity(ears.texts([prompts[place] for place in order]), ears.clips(test))
    best = np.argsort(-scores, axis=1)[:, :NUM_BEST]
    asked = [wanted[place] for place in order]

    def share(said: frozenset[Attribute], clips: NDArray[np.int64]) -> float:
        return float(np.mean([agreement(said, test.records[place]) / len(said) for place in clips]))

    own = np.array([share(said, clips) for said, clips in zip(asked, best, strict=True)])
    other = np.array([share(said, clips) for said, clips in zip(asked, np.roll(best, 1, axis=0), strict=True)])
    gap = bootstrap_mean(own - other)
    rows = [
        ("", "share of the named attributes"),
        ("clips of the caption", span(bootstrap_mean(own))),
        ("clips of another caption", span(bootstrap_mean(other))),
        ("difference, paired", span(gap)),
    ]
    found.tables.append(Table(f"{len(order)} captions of MusicCaps", rows))
    found.numbers["musiccaps"] = {"own": float(own.mean()), "other": float(other.mean()), "gap": triple(gap)}
    found.passed["musiccaps_above_shuffled"] = surely_above(gap)


def main() -> None:
    """Command line."""
    made = parser(__doc__)
    made.add_argument("--corpus", type=Path, default=ROOT / "corpus" / "v1", help="the rendered corpus")
    made.add_argument("--features", type=Path, default=ROOT / "corpus" / "features", help="folder with mel_ of it")
    made.add_argument("--real", type=Path, default=ROOT / "corpus" / "real", help="the corpus of real recordings")
    made.add_argument("--mulan", type=Path, default=ROOT / "services" / "embedding" / "weights" / "mulan")
    args = made.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    ears = Ears(load_mulan(need(args.mulan, "MuLan")), load_default())
    test, valid = read_split(args, "test", args.limit), read_split(args, "valid", args.limit or VALID_PER_SHARD)
    num_shards = len(list(args.corpus.glob("clips_train_*.jsonl")))
    train = read_split(args, "train", -(-NUM_TRAIN_CLIPS // max(1, num_shards)))
    bag = BagOfAttributes(summary_of(train.mels), train.records)
    found = Findings()
    judge_retrieval(ears, bag, test, found)
    judge_gap(ears, test, valid, found)
    judge_codes(ears, test, found)
    judge_tags(ears, bag, test, found)
    judge_recordings(ears, valid, args, found)
    judge_foreign(ears, test, args, found)
    data = f"{len(test.records)} rendered test clips, MAPS dev, held-out game music, captions of MusicCaps"
    publish(Outcome("mulan", PROTOCOL, data, found.tables, found.numbers, found.passed), args)


if __name__ == "__main__":
    main()
