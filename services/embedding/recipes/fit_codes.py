"""Take both means and fit the quantizer on every training clip, and write the points of every clip of the corpus.

`python services/embedding/recipes/fit_codes.py --mulan RUN/export/mulan --features DIR --out DIR`

For each `mel_{split}_{shard}.npy` in `--features`: `style_{split}_{shard}.npy`, centred unit points float16 [N, D],
which the stages of MusicLM hear as codes of `MuLan.quantize`. They belong to one checkpoint; all are made anew.
`--keep-codes` takes the checkpoint as it is, and writes the points alone; `--bf16` hears twice as fast, in half of the
digits, which is finer than the first codebooks.

Legend: N clips, T frames, M mel bands, D of the space.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from joint_features import JointFeatures
from numpy.typing import NDArray
from stretto_embedding.models.mulan import MuLan, build_mulan
from stretto_shared import weights
from torch import Tensor
from torch.nn import functional as F
from train_mulan import centre_and_fit, raw_text, text_sample

MAX_CAPTIONS = 4000


def load_mulan(folder: Path) -> tuple[MuLan, weights.ResolvedWeights]:
    """The exported MuLan in `folder`, its digest verified, and what is written about it."""
    resolved = weights.resolve(folder.resolve().as_uri(), name="mulan", default_dir=folder)
    return build_mulan(resolved.config["config"], weights.load_tensors(resolved)), resolved


@torch.inference_mode()
def raw_points(model: MuLan, mels: NDArray[np.float16], batch_size: int = 32) -> Tensor:
    """Uncentred points float32 [N, D] of spectrograms [N, T, M]."""
    parts = [mels[first : first + batch_size].astype(np.float32) for first in range(0, len(mels), batch_size)]
    return torch.cat([model.raw_audio(torch.from_numpy(part)) for part in parts])


def write_style(path: Path, points: Tensor) -> None:
    """Points [N, D] beside their spectrograms, in one move."""
    out = path.with_name(path.name.replace("mel_", "style_"))
    part = out.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, points.half().numpy())
    part.replace(out)


@torch.inference_mode()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mulan", type=Path, required=True, help="folder of the exported MuLan")
    parser.add_argument("--features", type=Path, required=True, help="folder with mel_ and text_; style_ goes there")
    parser.add_argument("--out", type=Path, help="folder of the finished MuLan")
    parser.add_argument("--keep-codes", action="store_true", help="write style_ alone")
    parser.add_argument("--bf16", action="store_true", help="hear the clips in bfloat16")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, resolved = load_mulan(args.mulan)
    paths = sorted(args.features.glob("mel_*.npy"))
    with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
        raw = {path: raw_points(model, np.load(path, mmap_mode="r")) for path in paths}
    if not args.keep_codes:
        if args.out is None:
            parser.error("--out names the folder of the finished MuLan; or --keep-codes.")
        train, valid = (JointFeatures([(args.features, split)]) for split in ("train", "valid"))
        audio = torch.cat([points for path, points in raw.items() if path.name.startswith("mel_train_")])
        text = raw_text(model, train, *text_sample(train, MAX_CAPTIONS))
        centre_and_fit(model, audio, text, valid)
        about = resolved.config
        weights.write(
            args.out,
            {name: value.half() for name, value in model.servable_state().items()},
            name=about["name"],
            architecture=about["architecture"],
            config=dataclasses.asdict(model.config),
            licence=about["licence"],
            score=about["score"],
            training={**about["training"], "clips_for_codes": len(audio)},
        )
    for path, points in raw.items():
        write_style(path, F.normalize(points - model.audio_mean, dim=1))
    print(f"{len(raw)} shards, {sum(map(len, raw.values()))} clips", flush=True)


if __name__ == "__main__":
    main()
