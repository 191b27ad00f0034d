"""Choose a checkpoint's thresholds on the validation split, and write it anew with them.

`python services/transcriber/recipes/choose_thresholds.py --weights runs/onsets_frames/export/onsets_frames
--corpus corpus/piano --out services/transcriber/weights/onsets_frames`

The heads are heard once, of the beginnings of the validation clips, as they are and recorded in rooms, by windows and
in the number format as they are served. Then one threshold after the other, twice over, takes the value with the best
sum of note F1 at 50 ms and, at a third of its weight each, of F1 with the ends of sounds and of keys and of F1 of
frames by either: means over clips. `choose_levels.py` chooses the levels of a network of releases.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared import weights
from stretto_shared.nn.lowbit import load_bands
from stretto_transcriber.models.onsets_frames import (
    OnsetsFramesConfig,
    build_onsets_frames,
    hear_clip,
)
from stretto_transcriber.models.onsets_frames.release_decoding import Reader
from stretto_transcriber.settings import TranscriberSettings
from train_transcriber import ENDS, beginnings, decoded, summary, worth

GRIDS = {
    "onset_threshold": (0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
    "frame_threshold": (0.25, 0.3, 0.35, 0.4, 0.45, 0.5),
    "offset_threshold": (0.1, 0.2, 0.3, 0.4, 0.5, 1.1),
    "key_threshold": (0.4, 0.45, 0.5, 0.55, 0.6, 0.65),
    "held_key_threshold": (0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
}

Heard = list[tuple[NDArray[np.float32], NDArray[np.float64]]]


def means_of(heard: Heard, config: OnsetsFramesConfig, reader: Reader | None) -> dict[str, float]:
    """Means over clips of frames [T, P] decoded with the thresholds of `config`, against notes [N, 5]."""
    return summary([decoded(frames, notes, config, reader) for frames, notes in heard])


def names_of(config: OnsetsFramesConfig, only: Sequence[str]) -> list[str]:
    """The thresholds that matter to such a model."""
    return [
        name
        for name in GRIDS
        if (not only or name in only)
        and (config.has_key_head or not name.endswith("key_threshold"))
        and not (config.release_channels and name.endswith("key_threshold"))
    ]


def chosen(heard: Heard, config: OnsetsFramesConfig, reader: Reader | None, only: Sequence[str]) -> OnsetsFramesConfig:
    """`config` with the best of each grid, one after the other, twice over."""
    for name in names_of(config, only) * 2:
        reached = {}
        for value in GRIDS[name]:
            means = means_of(heard, dataclasses.replace(config, **{name: value}), reader)
            reached[value] = worth(means)
            found = ", ".join(f"{key} {means[key]:.4f}" for key in ("valid_f1", *ENDS) if key in means)
            print(f"{name} {value}: {found}", flush=True)
        config = dataclasses.replace(config, **{name: max(reached, key=lambda value: reached[value])})
    return config


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="an exported checkpoint, a folder")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="where to write it; else the choice is only printed")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--clips", type=int, default=18, help="each also in a room")
    parser.add_argument("--context-frames", type=int, help="another context of its windows than the stored one")
    parser.add_argument("--only", nargs="*", choices=list(GRIDS), default=[], help="the thresholds that are chosen")
    args = parser.parse_args()
    torch.set_num_threads(1)
    resolved = weights.resolve("default", name=args.weights.name, default_dir=args.weights.parent)
    tensors = weights.load_tensors(resolved)
    stored = dict(resolved.config)
    if args.context_frames is not None:
        stored["config"] = {**stored["config"], "context_frames": args.context_frames}
    model = build_onsets_frames(stored["config"], tensors).eval()
    if (kernel := load_bands(TranscriberSettings().native_kernel_dir)) is not None:
        model.use_kernel(kernel)
    started, heard = time.process_time(), []
    for samples, notes in zip(*beginnings(args.corpus / "valid", args.seconds, args.clips), strict=True):
        heard.append((hear_clip(model, samples.numpy()), notes))
    audio_s = sum(len(heads) for heads, _ in heard) / model.config.frame_rate_hz
    print(f"{len(heard)} clips, {audio_s / (time.process_time() - started):.1f} s of audio a second of CPU", flush=True)
    config = chosen(heard, model.config, model.release_reader, args.only)
    means = means_of(heard, config, model.release_reader)
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
