"""Choose a checkpoint's thresholds on the validation split, and write it anew with them.

`python services/transcriber/recipes/choose_thresholds.py --weights runs/onsets_frames/export/onsets_frames
--corpus corpus/piano --out services/transcriber/weights/onsets_frames`

The heads are heard once, of the beginnings of the validation clips, by windows as they are served. Then one threshold
after the other takes the value with the best sum of note F1 at 50 ms and, at a third of its weight, of F1 with offsets.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
from note_scores import NoteScore, score_notes
from numpy.typing import NDArray
from stretto_shared import weights
from stretto_transcriber.models.notes import Notes
from stretto_transcriber.models.onsets_frames import (
    NoteDecoder,
    OnsetsFramesConfig,
    build_onsets_frames,
    hear_clip,
)
from train_transcriber import beginnings, summary

GRIDS = {
    "onset_threshold": (0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
    "frame_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "offset_threshold": (0.1, 0.2, 0.3, 0.4, 0.5, 1.1),
}
OFFSET_SHARE = 1 / 3

Heard = list[tuple[NDArray[np.float32], NDArray[np.float64]]]


def scores_of(heard: Heard, config: OnsetsFramesConfig) -> list[NoteScore]:
    """Scores of heads [T, 352] decoded with the thresholds of `config`, against notes [N, 4]."""
    scores = []
    for heads, notes in heard:
        decoder = NoteDecoder(config)
        scores.append(score_notes(Notes.joined([decoder.push(heads), decoder.flush()]), notes))
    return scores


def chosen(heard: Heard, config: OnsetsFramesConfig) -> OnsetsFramesConfig:
    """`config` with the best of each grid, one after the other."""
    for name, grid in GRIDS.items():
        worth = {}
        for value in grid:
            means = summary(scores_of(heard, dataclasses.replace(config, **{name: value})))
            worth[value] = means["valid_f1"] + OFFSET_SHARE * means["valid_offset_f1"]
            print(
                f"{name} {value}: note F1 {means['valid_f1']:.4f}, + offset {means['valid_offset_f1']:.4f}", flush=True
            )
        config = dataclasses.replace(config, **{name: max(worth, key=lambda value: worth[value])})
    return config


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="an exported checkpoint, a folder")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="where to write it; else the choice is only printed")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--context-frames", type=int, help="another context of its windows than the stored one")
    args = parser.parse_args()
    torch.set_num_threads(1)
    resolved = weights.resolve("default", name=args.weights.name, default_dir=args.weights.parent)
    tensors = weights.load_tensors(resolved)
    stored = dict(resolved.config)
    if args.context_frames is not None:
        stored["config"] = {**stored["config"], "context_frames": args.context_frames}
    model = build_onsets_frames(stored["config"], tensors)
    started, heard = time.process_time(), []
    for samples, notes in beginnings(args.corpus / "valid", args.seconds, args.clips):
        heard.append((hear_clip(model, samples), notes))
    audio_s = sum(len(heads) for heads, _ in heard) / model.config.frame_rate_hz
    print(f"{len(heard)} clips, {audio_s / (time.process_time() - started):.1f} s of audio a second of CPU", flush=True)
    config = chosen(heard, model.config)
    means = summary(scores_of(heard, config))
    print(means)
    if args.out:
        weights.write(
            args.out,
            dict(tensors),
            name=args.out.name,
            architecture=stored["architecture"],
            config=dataclasses.asdict(config),
            licence=stored["licence"],
            score=f"note F1 {means['valid_f1']:.3f} on the held-out sampled piano and renders",
            training={**stored["training"], **{key: round(value, 4) for key, value in means.items()}},
        )


if __name__ == "__main__":
    main()
