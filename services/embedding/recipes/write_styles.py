"""Write what the stages of MusicLM are conditioned on: MuLan's points of every clip of a corpus.

`python services/embedding/recipes/write_styles.py --features DIR [--mulan services/embedding/weights/mulan]`

For each `mel_{split}_{shard}.npy` in `--features`: `style_{split}_{shard}.npy`, centred unit points float16 [N, D]. They
belong to one checkpoint; the codes are `MuLan.quantize` of them. What exists is not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_embedding.models.mulan import MuLan, build_mulan
from stretto_shared import weights

DEFAULT = Path(__file__).resolve().parents[1] / "weights" / "mulan"


def load_mulan(folder: Path) -> MuLan:
    """The exported MuLan in `folder`, its digest verified."""
    resolved = weights.resolve(folder.resolve().as_uri(), name="mulan", default_dir=folder)
    return build_mulan(resolved.config["config"], weights.load_tensors(resolved))


@torch.inference_mode()
def points_of(model: MuLan, mels: NDArray[np.float16], batch_size: int = 32) -> NDArray[np.float16]:
    """Centred unit points float16 [N, D] of spectrograms [N, T, M]."""
    parts = [mels[first : first + batch_size].astype(np.float32) for first in range(0, len(mels), batch_size)]
    return np.concatenate([model.embed_audio(torch.from_numpy(part)).half().numpy() for part in parts])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--features", type=Path, required=True, help="folder with mel_ of the corpus; style_ goes there"
    )
    parser.add_argument("--mulan", type=Path, default=DEFAULT, help="folder of the exported MuLan")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_mulan(args.mulan)
    for path in sorted(args.features.glob("mel_*.npy")):
        out = path.with_name(path.name.replace("mel_", "style_"))
        if out.exists():
            continue
        part = out.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, points_of(model, np.load(path, mmap_mode="r")))
        part.replace(out)
        print(out.name, flush=True)


if __name__ == "__main__":
    main()
