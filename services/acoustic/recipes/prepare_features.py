"""Turn a rendered corpus into what the language model trains on, shard by shard; what exists is not made again.

`python services/acoustic/recipes/prepare_features.py --corpus DIR --codec DIR --out DIR [--only conditions]`

For each `audio_{split}_{shard}.npy` [N, S] and `clips_{split}_{shard}.jsonl` of the corpus:

- `text_{split}_{shard}.npz`: states float16 [tokens, D] of every caption, `offsets` [N, captions + 1] into them
  (captions of held-out templates last, where the clip has any), and `heldout` [N], how many of them are held out;
- `chroma_{split}_{shard}.npy`: pitch classes int8 [N, frames];
- `codes_{split}_{shard}.npy`: codec tokens int16 [N, K, T].
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from safetensors.torch import load_file
from stretto_codec.models.framecodec import FrameCodec, FrameCodecConfig
from stretto_embedding.loading import TextEncoder, load_default
from stretto_shared.audio import Waveform
from stretto_shared.dsp.chroma import extract_chroma


def load_codec(folder: Path) -> FrameCodec:
    """The exported codec in `folder`, in single precision."""
    config = json.loads((folder / "config.json").read_text())
    codec = FrameCodec(FrameCodecConfig(**config["config"]))
    codec.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    return codec.eval()


class CaptionStates:
    """States of captions, once each, those of one length together: faster than the service, equal to rounding."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    @torch.inference_mode()
    def of(self, captions: Sequence[str]) -> list[np.ndarray]:
        """States float16 [L, D] of each caption."""
        rows = [tuple(ids) for ids in self._encoder.tokenize_all(captions)]
        by_length: dict[int, list[tuple[int, ...]]] = {}
        for row in {row for row in rows if row not in self._known}:
            by_length.setdefault(len(row), []).append(row)
        for group in by_length.values():
            states = self._encoder.model(torch.tensor(group)).to(torch.float16).numpy()
            self._known.update(zip(group, states, strict=True))
        return [self._known[row] for row in rows]


def write_text(records: Path, out: Path, encoder: CaptionStates) -> None:
    """Caption states of one shard."""
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    captions = [[*row["captions"], *row["heldout_captions"]] for row in rows]
    states = encoder.of([caption for own in captions for caption in own])
    ends = np.cumsum([0, *map(len, states)])
    most, first, offsets = max(map(len, captions)), 0, []
    for own in captions:
        edges = ends[first : first + len(own) + 1].tolist()
        offsets.append(edges + edges[-1:] * (most + 1 - len(edges)))
        first += len(own)
    heldout = [len(row["heldout_captions"]) for row in rows]
    _write(out, lambda file: np.savez(file, states=np.concatenate(states), offsets=offsets, heldout=heldout))


def write_chroma(audio: Path, out: Path, sample_rate_hz: int) -> None:
    """Melodies of one shard."""
    clips = np.load(audio, mmap_mode="r")
    rows = [extract_chroma(Waveform(clip.astype(np.float32) / 32768, sample_rate_hz)).pitch_classes for clip in clips]
    _write(out, lambda file: np.save(file, np.stack(rows).astype(np.int8)))


@torch.inference_mode()
def write_codes(audio: Path, out: Path, codec: FrameCodec) -> None:
    """Codec tokens of one shard."""
    clips = np.load(audio, mmap_mode="r")
    parts = []
    for start in range(0, len(clips), 4):
        batch = torch.from_numpy(clips[start : start + 4].astype(np.float32) / 32768)[:, None]
        with torch.autocast("cpu", torch.bfloat16):
            latents = codec.encode_latents(batch).float()
        parts.append(codec.quantizer.encode(latents).to(torch.int16).numpy())
    _write(out, lambda file: np.save(file, np.concatenate(parts)))


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        write(file)
    part.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--codec", type=Path, help="exported codec, a folder; needed unless --only conditions")
    parser.add_argument("--only", choices=("conditions", "codes"))
    parser.add_argument("--share", default="0/1", help="this worker's share of the shards, as in 0/2 and 1/2")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    index, count = (int(part) for part in args.share.split("/"))
    args.out.mkdir(parents=True, exist_ok=True)
    encoder = None if args.only == "codes" else CaptionStates(load_default())
    codec = None if args.only == "conditions" else load_codec(args.codec)
    shards = sorted(path.stem.removeprefix("audio_") for path in args.corpus.glob("audio_*.npy"))
    for number, shard in enumerate(shards[index::count]):
        audio, records = args.corpus / f"audio_{shard}.npy", args.corpus / f"clips_{shard}.jsonl"
        if encoder is not None and not (args.out / f"text_{shard}.npz").exists():
            write_text(records, args.out / f"text_{shard}.npz", encoder)
        if args.only != "codes" and not (args.out / f"chroma_{shard}.npy").exists():
            write_chroma(audio, args.out / f"chroma_{shard}.npy", 24_000)
        if codec is not None and not (args.out / f"codes_{shard}.npy").exists():
            write_codes(audio, args.out / f"codes_{shard}.npy", codec)
        print(f"{shard} ({number + 1} of {len(shards[index::count])})", flush=True)


if __name__ == "__main__":
    main()
