"""What a beat tracker learns from: `prepare_beats.py --data DIR --out corpus/beats`; what exists is not made again.

Excerpts of performances with known beats (`beat_scores.py`), arranged and rendered anew (`beat_arranging.py`) with
FluidSynth and the SoundFonts FluidR3 (MIT) and TimGM6mb (GPL-2). `excerpts_{split}_{shard}.npz` holds the log-mel
spectrograms float16 [N, T, M], `pitches` the semitones float16 [N, C, P], `targets` uint8 [N, T] (1 a beat, 2 a
downbeat, 4 an onset), `beats` float64 [K, 3] of excerpt, time in seconds and place in the bar, and `sources` [N]. The
sources take turns within a shard, so that a run that is stopped early has some of each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import beat_scores
import numpy as np
import torch
from beat_arranging import Excerpt, draw_excerpt
from numpy.typing import NDArray
from pack_beats import BEAT, DOWNBEAT, ONSET
from stretto_shared.training.corpus.render import SOUNDFONTS, FluidSynthesizer, Synthesizer
from stretto_transcriber.models.beat_tracker.config import BeatTrackerConfig
from stretto_transcriber.models.beat_tracker.features import log_mel, log_pitches

EXCERPT_S = 36.0
SHARD_SIZE = 20
TURNS = ("asap", "pop909", "asap", "pop909", "asap", "groove", "asap", "pop909", "asap", "pop909")
TRAINING_FONTS = ("fluidr3", "timgm6mb")
_READERS: dict[str, Callable[[Path, str], Iterator[beat_scores.Music]]] = {
    "asap": beat_scores.read_asap,
    "pop909": beat_scores.read_pop909,
    "groove": beat_scores.read_groove,
}


def targets_of(excerpt: Excerpt, num_frames: int, frame_rate_hz: float) -> NDArray[np.uint8]:
    """Flags [T] of the frames nearest to beats, downbeats and onsets."""
    targets = np.zeros(num_frames, np.uint8)
    downbeat_s = excerpt.beat_s[excerpt.beat_in_bar == 1]
    for flag, times_s in ((BEAT, excerpt.beat_s), (DOWNBEAT, downbeat_s), (ONSET, excerpt.onset_s)):
        frames = np.rint(times_s * frame_rate_hz).astype(int)
        targets[frames[frames < num_frames]] |= flag
    return targets


class Turns:
    """Draws excerpts source by source; each source's performances come in an order drawn once, over and over."""

    def __init__(self, scores: Path, split: str, seed: int) -> None:
        random = np.random.default_rng([seed, 1])
        self.pieces = {name: list(read(scores / name, split)) for name, read in _READERS.items()}
        self.orders = {name: random.permutation(len(pieces)) for name, pieces in self.pieces.items()}

    def draw(
        self, number: int, synthesizers: Sequence[Synthesizer], config: BeatTrackerConfig, random: np.random.Generator
    ) -> tuple[str, Excerpt]:
        """Excerpt `number` of the split; performances in which nothing will do are passed over."""
        source = TURNS[number % len(TURNS)]
        order = self.orders[source]
        place = number // len(TURNS) * TURNS.count(source) + TURNS[: number % len(TURNS)].count(source)
        synthesizer = synthesizers[int(random.integers(len(synthesizers)))]
        for step in range(len(order)):
            music = self.pieces[source][order[(place + 7 * step) % len(order)]]
            excerpt = draw_excerpt(music, synthesizer, EXCERPT_S, config.sample_rate_hz, random)
            if excerpt is not None:
                return source, excerpt
        raise SystemExit(f"No excerpt of {EXCERPT_S:g} s in any performance of {source}.")


def write_shard(
    turns: Turns, synthesizers: Sequence[Synthesizer], config: BeatTrackerConfig, shard: int, seed: int, out: Path
) -> None:
    """Draw, render and write one shard in one move."""
    mels, pitches, targets, beats, sources = [], [], [], [], []
    for row in range(SHARD_SIZE):
        random = np.random.default_rng([seed, shard, row])
        source, excerpt = turns.draw(shard * SHARD_SIZE + row, synthesizers, config, random)
        audio = torch.from_numpy(excerpt.audio)[None]
        mel = log_mel(audio, config)[0]
        mels.append(mel.half().numpy())
        pitches.append(log_pitches(audio, config)[0].half().numpy())
        targets.append(targets_of(excerpt, len(mel), config.frame_rate_hz))
        beats.append(np.column_stack([np.full(len(excerpt.beat_s), row), excerpt.beat_s, excerpt.beat_in_bar]))
        sources.append(source)
    part = out.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            mel=np.stack(mels),
            pitches=np.stack(pitches),
            targets=np.stack(targets),
            beats=np.concatenate(beats),
            sources=np.array(sources),
        )
    part.replace(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds symbolic/*.tar.xz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=50, help=f"of {SHARD_SIZE} training excerpts")
    parser.add_argument("--valid-shards", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scores").mkdir(exist_ok=True)
    scores = beat_scores.unpack(args.data, args.out / "scores")
    config = BeatTrackerConfig()
    fonts = [font for font in SOUNDFONTS if font.name in TRAINING_FONTS]
    synthesizers = [FluidSynthesizer(font.path, config.sample_rate_hz) for font in fonts]
    for split, count in (("valid", args.valid_shards), ("train", args.shards)):
        turns = Turns(scores, split, args.seed)
        for shard in range(count):
            out = args.out / f"excerpts_{split}_{shard:04d}.npz"
            if not out.exists():
                seed = 2 * args.seed + (split == "valid")
                write_shard(turns, synthesizers, config, shard, seed, out)
                print(out.name, flush=True)


if __name__ == "__main__":
    main()
