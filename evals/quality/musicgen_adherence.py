"""Whether generated music is what was asked: its instrument, its tempo, its melody.

Every judge is first checked on rendered test clips, whose truth is known: that is the ceiling, and is printed.

- Instrument: YAMNet (DATA/judges/yamnet, needs ai-edge-litert) names one family of those asked for; guidance 3 and 1.
- Tempo: a plain autocorrelation tracker hears the tempo asked, within 4 %, and within 4 % of a simple multiple.
- Melody: chroma cosine of the music and a melody prompt; beside the same request without the melody, and beside
  other clips' melodies.

    python evals/quality/musicgen_adherence.py --data ../shared/data --corpus corpus/v1 [--address …] [--limit 1]
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
from harness import Outcome, Table, generate, mono, need, open_client, parser, publish
from peers.yamnet import FamilyJudge, Yamnet
from stretto_client import StrettoClient
from stretto_shared.audio import Waveform
from stretto_shared.dsp.chroma import extract_chroma
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_shared.metrics.melody import chroma_cosine
from stretto_shared.metrics.tempo import estimate_tempo_bpm, tempo_agrees
from stretto_shared.training.corpus.records import ClipRecord
from stretto_shared.training.dataset import AudioShards

JUDGE_RATE_HZ = 16_000
PROMPTS = {
    "piano": "solo piano, calm",
    "organ": "solo church organ",
    "guitar": "solo acoustic guitar",
    "strings": "string quartet, slow",
    "choir": "a choir singing",
    "brass": "brass section",
    "flute": "solo flute, slow melody",
    "drums": "solo drums, energetic groove",
}
GUIDANCES = (3.0, 1.0)
CLIP_S, TEMPO_CLIP_S = 5.0, 10.0
TEMPO_PROMPTS = ("solo drums, rock groove at {bpm:.0f} bpm", "pop, piano, bass and drums, {bpm:.0f} BPM")
TEMPOS_BPM = (75, 90, 105, 120, 140, 160)
MELODY_PROMPT = "solo flute melody"
MAX_CHECK_CLIPS = 120

PROTOCOL = (
    f"Clips of {CLIP_S:g} s for instruments and melodies, {TEMPO_CLIP_S:g} s for tempos, through the client, default "
    "sampling. Instrument: highest family by YAMNet's mean class scores, each family relative to its mean on rendered "
    "validation clips; chance is one of the families. Tempo: accuracy within 4 %, and of 1/3, 1/2, 1, 2 or 3 times it. "
    "Melody: share of 0.128 s frames whose loudest pitch class is the prompt's. Intervals: 95 % bootstrap over clips."
)


@dataclass
class Findings:
    """What the parts found, gathered for one report."""

    tables: list[Table] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    passed: dict[str, bool] = field(default_factory=dict)


class InstrumentJudge:
    """YAMNet's choice among the asked families, calibrated on rendered validation clips."""

    def __init__(self, yamnet: Yamnet, corpus: Path, families: Sequence[str]) -> None:
        self._yamnet = yamnet
        solos = [(family, self._scores(clip)) for family, clip in solo_clips(corpus, "valid", families)]
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


def chosen(corpus: Path, split: str, wanted: Callable[[ClipRecord], bool]) -> tuple[AudioShards, list[int]]:
    """The clips of a split that fit, evenly spread over it and not too many."""
    shards = AudioShards(need(corpus, "The rendered corpus"), split)
    fitting = [index for index in range(len(shards)) if wanted(shards.record(index))]
    spread = np.unique(np.linspace(0, len(fitting) - 1, min(len(fitting), MAX_CHECK_CLIPS)).round().astype(int))
    return shards, [fitting[position] for position in spread] if fitting else []


def solo_clips(corpus: Path, split: str, families: Sequence[str]) -> list[tuple[str, Waveform]]:
    """Rendered clips in which one of the families sounds alone, cut to the length of generated ones."""

    def alone(record: ClipRecord) -> bool:
        return len({use.family for use in record.instruments}) == 1 and record.instruments[0].family in families

    shards, indices = chosen(corpus, split, alone)
    return [(shards.record(i).instruments[0].family, rendered(shards, i, CLIP_S)) for i in indices]


async def judge_instruments(client: StrettoClient, args: argparse.Namespace, found: Findings) -> None:
    """Families asked for and families named."""
    judge = InstrumentJudge(Yamnet(need(args.data / "judges" / "yamnet", "YAMNet")), args.corpus, list(PROMPTS))
    checks = [(family, judge.name(clip)) for family, clip in solo_clips(args.corpus, "test", list(PROMPTS))]
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
    found.passed["instrument_above_chance"] = guided.low > chance
    found.passed["instrument_more_often_with_guidance_3"] = bool(
        np.mean(right["guidance 3"]) > np.mean(right["guidance 1"])
    )


def tempo_row(label: str, pairs: Sequence[tuple[float, float]]) -> tuple[str, float, float, int]:
    """Accuracy 1 and accuracy 2 of (asked, heard)."""
    exact = float(np.mean([tempo_agrees(asked, heard) for asked, heard in pairs]))
    loose = float(np.mean([tempo_agrees(asked, heard, octaves=True) for asked, heard in pairs]))
    return label, exact, loose, len(pairs)


async def judge_tempos(client: StrettoClient, args: argparse.Namespace, found: Findings) -> None:
    """Tempos asked for and tempos heard."""

    def rhythmic(record: ClipRecord) -> bool:
        return record.tempo_bpm is not None and any(use.family == "drums" for use in record.instruments)

    shards, indices = chosen(args.corpus, "test", rhythmic)
    truths = [shards.record(index).tempo_bpm or 0.0 for index in indices]
    checks = [
        (truth, estimate_tempo_bpm(at_judge_rate(rendered(shards, index, TEMPO_CLIP_S)), JUDGE_RATE_HZ))
        for truth, index in zip(truths, indices, strict=True)
    ]
    asked = [(template, bpm) for bpm in TEMPOS_BPM for template in TEMPO_PROMPTS][: 2 * args.limit or None]
    pairs = []
    for number, (template, bpm) in enumerate(asked):
        clip, _ = await generate(client, template.format(bpm=bpm), duration_s=TEMPO_CLIP_S, seed=number)
        try:
            heard_bpm = estimate_tempo_bpm(at_judge_rate(clip), JUDGE_RATE_HZ)
        except ValueError:  # nothing begins in the clip: no tempo was heard, which no asked tempo agrees with
            heard_bpm = 1.0
        pairs.append((float(bpm), heard_bpm))
    # Chance: what the same heard tempos score against every tempo that was asked.
    shuffled = [(other, heard) for other, _ in pairs for _, heard in pairs]
    rows = [
        tempo_row("rendered test clips with drums (ceiling)", checks),
        tempo_row("generated", pairs),
        tempo_row("generated, against every asked tempo (chance)", shuffled),
    ]
    log_ratios = np.log(np.array(pairs))
    correlation = float(np.corrcoef(log_ratios.T)[0, 1]) if np.ptp(log_ratios, axis=0).all() else 0.0
    found.tables += [
        Table("Tempo", [("", "within 4 %", "or a multiple", "clips"), *rows]),
        Table("Tempos", [("asked bpm", "heard bpm"), *((f"{a:g}", f"{h:.1f}") for a, h in pairs)]),
    ]
    found.numbers["tempo"] = {label: [exact, loose] for label, exact, loose, _ in rows}
    found.numbers["tempo"]["log_correlation"] = correlation
    found.passed["tempo_above_chance"] = rows[1][2] > rows[2][2]


async def judge_melodies(client: StrettoClient, args: argparse.Namespace, found: Findings) -> None:
    """Melodies asked for and melodies heard."""
    shards, indices = chosen(args.corpus, "test", lambda record: record.texture == "solo melody")
    wanted = args.limit or args.melodies
    indices = [indices[i] for i in np.linspace(0, len(indices) - 1, max(2, wanted)).round().astype(int)]
    melodies = [rendered(shards, index, CLIP_S) for index in indices]
    asked = [extract_chroma(melody).pitch_classes for melody in melodies]
    followed, free, shuffled, coded = [], [], [], []
    heard = []
    for seed, melody in enumerate(melodies):
        tokens = (await client.encode_audio(melody)).tokens
        decoded = [chunk.waveform.samples async for chunk in client.decode_tokens(tokens)]
        round_trip = Waveform(np.concatenate(decoded, axis=1), melody.sample_rate_hz)
        coded.append(chroma_cosine(asked[seed], extract_chroma(round_trip).pitch_classes))
        clip, _ = await generate(client, MELODY_PROMPT, duration_s=CLIP_S, seed=seed, melody=melody)
        plain, _ = await generate(client, MELODY_PROMPT, duration_s=CLIP_S, seed=seed)
        heard.append(extract_chroma(clip).pitch_classes)
        followed.append(chroma_cosine(asked[seed], heard[seed]))
        free.append(chroma_cosine(asked[seed], extract_chroma(plain).pitch_classes))
    for seed, own in enumerate(heard):
        others = [chroma_cosine(other, own) for number, other in enumerate(asked) if number != seed]
        shuffled.append(float(np.mean(others)))
    gap = bootstrap_mean(np.array(followed) - np.array(free))
    other_gap = bootstrap_mean(np.array(followed) - np.array(shuffled))
    rows = [
        ("the melody itself through the codec (ceiling)", float(np.mean(coded)), ""),
        ("with the melody", float(np.mean(followed)), ""),
        ("without it", float(np.mean(free)), ""),
        ("with it, against other melodies", float(np.mean(shuffled)), ""),
        ("with minus without", gap.mean, f"[{gap.low:.3f}, {gap.high:.3f}]"),
        ("own minus other melodies", other_gap.mean, f"[{other_gap.low:.3f}, {other_gap.high:.3f}]"),
    ]
    found.tables.append(Table(f"Chroma cosine, {len(melodies)} melodies", [("", "cosine", "95 %"), *rows]))
    found.numbers["melody"] = {
        "ceiling": float(np.mean(coded)),
        "with": float(np.mean(followed)),
        "without": float(np.mean(free)),
        "others": float(np.mean(shuffled)),
        "with_minus_without": [gap.mean, gap.low, gap.high],
        "own_minus_others": [other_gap.mean, other_gap.low, other_gap.high],
    }
    found.passed["melody_above_without"] = gap.low > 0


PARTS = {"instruments": judge_instruments, "tempos": judge_tempos, "melodies": judge_melodies}


async def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--corpus", type=Path, default=Path("corpus/v1"), help="the rendered corpus")
    options.add_argument("--address", default="", help="a running server; empty starts one in this process")
    options.add_argument("--seeds", type=int, default=3, help="clips for each family and guidance")
    options.add_argument("--melodies", type=int, default=8, help="melody prompts")
    options.add_argument("--parts", default=",".join(PARTS), help="comma list of instruments, tempos, melodies")
    args = options.parse_args()
    found = Findings()
    async with open_client(args.address) as client:
        models = (await client.list_models()).models
        for part in args.parts.split(","):
            await PARTS[part](client, args, found)
            print(f"{part}: done", flush=True)
    ids = [model.model_id for model in models if model.is_default]
    data = f"prompts of this file; judges checked on the rendered corpus' test split; models {', '.join(ids)}"
    found.numbers["models"] = ids
    publish(Outcome("musicgen_adherence", PROTOCOL, data, found.tables, found.numbers, found.passed), args)


if __name__ == "__main__":
    asyncio.run(main())
