"""Choose the levels of a checkpoint's network of ends on what was heard of the validation clips, and write it anew.

`python services/transcriber/recipes/choose_levels.py --weights runs/releases/export/onsets_frames --heard
corpus/piano_heard --out services/transcriber/weights/onsets_frames`

Keys and sounds each end at the level with the best sum of F1 with ends and F1 of frames: means over whole clips of one
kind, notated or played, and then over both kinds. The network tells as it is served, in bfloat16 by the native kernel
where there is one.

Cost: with `--jobs 2` three minutes for six hours of clips.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from heard_notes import is_of_maps
from note_scores import score_notes
from stretto_shared import weights
from stretto_shared.nn.lowbit import load_bands
from stretto_transcriber.models.notes import NoteEnds, Notes
from stretto_transcriber.models.onsets_frames import OnsetsFrames, OnsetsFramesConfig, build_onsets_frames, decoder_of
from stretto_transcriber.models.onsets_frames.release_decoding import Reader
from stretto_transcriber.models.onsets_frames.releases import Floats
from stretto_transcriber.settings import TranscriberSettings
from train_transcriber import ENDS

LEVELS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
COLUMNS: dict[NoteEnds, int] = {"sound": 1, "key": 4}

Reached = dict[tuple[NoteEnds, float], tuple[float, float]]
"""F1 with ends and F1 of frames, of one kind of end at a level."""


class Remembering:
    """A reader that tells of a note it has told of before without reading it again."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._told: dict[bytes, Floats] = {}

    def lasting(self, given: Floats) -> Floats:
        """As `Reader` has it."""
        keys = [note.tobytes() for note in given]
        if new := [index for index, key in enumerate(keys) if key not in self._told]:
            self._told |= {keys[index]: told for index, told in zip(new, self._reader.lasting(given[new]), strict=True)}
        return np.stack([self._told[key] for key in keys])


def model_of(folder: Path) -> OnsetsFrames:
    """The model as it is served."""
    resolved = weights.resolve("default", name=folder.name, default_dir=folder.parent)
    model = build_onsets_frames(resolved.config["config"], weights.load_tensors(resolved)).eval()
    if (kernel := load_bands(TranscriberSettings().native_kernel_dir)) is not None:
        model.use_kernel(kernel)
    return model


def at_levels(config: OnsetsFramesConfig, levels: Mapping[NoteEnds, float]) -> OnsetsFramesConfig:
    """`config` with other levels, the ones that are named."""
    key, sound = levels.get("key", config.key_level), levels.get("sound", config.sound_level)
    return dataclasses.replace(config, key_level=key, sound_level=sound)


def reached_in(path: Path, folder: Path) -> Reached:
    """The scores of one clip by the checkpoint in `folder`, at every level.

    Raises:
        ValueError: If it has no network of ends.
    """
    torch.set_num_threads(1)
    model = model_of(folder)
    if model.release_reader is None:
        raise ValueError(f"{folder}: expected a checkpoint with a network of releases. Run train_releases.py first.")
    with np.load(path) as file:
        frames, labels = file["heads"].astype(np.float32), file["notes"].astype(np.float64)
    reader, frames = Remembering(model.release_reader), frames.reshape(len(frames), -1)
    reached: Reached = {}
    for ends, column in COLUMNS.items():
        for level in LEVELS:
            decoder = decoder_of(at_levels(model.config, {ends: level}), reader, ends)
            found = Notes.joined([decoder.push(frames), decoder.flush()])
            score = score_notes(found, labels[:, [0, column, 2, 3]])
            reached[ends, level] = (score.offset_f1, score.frame_f1)
    return reached


def means_of(clips: Mapping[str, Reached]) -> dict[str, Reached]:
    """Of each kind of clip, by their names, the means."""
    means: dict[str, Reached] = {}
    for kind, is_notated in (("notated", True), ("played", False)):
        if some := [reached for name, reached in clips.items() if is_of_maps(name) == is_notated]:
            of_all = {key: np.mean([reached[key] for reached in some], 0).tolist() for key in some[0]}
            means[kind] = {key: (with_ends, frames) for key, (with_ends, frames) in of_all.items()}
    return means


def chosen(config: OnsetsFramesConfig, means: Mapping[str, Reached]) -> OnsetsFramesConfig:
    """`config` with the level of each kind of end that has the best mean over kinds of clips."""
    best: dict[NoteEnds, float] = {}
    for ends in COLUMNS:
        of_levels = [np.mean([sum(reached[ends, level]) for reached in means.values()]) for level in LEVELS]
        best[ends] = LEVELS[int(np.argmax(of_levels))]
    return at_levels(config, best)


def told_of(config: OnsetsFramesConfig, means: Mapping[str, Reached]) -> dict[str, float]:
    """What the checkpoint says of its validation, at its levels."""
    levels: dict[NoteEnds, float] = {"key": config.key_level, "sound": config.sound_level}
    told = {}
    for kind, reached in means.items():
        for ends, level in levels.items():
            with_ends, frames = reached[ends, level]
            told |= {f"valid_{kind}_{ends}_f1": round(with_ends, 4), f"valid_{kind}_{ends}_frame_f1": round(frames, 4)}
    return told


def printed(means: Mapping[str, Reached]) -> None:
    """Every mean, a line of each."""
    for kind, reached in means.items():
        for (ends, level), (with_ends, frames) in reached.items():
            print(f"{kind}, {ends} at {level:.2f}: with ends {with_ends:.4f}, frames {frames:.4f}", flush=True)


def all_reached(paths: Sequence[Path], folder: Path, jobs: int) -> dict[str, Reached]:
    """The scores of all clips, by their names."""
    reach = partial(reached_in, folder=folder)
    if jobs == 1:
        return {path.stem: reach(path) for path in paths}
    with ProcessPoolExecutor(jobs) as pool:
        return {path.stem: reached for path, reached in zip(paths, pool.map(reach, paths), strict=True)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="a checkpoint with a network of releases, a folder")
    parser.add_argument("--heard", type=Path, required=True, help="what hear_piano.py wrote with those weights")
    parser.add_argument("--out", type=Path, help="where to write it; else the choice is only printed")
    parser.add_argument("--in-rooms", action="store_true", help="by those clips alone that were heard in rooms")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f"--jobs: expected 1 or more, got {args.jobs}.")
    paths = sorted(args.heard.glob(f"valid/*{'_room' * args.in_rooms}.npz"))
    if not paths:
        parser.error(f"--heard {args.heard}: expected valid/NAME.npz. Run hear_piano.py first.")
    means = means_of(all_reached(paths, args.weights, args.jobs))
    printed(means)
    resolved = weights.resolve("default", name=args.weights.name, default_dir=args.weights.parent)
    stored = resolved.config
    config = chosen(OnsetsFramesConfig(**stored["config"]), means)
    print(f"{len(paths)} clips: key_level {config.key_level}, sound_level {config.sound_level}")
    if args.out:
        weights.write(
            args.out,
            dict(weights.load_tensors(resolved)),
            name=args.out.name,
            architecture=stored["architecture"],
            config=dataclasses.asdict(config),
            licence=stored["licence"],
            score=stored["score"],
            training={k: v for k, v in stored["training"].items() if k not in ENDS} | told_of(config, means),
        )


if __name__ == "__main__":
    main()
