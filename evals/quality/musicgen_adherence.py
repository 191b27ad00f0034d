"""Whether generated music is what was asked: its instrument, its tempo, its melody.

Every judge is first checked on rendered test clips, whose truth is known: that is the ceiling, and is printed.

- Instrument: YAMNet (DATA/judges/yamnet, needs ai-edge-litert) names one family of those asked for; guidance 3 and 1.
- Tempo: a plain autocorrelation tracker hears the tempo asked, within 4 %, and within 4 % of a simple multiple; beside
  what the same answers score against the other tempos that were asked.
- Melody: chroma cosine of the music and a melody prompt; beside the same request without the melody, and beside
  other clips' melodies.

    python evals/quality/musicgen_adherence.py --data ../shared/data --corpus corpus/v1 [--address …] [--limit 1]

Cost: 480 s of music for instruments, 480 for tempos, 120 for melodies, so at a real-time factor of 0.15 three minutes,
and one for the checks of the judges. `--limit 1` takes a quarter of it; its claims fail where clips are few.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, generate, mono, need, open_client, parser, publish, surely_above
from peers.yamnet import FamilyJudge, Yamnet
from served import report_name
from stretto_client import StrettoClient
from stretto_shared.audio import Waveform
from stretto_shared.dsp.chroma import extract_chroma
from stretto_shared.metrics.bootstrap import Interval, bootstrap_mean
from stretto_shared.metrics.melody import chroma_cosine
from stretto_shared.metrics.tempo import estimate_tempo_bpm, tempo_agrees
from stretto_shared.training.corpus.records import ClipRecord
from stretto_shared.training.dataset import AudioShards

JUDGE_RATE_HZ = 16_000
# Written by hand as people ask; none is a training caption word for word.
PROMPTS = {
    "piano": "solo piano, calm",
    "organ": "solo church organ, solemn",
    "guitar": "solo acoustic guitar, gentle, unhurried",
    "strings": "string quartet, slow",
    "choir": "a choir singing",
    "brass": "brass section, proud",
    "flute": "solo flute, slow melody",
    "drums": "solo drums, energetic groove",
}
GUIDANCES = (3.0, 1.0)
CLIP_S, TEMPO_CLIP_S = 5.0, 10.0
TEMPO_PROMPTS = ("solo drums, rock groove at {bpm:.0f} bpm", "pop, piano, bass and drums, {bpm:.0f} BPM")
# No two are simple multiples of each other; the first two lie far apart, for a quick check.
TEMPOS_BPM = (75, 160, 90, 120, 105, 140)
MELODY_PROMPT = "solo flute melody"
MAX_CHECK_CLIPS = 120

PROTOCOL = (
    f"Clips of {CLIP_S:g} s for instruments and melodies, {TEMPO_CLIP_S:g} s for tempos, through the client, default "
    "sampling. Instrument: highest family by YAMNet's mean class scores, each family relative to its mean on rendered "
    "validation clips; chance is one of the families; the gain of guidance is paired by prompt and seed. Tempo: "
    "accuracy within 4 %, and of 1/3, 1/2, 1, 2 or 3 times it; chance is the share of the other tempos asked that the "
    "same answer would have met, and the claim is on the paired "
    "difference, multiples allowed. Melody: share of the prompt's sounding 0.128 s frames whose loudest pitch class is "
    "the prompt's; the same music against the other prompts, and music without the melody, are the controls. "
    "Intervals: 95 % bootstrap over clips."
)


@dataclass
class Findings:
    """What the parts found, gathered for one report."""

    tables: list[Table] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    passed: dict[str, bool] = field(default_factory=dict)


class InstrumentJudge:
    """YAMNet's choice among the asked families, calibrated on rendered validation clips."""

    def __init__(self, yamnet: Yamnet, corpus: Path, families: Sequence[str], num_clips: int) -> None:
        self._yamnet = yamnet
        solos = [(family, self._scores(clip)) for family, clip in solo_clips(corpus, "valid", families, num_clips)]
        self._judge = FamilyJudge(yamnet.classes, families, solos)

    def _scores(self, clip: Waveform) -> NDArray[np.float64]:
        return self._yamnet.scores(at_judge_rate(clip))

    def name(self, clip: Waveform) -> str:
        """The family that the clip sounds like most."""
        return self._judge.name(self._scores(clip))


def at_judge_rate(clip: Waveform) -> NDArray[np.float64]:
    """Mono samples at 16 kHz."""
    samples: NDArray[np.float64] = soxr.resample(mono(clip), clip.sample_rate_hz, JUDGE_RATE_HZ)
    return samples


def rendered(shards: AudioShards, index: int, duration_s: float) -> Waveform:
    """The beginning of a rendered clip."""
    samples = shards.clip(index)[: int(duration_s * 24_000)].astype(np.float32)
    return Waveform(samples / np.float32(32768), 24_000)


def chosen(
    corpus: Path, split: str, wanted: Callable[[ClipRecord], bool], most: int = MAX_CHECK_CLIPS
) -> tuple[AudioShards, list[int]]:
    """The clips of a split that fit, evenly spread over it and not too many.

    Raises:
        SystemExit: If none fits.
    """
    shards = AudioShards(need(corpus, "The rendered corpus"), split)
    fitting = [index for index in range(len(shards)) if wanted(shards.record(index))]
    if not fitting:
        raise SystemExit(f"No clip of the {split} split of {corpus} fits what the judge is checked with. Render more.")
    spread = np.unique(np.linspace(0, len(fitting) - 1, min(len(fitting), most)).round().astype(int))
    return shards, [fitting[position] for position in spread]


def check_count(args: argparse.Namespace) -> int:
    """How many rendered clips check a judge: fewer for a quick check, yet enough to see it fail."""
    return min(MAX_CHECK_CLIPS, 16 * args.limit) if args.limit else MAX_CHECK_CLIPS


def solo_clips(corpus: Path, split: str, families: Sequence[str], most: int) -> list[tuple[str, Waveform]]:
    """Rendered clips in which one of the families sounds alone, cut to the length of generated ones."""

    def alone(record: ClipRecord) -> bool:
        return len({use.family for use in record.instruments}) == 1 and record.instruments[0].family in families

    shards, indices = chosen(corpus, split, alone, most)
    return [(shards.record(i).instruments[0].family, rendered(shards, i, CLIP_S)) for i in indices]


async def judge_instruments(client: StrettoClient, args: argparse.Namespace, found: Findings) -> None:
    """Families asked for and families named."""
    yamnet, count = Yamnet(need(args.data / "judges" / "yamnet", "YAMNet")), check_count(args)
    judge = InstrumentJudge(yamnet, args.corpus, list(PROMPTS), count)
    checks = [(family, judge.name(clip)) for family, clip in solo_clips(args.corpus, "test", list(PROMPTS), count)]
    right = {"rendered test clips (ceiling)": [asked == named for asked, named in checks]}
    by_family: dict[str, list[object]] = {family: [family] for family in PROMPTS}
    for family, row in by_family.items():
        of_family = [asked == named for asked, named in checks if asked == family]
        row.append(f"{sum(of_family)}/{len(of_family)}")
    for guidance in GUIDANCES:
        hits = []
        for family, prompt in PROMPTS.items():
            named = []
            for seed in range(args.limit or args.seeds):
                clip, _ = await generate(client, prompt, duration_s=CLIP_S, seed=seed, guidance_scale=guidance)
                named.append(judge.name(clip))
            hits += [name == family for name in named]
            by_family[family].append(f"{named.count(family)}/{len(named)} ({', '.join(sorted(set(named)))})")
        right[f"guidance {guidance:g}"] = hits
    chance = 1 / len(PROMPTS)
    rows = []
    for label, hits in right.items():
        interval = bootstrap_mean(np.array(hits, float))
        rows.append((label, interval.mean, f"[{interval.low:.3f}, {interval.high:.3f}]", len(hits)))
        found.numbers.setdefault("instrument", {})[label] = [interval.mean, interval.low, interval.high]
    found.numbers["instrument"]["chance"] = chance
    head = ("family", "rendered", *(f"guidance {g:g} (named)" for g in GUIDANCES))
    found.tables += [
        Table("Instrument named by YAMNet", [("", "share", "95 %", "clips"), *rows, ("chance", chance, "", "")]),
        Table("By family", [head, *by_family.values()]),
    ]
    guided = bootstrap_mean(np.array(right["guidance 3"], float))
    found.passed["instrument_above_chance"] = surely_above(guided, chance)
    gained = bootstrap_mean(np.array(right["guidance 3"], float) - np.array(right["guidance 1"], float))
    found.numbers["instrument"]["guidance 3 minus 1"] = [gained.mean, gained.low, gained.high]
    found.passed["instrument_more_often_with_guidance_3"] = surely_above(gained)


@dataclass(frozen=True)
class TempoScore:
    """Shares of (asked, heard) that agree, and what the same answers score against the other tempos asked."""

    exact: float
    exact_chance: float
    loose: float
    loose_chance: float
    gap: Interval  # loose, own minus others

    def row(self, label: str) -> tuple[object, ...]:
        """As the table shows it."""
        span = f"{self.gap.mean:+.3f} [{self.gap.low:+.3f}, {self.gap.high:+.3f}]"
        return label, self.exact, self.exact_chance, self.loose, self.loose_chance, span, self.gap.num_values

    def numbers(self) -> dict[str, object]:
        """As programs read it."""
        return {
            "exact": [self.exact, self.exact_chance],
            "or_a_multiple": [self.loose, self.loose_chance],
            "gap": [self.gap.mean, self.gap.low, self.gap.high],
        }


def score_tempos(pairs: Sequence[tuple[float, float]]) -> TempoScore:
    """Score (asked, heard) tempos; at least two tempos were asked.

    Raises:
        ValueError: If all asked for one tempo, so that there is no chance to compare with.
    """
    own, others = [], []
    for asked, heard in pairs:
        different = [other for other, _ in pairs if not tempo_agrees(asked, other)]
        if not different:
            raise ValueError("at least two tempos must be asked for.")
        own.append([tempo_agrees(asked, heard, octaves=loose) for loose in (False, True)])
        others.append([np.mean([tempo_agrees(o, heard, octaves=loose) for o in different]) for loose in (False, True)])
    exact, loose = np.mean(own, axis=0)
    exact_chance, loose_chance = np.mean(others, axis=0)
    gap = bootstrap_mean(np.array(own, float)[:, 1] - np.array(others)[:, 1])
    return TempoScore(float(exact), float(exact_chance), float(loose), float(loose_chance), gap)


def heard_tempo_bpm(clip: Waveform) -> float:
    """The tempo that the tracker hears; 1, which no asked tempo agrees with, where nothing begins in the clip."""
    try:
        return estimate_tempo_bpm(at_judge_rate(clip), JUDGE_RATE_HZ)
    except ValueError:
        return 1.0


async def judge_tempos(client: StrettoClient, args: argparse.Namespace, found: Findings) -> None:
    """Tempos asked for and tempos heard."""

    def rhythmic(record: ClipRecord) -> bool:
        return record.tempo_bpm is not None and any(use.family == "drums" for use in record.instruments)

    shards, indices = chosen(args.corpus, "test", rhythmic, check_count(args))
    checks = [
        (shards.record(index).tempo_bpm or 0.0, heard_tempo_bpm(rendered(shards, index, TEMPO_CLIP_S)))
        for index in indices
    ]
    asked = [(template, bpm) for bpm in TEMPOS_BPM for template in TEMPO_PROMPTS][
        : 2 * max(args.limit, 2) if args.limit else None
    ]
    pairs = []
    for number, (template, bpm) in enumerate(asked * (1 if args.limit else args.takes)):
        clip, _ = await generate(client, template.format(bpm=bpm), duration_s=TEMPO_CLIP_S, seed=number)
        pairs.append((float(bpm), heard_tempo_bpm(clip)))
    ceiling, generated = score_tempos(checks), score_tempos(pairs)
    log_pairs = np.log(np.array(pairs))
    correlation = float(np.corrcoef(log_pairs.T)[0, 1]) if np.ptp(log_pairs, axis=0).all() else 0.0
    head = ("", "within 4 %", "chance", "or a multiple", "chance", "own minus others", "clips")
    found.tables += [
        Table("Tempo", [head, ceiling.row("rendered test clips with drums (ceiling)"), generated.row("generated")]),
        Table("Tempos", [("asked bpm", "heard bpm"), *((f"{a:g}", f"{h:.1f}") for a, h in pairs)]),
    ]
    found.numbers["tempo"] = {"ceiling": ceiling.numbers(), "generated": generated.numbers()}
    found.numbers["tempo"]["log_correlation"] = correlation
    found.passed["tempo_above_chance"] = surely_above(generated.gap)


async def judge_melodies(client: StrettoClient, args: argparse.Namespace, found: Findings) -> None:
    """Melodies asked for and melodies heard."""
    shards, indices = chosen(args.corpus, "test", lambda record: record.texture == "solo melody")
    clips = [rendered(shards, index, CLIP_S) for index in indices]
    sounding = [clip for clip in clips if (extract_chroma(clip).pitch_classes >= 0).mean() > 0.5]
    places = np.linspace(0, len(sounding) - 1, max(2, args.limit or args.melodies)).round().astype(int)
    melodies = [sounding[place] for place in np.unique(places)]
    asked = [extract_chroma(melody).pitch_classes for melody in melodies]
    heard: list[NDArray[np.int32]] = []
    free, coded = list(heard), list(heard)
    for seed, melody in enumerate(melodies):
        tokens = (await client.encode_audio(melody)).tokens
        decoded = [chunk.waveform.samples async for chunk in client.decode_tokens(tokens)]
        round_trip = Waveform(np.concatenate(decoded, axis=1), melody.sample_rate_hz)
        clip, _ = await generate(client, MELODY_PROMPT, duration_s=CLIP_S, seed=seed, melody=melody)
        plain, _ = await generate(client, MELODY_PROMPT, duration_s=CLIP_S, seed=seed)
        for place, made in ((coded, round_trip), (heard, clip), (free, plain)):
            place.append(extract_chroma(made).pitch_classes)
    scores = {
        "the melody itself through the codec (ceiling)": own_scores(asked, coded),
        "with the melody": own_scores(asked, heard),
        "without it": own_scores(asked, free),
        "with it, against other melodies": other_scores(asked, heard),
    }
    followed = scores["with the melody"]
    scores["with minus without"] = followed - scores["without it"]
    scores["own minus other melodies"] = followed - scores["with it, against other melodies"]
    intervals = {label: bootstrap_mean(values) for label, values in scores.items()}
    rows, numbers = [], {}
    for label, interval in intervals.items():
        rows.append((label, interval.mean, f"[{interval.low:.3f}, {interval.high:.3f}]"))
        numbers[label] = [interval.mean, interval.low, interval.high]
    found.tables.append(Table(f"Chroma cosine, {len(melodies)} melodies", [("", "cosine", "95 %"), *rows]))
    found.numbers["melody"] = numbers
    found.passed["melody_above_without"] = surely_above(intervals["with minus without"])
    found.passed["own_melody_above_others"] = surely_above(intervals["own minus other melodies"])


def own_scores(asked: Sequence[NDArray[np.int32]], heard: Sequence[NDArray[np.int32]]) -> NDArray[np.float64]:
    """Chroma cosine [N] of each melody and what answered it."""
    return np.array([chroma_cosine(own, each) for own, each in zip(asked, heard, strict=True)])


def other_scores(asked: Sequence[NDArray[np.int32]], heard: Sequence[NDArray[np.int32]]) -> NDArray[np.float64]:
    """Mean chroma cosine [N] of each answer and the melodies that it does not answer."""
    return np.array(
        [np.mean([chroma_cosine(other, own) for j, other in enumerate(asked) if j != i]) for i, own in enumerate(heard)]
    )


PARTS = {"instruments": judge_instruments, "tempos": judge_tempos, "melodies": judge_melodies}


async def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--corpus", type=Path, default=Path("corpus/v1"), help="the rendered corpus")
    options.add_argument("--address", default="", help="a running server; empty starts one in this process")
    options.add_argument("--seeds", type=int, default=6, help="clips for each family and guidance")
    options.add_argument("--takes", type=int, default=4, help="clips for each tempo and prompt")
    options.add_argument("--melodies", type=int, default=12, help="melody prompts")
    options.add_argument("--parts", default=",".join(PARTS), help="comma list of instruments, tempos, melodies")
    args = options.parse_args()
    found = Findings()
    async with open_client(args.address) as client:
        models = (await client.list_models()).models
        for part in args.parts.split(","):
            await PARTS[part](client, args, found)
            print(f"{part}: done", flush=True)
    defaults = [model for model in models if model.is_default]
    ids = [model.model_id for model in defaults]
    data = f"prompts of this file; judges checked on the rendered corpus' test split; models {', '.join(ids)}"
    found.numbers["models"] = ids
    name = report_name("musicgen_adherence", defaults)
    publish(Outcome(name, PROTOCOL, data, found.tables, found.numbers, found.passed), args)


if __name__ == "__main__":
    asyncio.run(main())
