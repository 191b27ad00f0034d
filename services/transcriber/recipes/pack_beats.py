"""Excerpts in a quarter of their bytes: `services/transcriber/recipes/pack_beats.py --excerpts DIR --out DIR`.

To carry a corpus of `prepare_beats.py` to another machine: log-mel values in steps of .1, far finer than the noise and
the colours that training puts over them, and compressed. `read_shards` reads both.

Legend: N excerpts, T frames, M mel bands.
"""

from __future__ import annotations

import argparse
import io
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

BEAT, DOWNBEAT, ONSET = 1, 2, 4
"""Flags of a frame's target."""
STEPS_PER_UNIT = 10
"""Of the natural logarithm: a step is a tenth, .9 dB, of loud bands, less of soft ones."""
SPECTRA = ("mel", "pitches")
PACKED = "excerpts_{split}.npz.xz"


def spectra(stored: Tensor) -> Tensor:
    """Log-mel spectrograms in float32 from stored ones [..., M], of half precision or packed."""
    return stored.float() / STEPS_PER_UNIT if stored.dtype == torch.uint8 else stored.float()


def read_shards(folder: Path, split: str) -> list[dict[str, Any]]:
    """All shards of a split: `mel` [N, T, M], `pitches` [N, C, P], `targets` [N, T], `beats` [K, 3].

    A row of `beats` is the excerpt's number, time and place in the bar.

    Raises:
        SystemExit: If the folder has neither shards nor their pack, or shards of before there were semitones.
    """
    packed = folder / PACKED.format(split=split)
    if packed.exists():
        with lzma.open(packed) as file:
            levels = dict(np.load(io.BytesIO(file.read())))
        for name in SPECTRA:
            levels[name] = np.cumsum(levels[name], axis=1, dtype=np.uint8)
        return [levels]
    paths = sorted(folder.glob(f"excerpts_{split}_*.npz"))
    if not paths:
        raise SystemExit(f"No excerpts_{split}_*.npz in {folder}. Run prepare_beats.py first.")
    shards = [dict(np.load(path)) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        if lacking := [name for name in SPECTRA if name not in shard]:
            raise SystemExit(f"{path}: expected {' and '.join(SPECTRA)}, got no {lacking[0]}. Prepare them anew.")
    return shards


def pack(shards: Sequence[dict[str, Any]], out: Path) -> None:
    """Write shards as one file; each frame as the difference from the one before."""
    steps = {}
    for name in SPECTRA:
        values = np.concatenate([shard[name] for shard in shards]).astype(np.float32)
        levels = np.clip(np.rint(values * STEPS_PER_UNIT), 0, 255).astype(np.uint8)
        steps[name] = np.diff(levels, axis=1, prepend=np.uint8(0))  # modulo 256
    first = np.cumsum([0, *(len(shard["mel"]) for shard in shards)])
    beats = [shard["beats"] + np.array([start, 0.0, 0.0]) for start, shard in zip(first, shards)]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        **steps,
        targets=np.concatenate([shard["targets"] for shard in shards]),
        beats=np.concatenate(beats),
        sources=np.concatenate([shard["sources"] for shard in shards]),
    )
    out.write_bytes(lzma.compress(buffer.getvalue(), preset=2))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--excerpts", type=Path, required=True, help="folder of prepare_beats.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-shards", type=int, default=75, help="of the training split")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    for split in ("valid", "train"):
        out = args.out / PACKED.format(split=split)
        pack(read_shards(args.excerpts, split)[: args.max_shards], out)
        print(f"{out}: {out.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
