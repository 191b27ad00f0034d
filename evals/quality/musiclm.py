"""What the cascade `musiclm` is worth: whether it plays what it is told, how it sounds, and what its stages are for.

- cycle: cosine of text and sample in the joint space, the own caption against others (true against shuffled), for
  captions of held-out templates of held-out pieces and for MusicCaps captions, beside MusicGen and the clips.
- distance: Frechet distance of the same samples to held-out audio, in YAMNet's space and in our MuLan's,
  beside MusicGen, real clips through the codec (ceiling), and white and pink noise (floor).
- memorisation: continuations of training clips against how they go on, beside held-out clips.
- structure: what the semantic stage does over many seconds (`semantic_stage.py` says what "off" is).
- melody: chroma cosine of the music and a melody, beside the music without it and with another one.
- story: the similarity of each part of a piece to its own prompt and to the other part's.

    python evals/quality/musiclm.py --data ../shared/data --corpus corpus/v1 --parts cycle [--address …] [--quick]

`distance` goes with `cycle`, whose samples it takes. Cost at a real-time factor of 0.8, in minutes: cycle 6,
memorisation 2, structure 6, melody 3, story 3. `--quick` takes a tenth; its claims fail where samples are few.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from choice import Distance
from findings import Findings
from harness import MIN_CLAIM_VALUES, Outcome, Row, Table, need, parser, publish
from judges import YAMNET, Array, Embedded, distances, embed, noise, own_and_others
from peers.yamnet import Yamnet
from quality.musicgen_adherence import chosen, other_scores, own_scores, rendered
from semantic_stage import measure_memorisation, measure_structure
from serving import serving
from stages import Stages, StoryPart, open_stages
from stretto_shared.audio import Waveform
from stretto_shared.dsp.chroma import extract_chroma
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_shared.training.dataset import AudioShards

CLIP_S, MELODY_S, STORY_S = 10.24, 8.0, 20.0  # a clip is one window of the joint encoder
STORY_BLEND_S, STORY_MARGIN_S = 2.0, 1.0
MELODY_PROMPT = "a solo flute plays a melody"
MUSICLM, MUSICGEN = "musiclm", "musicgen"
OWN = "musiclm, held-out captions"
MAX_CAPTION_LENGTH = 240  # of MusicCaps: what a text tower of 64 tokens hears in full
MUSICCAPS = Path("text") / "musiccaps-public.csv"
# Written by hand: each pair differs in instrument, tempo and force.
STORIES = (
    ("solo piano, slow and calm", "energetic rock band with drums"),
    ("solo drums, fast groove", "string quartet, slow"),
    ("church organ, solemn", "acoustic guitar, lively"),
    ("a choir sings slowly", "brass section, loud and fast"),
    ("gentle harp", "pop song with piano, bass and drums"),
    ("solo flute, calm", "solo drums, energetic"),
    ("fast piano, minor key", "a choir, calm"),
    ("string orchestra, sad", "saxophone with bass and drums, lively"),
)

PROTOCOL = (
    "Served by an all-in-one server, default sampling. cycle: a sample's cosine with its own caption minus its mean "
    "cosine with the other captions of its kind. distance: to clips of the test split, none of them of a caption's "
    "piece, on the leading principal axes of those, all sets of one size; nearer where the paired difference's "
    "interval lies below 0; the joint encoder is the one that told the musiclm stages what to play, and its distance "
    "tells music from noise and does not resolve these sets of music. memorisation: greedy, conditioned on the clip's "
    "own embedding; training minus held-out clips. structure: the same prompts and seeds on and off. melody: share of "
    "the prompt's sounding 0.128 s frames whose loudest pitch class is the prompt's. story: one change in the middle; "
    "a part's cosine with its own prompt minus with the other's. Intervals: 95 % bootstrap over samples, paired "
    "differences."
)


@dataclass(frozen=True)
class Counts:
    """How many of each, and how long."""

    clips: int
    references: int
    recitals: int
    structures: int
    structure_s: float
    melodies: int
    stories: int


FULL = Counts(clips=16, references=120, recitals=32, structures=6, structure_s=24.0, melodies=8, stories=8)
QUICK = Counts(clips=2, references=12, recitals=2, structures=2, structure_s=6.0, melodies=2, stories=2)


@dataclass(frozen=True, eq=False)
class Asked:
    """Captions of one kind, and the clips that they describe, if there are any."""

    captions: Sequence[str]
    clips: Sequence[Waveform] = ()


def held_out_captions(shards: AudioShards, indices: Sequence[int]) -> Asked:
    """A caption of a held-out template for each clip."""
    captions = []
    for index in indices:
        own = shards.record(index).heldout_captions
        captions.append(own[int(np.random.default_rng(index).integers(len(own)))])
    return Asked(captions, [rendered(shards, index, CLIP_S) for index in indices])


def musiccaps_captions(path: Path, count: int) -> Asked:
    """Captions that a text tower hears in full, evenly spread over MusicCaps."""
    with path.open(encoding="utf-8") as file:
        fitting = [row["caption"] for row in csv.DictReader(file) if len(row["caption"]) <= MAX_CAPTION_LENGTH]
    places = np.unique(np.linspace(0, len(fitting) - 1, count).round().astype(int))
    return Asked([fitting[place] for place in places])


def pieces_of(shards: AudioShards) -> list[Hashable]:
    """The piece of each clip."""
    records = (shards.record(index) for index in range(len(shards)))
    return [(record.source, record.piece) for record in records]


def split_clips(pieces: Sequence[Hashable], num_asked: int, num_references: int) -> tuple[list[int], list[int]]:
    """Evenly spread clips to take captions of, and clips of other pieces to compare with.

    Raises:
        SystemExit: If there are not twice as many clips as captions, or no clip is of another piece.
    """
    count = len(pieces)
    if 2 * num_asked > count:
        raise SystemExit(f"expected at least {2 * num_asked} test clips, got {count}. Render more, or take --quick.")
    asked = np.unique(np.linspace(0, count - 1, num_asked).round().astype(int))
    known = {pieces[index] for index in asked}
    others = np.array([index for index, piece in enumerate(pieces) if piece not in known], int)
    if not len(others):
        raise SystemExit(f"expected clips of other pieces than the {len(known)} asked for, got none. Render more.")
    places = np.unique(np.linspace(0, len(others) - 1, min(num_references, len(others))).round().astype(int))
    return asked.tolist(), others[places].tolist()


async def measure_cycle(stages: Stages, args: argparse.Namespace, counts: Counts, found: Findings) -> None:
    """Cycle consistency, and the distances of the same samples."""
    yamnet = Yamnet(need(args.data / "judges" / "yamnet", "YAMNet"))
    shards = AudioShards(need(args.corpus, "The rendered corpus"), "test")
    indices, others = split_clips(pieces_of(shards), counts.clips, counts.references)
    kinds = {
        "held-out captions": held_out_captions(shards, indices),
        "MusicCaps": musiccaps_captions(need(args.data / MUSICCAPS, "MusicCaps"), counts.clips),
    }
    sets: dict[str, Embedded] = {}
    texts: dict[str, Array] = {}
    for kind, asked in kinds.items():
        styles = [await stages.style_of_text(caption) for caption in asked.captions]
        texts[kind] = np.stack([style.values for style in styles]).astype(np.float64)
        for cascade in (MUSICLM, MUSICGEN):
            made = [
                await stages.music(caption, duration_s=CLIP_S, seed=seed, cascade=cascade)
                for seed, caption in enumerate(asked.captions)
            ]
            sets[f"{cascade}, {kind}"] = await embed(made, yamnet, stages)
            print(f"{cascade}, {kind}: {len(made)} samples", flush=True)
    real = kinds["held-out captions"].clips
    sets["the clips, held-out captions"] = await embed(real, yamnet, stages)
    report_cycle(sets, texts, found)
    sets["the clips through the codec"] = await embed([await stages.through_codec(c) for c in real], yamnet, stages)
    for colour in ("pink", "white"):
        hiss = [noise(colour, CLIP_S, seed) for seed in range(len(real))]
        sets[f"{colour} noise"] = await embed(hiss, yamnet, stages)
    reference = await embed([rendered(shards, index, CLIP_S) for index in others], yamnet, stages)
    report_distances(reference, sets, found)


def report_cycle(sets: Mapping[str, Embedded], texts: Mapping[str, Array], found: Findings) -> None:
    """What each set of samples, labelled `who, kind`, has in common with its kind's captions."""
    rows: list[Row] = [("", "own caption", "others'", "own minus others'", "95 %")]
    numbers = {}
    for label, clips in sets.items():
        who, _, kind = label.partition(", ")
        own, others = own_and_others(texts[kind], clips.joint())
        gap = bootstrap_mean(own - others)
        rows.append((label, float(own.mean()), float(others.mean()), gap.mean, f"[{gap.low:+.3f}, {gap.high:+.3f}]"))
        numbers[label] = [float(own.mean()), float(others.mean()), gap.mean, gap.low, gap.high]
        if who == "musiclm":
            found.claim_above(f"cycle: own caption above others, {kind}", gap)
    found.tables.append(Table("Cosine of samples and captions in the joint space", rows))
    found.numbers["cycle"] = numbers


def report_distances(reference: Embedded, sets: Mapping[str, Embedded], found: Findings) -> None:
    """How far each set is from the reference in each space."""
    measured = distances(reference, sets)
    rows: list[Row] = [("", *(part for space in measured for part in (space, "95 %")))]
    for label in sets:
        cells: list[object] = [label]
        for by_set in measured.values():
            low, high = by_set[label].interval
            cells += [by_set[label].value, f"[{low:.2f}, {high:.2f}]"]
        rows.append(tuple(cells))
    found.tables.append(Table(f"Frechet distance to {len(next(iter(reference.rows.values())))} held-out clips", rows))
    found.numbers["distance"] = {
        space: {label: [each.value, *each.interval] for label, each in by_set.items()}
        for space, by_set in measured.items()
    }
    claim_distances(measured, len(sets[OWN].rows[YAMNET]), found)


def claim_distances(measured: Mapping[str, Mapping[str, Distance]], num_clips: int, found: Findings) -> None:
    """Nearer than noise and MusicGen, by the paired resamples of as many clips."""
    rivals = {"noise": ("pink noise", "white noise"), "musicgen": ("musicgen, held-out captions",)}
    rows: list[Row] = [("musiclm minus", "space", "difference", "95 %")]
    for space, by_set in measured.items():
        for rival, labels in rivals.items():
            gaps = {label: by_set[OWN] - by_set[label] for label in labels}
            for label, gap in gaps.items():
                low, high = gap.interval
                rows.append((label, space, gap.value, f"[{low:+.2f}, {high:+.2f}]"))
                found.numbers.setdefault("distance_gap", {})[f"{label}, {space}"] = [gap.value, low, high]
            found.passed[f"distance: nearer than {rival}, {space}"] = num_clips >= MIN_CLAIM_VALUES and all(
                gap.interval[1] < 0 for gap in gaps.values()
            )
    found.tables.append(Table("How much farther musiclm is, held-out captions, paired", rows))


async def measure_recital(stages: Stages, args: argparse.Namespace, counts: Counts, found: Findings) -> None:
    """Whether the semantic stage recites."""
    clips = []
    for split in ("train", "test"):
        shards = AudioShards(need(args.corpus, "The rendered corpus"), split)
        places = np.unique(np.linspace(0, len(shards) - 1, counts.recitals).round().astype(int))
        clips.append([rendered(shards, int(place), CLIP_S) for place in places])
    await measure_memorisation(stages, clips[0], clips[1], found)


async def measure_long(stages: Stages, args: argparse.Namespace, counts: Counts, found: Findings) -> None:
    """What the semantic stage does over many seconds."""
    shards = AudioShards(need(args.corpus, "The rendered corpus"), "test")
    indices, _ = split_clips(pieces_of(shards), counts.structures, 1)
    prompts = held_out_captions(shards, indices).captions
    await measure_structure(stages, prompts, found, duration_s=counts.structure_s, with_musicgen=True)


async def measure_melody(stages: Stages, args: argparse.Namespace, counts: Counts, found: Findings) -> None:
    """Music with a melody, without it, and with another clip's."""
    shards, indices = chosen(args.corpus, "test", lambda record: record.texture == "solo melody")
    sounding = [
        clip
        for clip in (rendered(shards, index, MELODY_S) for index in indices)
        if (extract_chroma(clip).pitch_classes >= 0).mean() > 0.5
    ]
    places = np.unique(np.linspace(0, len(sounding) - 1, counts.melodies).round().astype(int))
    melodies = [sounding[place] for place in places]
    asked = [extract_chroma(melody).pitch_classes for melody in melodies]
    heard, free = [], []
    for seed, melody in enumerate(melodies):
        for told, into in ((melody, heard), (None, free)):
            music = await stages.music(MELODY_PROMPT, duration_s=MELODY_S, seed=seed, melody=told)
            into.append(extract_chroma(music).pitch_classes)
    report_melody(own_scores(asked, heard), own_scores(asked, free), other_scores(asked, heard), found)


def report_melody(followed: Array, without: Array, others: Array, found: Findings) -> None:
    """Chroma cosines [N] of music and its melody, of music without one, and of music and other melodies."""
    scores = {
        "with the melody": followed,
        "without it": without,
        "against other melodies": others,
        "with minus without": followed - without,
        "own minus other melodies": followed - others,
    }
    intervals = {label: bootstrap_mean(values) for label, values in scores.items()}
    found.add_intervals("melody", f"Chroma cosine, {len(followed)} melodies", intervals)
    found.claim_above("melody: above without", intervals["with minus without"])
    found.claim_above("melody: own above others", intervals["own minus other melodies"])


async def measure_story(stages: Stages, args: argparse.Namespace, counts: Counts, found: Findings) -> None:
    """Pieces that change in the middle."""
    gains: dict[str, list[float]] = {"first part": [], "second part": []}
    for seed, (first, second) in enumerate(STORIES[: counts.stories]):
        middle_s = STORY_S / 2
        piece = await stages.music(
            first, duration_s=STORY_S, seed=seed, story=[StoryPart(middle_s, second, STORY_BLEND_S)]
        )
        texts = [(await stages.style_of_text(text)).values for text in (first, second)]
        spans = ((0.0, middle_s - STORY_MARGIN_S), (middle_s + STORY_BLEND_S + STORY_MARGIN_S, STORY_S))
        parts = [(await stages.style_of_audio(part_of(piece, *span))).values for span in spans]
        gains["first part"].append(float(parts[0] @ (texts[0] - texts[1])))
        gains["second part"].append(float(parts[1] @ (texts[1] - texts[0])))
    report_story(gains, found)


def part_of(piece: Waveform, start_s: float, end_s: float) -> Waveform:
    """A stretch of a piece."""
    start, end = (round(seconds * piece.sample_rate_hz) for seconds in (start_s, end_s))
    return Waveform(piece.samples[:, start:end], piece.sample_rate_hz)


def report_story(gains: Mapping[str, Sequence[float]], found: Findings) -> None:
    """How much nearer each part is to its own prompt than to the other's; the sum of both is what the change is worth.

    One part alone may lean to one of the prompts whatever is asked, and then the other part leans there too.
    """
    pieces = list(zip(*gains.values(), strict=True))
    scores = {label: bootstrap_mean(values) for label, values in gains.items()}
    scores["both parts"] = bootstrap_mean([sum(piece) for piece in pieces])
    found.add_intervals("story", f"Own prompt minus the other's, {len(pieces)} stories", scores)
    for label in ("first part", "second part", "both parts"):
        found.claim_above(f"story: {label} nearer its own prompt", scores[label])


PARTS = {
    "cycle": measure_cycle,
    "memorisation": measure_recital,
    "structure": measure_long,
    "melody": measure_melody,
    "story": measure_story,
}


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, Counts]:
    """The options, and how much to measure; `--limit` caps every count."""
    options = parser(__doc__)
    options.add_argument("--corpus", type=Path, default=Path("corpus/v1"), help="the rendered corpus")
    options.add_argument("--address", default="", help="a running server; empty starts one in a process of its own")
    options.add_argument("--parts", default=",".join(PARTS), help=f"comma list of {', '.join(PARTS)}")
    options.add_argument("--quick", action="store_true", help="a few short samples of each part")
    for name in ("clips", "references", "recitals", "structures", "melodies", "stories"):
        options.add_argument(f"--{name}", type=int, default=0, help=f"instead of {getattr(FULL, name)}")
    args = options.parse_args(arguments)
    counts = QUICK if args.quick else FULL
    given = {name: value for name, value in vars(args).items() if name in vars(FULL) and value}
    merged = {**vars(counts), **given}
    if args.limit:
        merged = {name: value if name == "structure_s" else min(value, args.limit) for name, value in merged.items()}
    unknown = [part for part in args.parts.split(",") if part not in PARTS]
    if unknown:
        options.error(f"--parts: expected some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    return args, Counts(**merged)


async def main() -> None:
    """Command line."""
    args, counts = parse()
    found = Findings()
    async with serving(args.address, args.threads or 1) as client:
        models = (await client.list_models()).models
        async with open_stages(client.address) as stages:
            for part in args.parts.split(","):
                start = time.perf_counter()
                await PARTS[part](stages, args, counts, found)
                print(f"{part}: {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
    ids = [model.model_id for model in models if model.name.partition("_")[0] in ("musiclm", "mulan", "melody")]
    found.numbers["models"] = ids
    name = "musiclm" if args.parts == ",".join(PARTS) else f"musiclm_{args.parts.replace(',', '_')}"
    data = f"test split of the rendered corpus, MusicCaps captions; {vars(counts)}; models {', '.join(ids)}"
    publish(Outcome(name, PROTOCOL, data, found.tables, found.numbers, found.passed), args)


if __name__ == "__main__":
    asyncio.run(main())
