"""Beats, downbeats, metre and onsets: the decoder on published activations, and the tracker on held-out audio.

First, the decoder alone on the activations of 2,134 real tracks (`beats/ismir2019_beats.npz`), beside the F-measures
that the published tracker reaches on them. Second, from audio to beats: excerpts of held-out compositions of ASAP and
held-out songs of POP909, rendered with a SoundFont that no training excerpt was made with, beside madmom on the same
files.

    python evals/quality/beats.py --data ../shared/data [--only given|audio] [--scores corpus/beats/scores]
        [--madmom corpus/beats/heldout/madmom.json] [--limit 20]

madmom is run beforehand, in an environment of its own: `evals/peers/madmom_decoder.py` on the activations, whose
output `--decoder` names, and `evals/peers/madmom_beats.py` on the files that `--write corpus/beats/heldout` leaves
there. Cost: two minutes of one core for the tracks, one for the audio.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2] / "services" / "transcriber" / "recipes"))
import beat_scores
from beat_arranging import arrange, can_start, play, truth
from harness import ROOT, Outcome, Row, Table, need, parser, publish
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_shared.training.corpus.render import SOUNDFONTS, FluidSynthesizer, RenderPart
from stretto_transcriber.models.beat_tracker.decoding import Beats, detect_onsets, track_beats
from stretto_transcriber.models.beat_tracker.network import BeatTracker
from stretto_transcriber.models.beat_tracker.weights import load_beat_tracker

PUBLISHED = {"ballroom": 0.932, "hainsworth": 0.878, "smc": 0.543, "beatles": 0.908, "simac": 0.768, "hjdb": 0.850}
GIVEN_RATE_HZ = 100.0
BEAT_WINDOW_S, ONSET_WINDOW_S, TRIM_S = 0.07, 0.05, 5.0
EXCERPT_S = 30.0
NUM_EXCERPTS = {"asap": 40, "pop909": 20}
AUDIO_RATE_HZ = 44_100
HELD_OUT_FONT = "musescore-general"
SEED = 3
OF_TRACKS = ("f", "f_not_tuned_on", "f_from_5_s", "f_from_5_s_not_tuned_on")
MEASURES = ("beat F", "CMLt", "AMLt", "downbeat F", "numerator", "onset F")
Floats = NDArray[np.float64]

PROTOCOL = (
    "F-measure of beats and downbeats within 70 ms, CMLt, AMLt, onset F-measure within 50 ms by mir_eval; means. "
    "Given activations: whole tracks, and, as mir_eval advises and the claims have it, from 5 s on; the options "
    "were chosen on the half of the tracks whose name's SHA-256 is even in its first byte, and the odd half is told "
    "apart, beside madmom's decoder of 2019 on the same activations. Audio: excerpts of 30 s, scored whole; onsets of "
    "notes within 30 ms are one; the numerator is right if it is the number of beats of most bars of the excerpt."
)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """An excerpt: its file's name, mono audio [S] at 44.1 kHz, and the truth."""

    name: str
    audio: NDArray[np.float32]
    beat_s: Floats
    beat_in_bar: NDArray[np.int64]
    onset_s: Floats


@dataclass(frozen=True, eq=False)
class Heard:
    """What a tracker says of an excerpt."""

    beats: Beats
    onset_s: Floats


def is_tuned_on(name: str) -> bool:
    """Whether the options were chosen with a look at this track."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 0


def beat_f(true_s: Floats, found_s: Floats, trim_s: float = 0.0) -> float:
    """F-measure within 70 ms of what is later than `trim_s`."""
    true_s, found_s = (times_s[times_s >= trim_s] for times_s in (true_s, found_s))
    if not len(true_s) or not len(found_s):
        return 0.0
    import mir_eval  # only evals have it, and what is beside does without

    return float(mir_eval.beat.f_measure(true_s, found_s, f_measure_threshold=BEAT_WINDOW_S))


@dataclass(frozen=True, eq=False)
class Decoded:
    """One decoder on one set: F-measures [tracks, 2], of whole tracks and from `TRIM_S` on; which were not tuned on."""

    scores: Floats
    is_unseen: NDArray[np.bool_]

    @property
    def means(self) -> tuple[float, float, float, float]:
        """Whole and from `TRIM_S` on, each of all tracks and of those not tuned on; nan where there are none."""
        unseen = self.scores[self.is_unseen]
        both = (self.scores, unseen)
        whole, trimmed = ([float(part[:, at].mean()) if len(part) else math.nan for part in both] for at in (0, 1))
        return (whole[0], whole[1], trimmed[0], trimmed[1])


def given(path: Path, peer: Path, limit: int) -> tuple[list[Table], dict[str, Any], dict[str, bool]]:
    """The decoder on published activations, by set, and madmom's on the same where `peer` has it."""
    archive = np.load(need(path, "The beat activations"))
    theirs = np.load(peer) if peer.exists() else {}
    if not theirs:
        print(f"madmom's decoder: not run; run evals/peers/madmom_decoder.py into {peer}", file=sys.stderr)
    names = sorted({key.rsplit("/", 1)[0] for key in archive.files})
    rows: list[Row] = [
        ("set", "tracks", "published", "decoder", "F", "F, half not tuned on", "F from 5 s on", "its other half")
    ]
    numbers: dict[str, Any] = {}
    passed: dict[str, bool] = {}
    for corpus, published in PUBLISHED.items():
        own = [name for name in names if name.startswith(f"{corpus}/")]
        own = own[:limit] if limit else own
        is_unseen = np.array([not is_tuned_on(name) for name in own])
        scores: dict[str, list[tuple[float, float]]] = {"ours": [], "madmom's": []}
        for name in own:
            true_s = archive[f"{name}/beats"].reshape(-1, 2)[:, 0] if archive[f"{name}/beats"].size else np.zeros(0)
            activation = archive[f"{name}/activation"].astype(np.float64) / 255
            found = {"ours": track_beats(activation, None, GIVEN_RATE_HZ).beat_s}
            if name in theirs:
                found["madmom's"] = theirs[name]
            for decoder, found_s in found.items():
                scores[decoder].append((beat_f(true_s, found_s), beat_f(true_s, found_s, TRIM_S)))
        decoded = {name: Decoded(np.array(each), is_unseen) for name, each in scores.items() if len(each) == len(own)}
        numbers[corpus] = {"tracks": len(own), "published": published}
        for decoder, result in decoded.items():
            rows.append((corpus, len(own), published, decoder, *result.means))
            numbers[corpus][decoder] = dict(zip(OF_TRACKS, result.means, strict=True))
        claim = f"{corpus}: F from 5 s on at least the published tracker's"
        passed[claim] = round(decoded["ours"].means[2], 3) >= published
        if "madmom's" in decoded and is_unseen.any():
            gain = (decoded["ours"].scores - decoded["madmom's"].scores)[is_unseen, 0]
            interval = bootstrap_mean(gain)
            numbers[corpus]["ours above madmom's, not tuned on"] = [interval.mean, interval.low, interval.high]
            claim = (
                f"{corpus}: F of tracks not tuned on at least that of madmom's decoder, paired, 95 %: not surely below"
            )
            passed[claim] = interval.high >= 0
    return [Table("The decoder on given activations", rows)], numbers, passed


def held_out(scores: Path, limit: int) -> Iterator[HeldOut]:
    """The excerpts, in an order that does not depend on how many are asked for."""
    font = next(font for font in SOUNDFONTS if font.name == HELD_OUT_FONT)
    synthesizer = FluidSynthesizer(need(font.path, f"The SoundFont {HELD_OUT_FONT}"), AUDIO_RATE_HZ)
    readers = {"asap": beat_scores.read_asap, "pop909": beat_scores.read_pop909}
    for source, read in readers.items():
        random = np.random.default_rng(SEED)
        pieces = list(read(need(scores / source, "The unpacked scores"), "test"))
        by_work: dict[str, list[beat_scores.Music]] = {}
        for piece in pieces:
            by_work.setdefault(piece.name.rsplit("/", 1)[0], []).append(piece)
        works = [by_work[name] for name in sorted(by_work)]
        made = 0
        for turn in range(3 * NUM_EXCERPTS[source]):
            if made == (min(limit, NUM_EXCERPTS[source]) if limit else NUM_EXCERPTS[source]):
                break
            work = works[turn % len(works)]
            music = work[int(random.integers(len(work)))]
            latest_s = max(music.beat_s[0], music.beat_s[-1] - EXCERPT_S)
            start_s = float(random.uniform(music.beat_s[0], latest_s))
            parts = arrange(music, random) if source == "pop909" else piano(music)
            if not can_start(music, start_s, EXCERPT_S):
                continue
            audio = play(parts, synthesizer, start_s, 1.0, EXCERPT_S, AUDIO_RATE_HZ)
            audio = audio * (0.1 / (float(np.sqrt(np.mean(audio**2))) + 1e-9))
            yield HeldOut(
                f"{source}_{made:02d}.wav",
                np.clip(audio, -1, 1).astype(np.float32),
                *truth(music, parts, start_s, 1.0, EXCERPT_S),
            )
            made += 1


def piano(music: beat_scores.Music) -> list[RenderPart]:
    """A performance as it was played, on a grand piano."""
    return [RenderPart(0, False, music.parts[0].notes)]


def ours(tracker: BeatTracker, excerpt: HeldOut) -> Heard:
    """What the tracker hears in an excerpt."""
    rate_hz = tracker.config.frame_rate_hz
    audio = soxr.resample(excerpt.audio, AUDIO_RATE_HZ, tracker.config.sample_rate_hz)
    heard = tracker.hear(torch.from_numpy(audio.astype(np.float32)))
    beats = track_beats(heard.beat.numpy(), heard.downbeat.numpy(), rate_hz)
    return Heard(beats, detect_onsets(heard.onset.numpy(), rate_hz))


def of_madmom(found: Mapping[str, Any]) -> Heard:
    """What madmom's runner wrote of one file."""
    rows = np.array(found["beats"], np.float64).reshape(-1, 2)
    places = rows[:, 1].astype(np.int32)
    numerator = int(places.max(initial=0))
    return Heard(Beats(rows[:, 0], places, np.zeros(0), numerator), np.array(found["onsets"], np.float64))


def metre_of(beat_in_bar: NDArray[np.int64]) -> int:
    """Beats of most whole bars of an excerpt; 0 where there is no whole bar."""
    firsts = np.flatnonzero(beat_in_bar == 1)
    lengths = np.diff(firsts)
    return int(np.bincount(lengths, weights=lengths).argmax()) if len(lengths) else 0


def score(excerpt: HeldOut, heard: Heard) -> tuple[float, ...]:
    """`MEASURES` of one excerpt; the numerator's is nan where the excerpt has no whole bar."""
    import mir_eval

    true_s, found_s = excerpt.beat_s, heard.beats.beat_s
    continuity = (0.0,) * 4
    if len(found_s) > 1:
        continuity = mir_eval.beat.continuity(true_s, found_s)
    metre = metre_of(excerpt.beat_in_bar)
    onsets = mir_eval.onset.f_measure(excerpt.onset_s, heard.onset_s, window=ONSET_WINDOW_S)[0]
    return (
        beat_f(true_s, found_s),
        continuity[1],
        continuity[3],
        beat_f(true_s[excerpt.beat_in_bar == 1], heard.beats.downbeat_s),
        float(metre == heard.beats.numerator) if metre else float("nan"),
        float(onsets),
    )


def from_audio(args: argparse.Namespace) -> tuple[list[Table], dict[str, Any], dict[str, bool]]:
    """Ours and madmom's on the same excerpts."""
    tracker = load_beat_tracker(args.weights)
    peer = json.loads(args.madmom.read_text()) if args.madmom and args.madmom.exists() else {}
    scores: dict[str, dict[str, list[tuple[float, ...]]]] = {"asap": {}, "pop909": {}}
    for excerpt in held_out(args.scores, args.limit):
        if args.write:
            args.write.mkdir(parents=True, exist_ok=True)
            soundfile.write(args.write / excerpt.name, excerpt.audio, AUDIO_RATE_HZ, subtype="PCM_16")
        by_system = scores[excerpt.name.split("_")[0]]
        by_system.setdefault("ours", []).append(score(excerpt, ours(tracker, excerpt)))
        if excerpt.name in peer:
            by_system.setdefault("madmom", []).append(score(excerpt, of_madmom(peer[excerpt.name])))
    rows: list[Row] = [("excerpts", "system", "files", *MEASURES)]
    numbers: dict[str, Any] = {}
    passed: dict[str, bool] = {}
    for source, by_system in scores.items():
        for system, values in by_system.items():
            means = np.nanmean(np.array(values), axis=0)
            rows.append((source, system, len(values), *(float(mean) for mean in means)))
            numbers.setdefault(source, {})[system] = {"files": len(values), **dict(zip(MEASURES, map(float, means)))}
        if (count := len(by_system.get("madmom", []))) < len(by_system["ours"]):
            print(f"{source}: madmom heard {count} of {len(by_system['ours'])} excerpts; no claim", file=sys.stderr)
        else:
            gain = np.array(by_system["ours"])[:, 0] - np.array(by_system["madmom"])[:, 0]
            interval = bootstrap_mean(gain)
            numbers[source]["beat F above madmom's"] = [interval.mean, interval.low, interval.high]
            passed[f"{source}: beat F at least madmom's, paired, 95 %: not surely below"] = interval.high >= 0
    return [Table("From audio, a SoundFont that training did not hear", rows)], numbers, passed


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--only", choices=("given", "audio"))
    options.add_argument("--scores", type=Path, default=ROOT / "corpus" / "beats" / "scores")
    options.add_argument("--madmom", type=Path, default=ROOT / "corpus" / "beats" / "heldout" / "madmom.json")
    options.add_argument("--decoder", type=Path, default=ROOT / "corpus" / "peers" / "beats" / "madmom_decoder.npz")
    options.add_argument("--write", type=Path, help="leave the excerpts here as WAV files")
    options.add_argument("--weights", type=Path, default=ROOT / "services" / "transcriber" / "weights" / "beat_tracker")
    args = options.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    tables: list[Table] = []
    numbers: dict[str, Any] = {}
    passed: dict[str, bool] = {}
    if args.only != "audio":
        found, numbers["given"], passed = given(args.data / "beats" / "ismir2019_beats.npz", args.decoder, args.limit)
        tables += found
    if args.only != "given":
        found, numbers["audio"], claims = from_audio(args)
        tables, passed = tables + found, passed | claims
    publish(Outcome("beats", PROTOCOL, "ISMIR 2019 activations; ASAP and POP909 test", tables, numbers, passed), args)


if __name__ == "__main__":
    main()
