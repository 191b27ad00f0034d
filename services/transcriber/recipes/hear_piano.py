"""Hear every clip of the piano corpus once with a trained transcriber, and keep that: what releases learn from.

`python services/transcriber/recipes/hear_piano.py --weights services/transcriber/weights/onsets_frames --corpus
corpus/piano --out corpus/piano_heard`

One `NAME.npz` a clip: `heads` float16 [T, 5, 88] as the decoder takes them, `notes` float32 [N, 5] of the clip. Every
second clip is heard in a synthetic room (`piano_recording.py`), of the validation clips each both ways; with `--rooms
2` what is heard in a room was recorded in another one before, and fewer notes are found. Clips that are there already
are passed over. MAPS first, then piano-midi.de, which MAPS plays from, then the rest.

On a CPU with bfloat16 the clips are heard in it, as they are served.

Cost: a minute of one core for 20 to 70 minutes of audio.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from note_scores import score_notes
from piano_clips import Clip, list_clips, read_beginning
from piano_performances import ARCHIVES
from piano_recording import recorded
from stretto_shared import weights
from stretto_shared.nn.lowbit import load_bands
from stretto_transcriber.models.notes import Notes
from stretto_transcriber.models.onsets_frames import NoteDecoder, OnsetsFrames, build_onsets_frames, hear_clip
from stretto_transcriber.models.onsets_frames.config import NUM_PITCHES

SOURCES = ("MAPS", *ARCHIVES)


def in_turn(folder: Path) -> list[Clip]:
    """The clips of a split, by source, and of one source in the order of their names."""
    return sorted(list_clips(folder), key=lambda clip: [source not in clip.path.stem for source in SOURCES])


def ways_to_hear(clip: Clip, both: bool) -> Iterator[bool]:
    """Whether in a room: one way or the other by the clip's name, or both."""
    yield from (False, True) if both else (zlib.crc32(clip.path.stem.encode()) % 2 == 1,)


@torch.inference_mode()
def hear(model: OnsetsFrames, clip: Clip, num_rooms: int, longest_s: float, batch_size: int) -> np.ndarray:
    """Heads [T, 5, 88] of one clip, recorded in so many rooms, one after the other."""
    samples = read_beginning(clip, min(clip.num_samples, round(longest_s * model.config.sample_rate_hz)))
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(zlib.crc32(clip.path.stem.encode()))
    for _ in range(num_rooms):
        samples = recorded(torch.from_numpy(samples)[None].to(device), generator)[0].cpu().numpy()
    return hear_clip(model, samples, batch_size).reshape(-1, model.config.num_heads, NUM_PITCHES)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--longest-s", type=float, default=180.0, help="of a clip, what is heard")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch-size", type=int, default=1, help="windows at once")
    parser.add_argument("--rooms", type=int, default=1, help="of a clip that is heard in a room: one after the other")
    parser.add_argument("--limit", type=int, help="clips of each split")
    parser.add_argument("--split", choices=("valid", "train"), help="the clips of one split; else both")
    args = parser.parse_args()
    if args.rooms < 1:
        parser.error(f"--rooms: expected 1 or more, got {args.rooms}.")
    torch.set_num_threads(1)
    resolved = weights.resolve("default", name=args.weights.name, default_dir=args.weights.parent)
    model = build_onsets_frames(resolved.config["config"], weights.load_tensors(resolved)).to(args.device).eval()
    if args.device == "cpu":
        from stretto_transcriber.settings import TranscriberSettings  # pydantic, which a training machine may lack

        kernel = load_bands(TranscriberSettings().native_kernel_dir)
        if kernel is not None:
            model.use_kernel(kernel)
    started = time.monotonic()
    for split in (args.split,) if args.split else ("valid", "train"):
        (args.out / split).mkdir(parents=True, exist_ok=True)
        for number, clip in enumerate(in_turn(args.corpus / split)[: args.limit], 1):
            for in_room in ways_to_hear(clip, split == "valid"):
                path = args.out / split / f"{clip.path.stem}{'_room' * in_room}.npz"
                if path.exists():
                    continue
                heads = hear(model, clip, args.rooms * in_room, args.longest_s, args.batch_size)
                length_s = len(heads) / model.config.frame_rate_hz
                notes = clip.notes[clip.notes[:, 0] < length_s]
                part = path.with_suffix(".part")
                with part.open("wb") as file:
                    np.savez(file, heads=heads.astype(np.float16), notes=notes)
                part.rename(path)
                told = f"{split} {number} {path.stem}: {length_s:.0f} s, {time.monotonic() - started:.0f} s"
                if split == "valid":
                    decoder = NoteDecoder(dataclasses.replace(model.config, release_channels=0))
                    found = Notes.joined([decoder.push(heads.reshape(len(heads), -1)), decoder.flush()])
                    told += f", F1 {score_notes(found, notes[:, :4].astype(np.float64)).f1:.3f}"
                print(told, flush=True)


if __name__ == "__main__":
    main()
