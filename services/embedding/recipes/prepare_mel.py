"""Log-mel spectrograms of a rendered corpus, shard by shard; what exists is not made again.

`python services/embedding/recipes/prepare_mel.py --corpus DIR --out DIR`

For each `audio_{split}_{shard}.npy` [N, S] of the corpus: `mel_{split}_{shard}.npy`, float16 [N, T, M] as
`stretto_shared.dsp.log_mel` makes them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from stretto_shared.dsp.log_mel import log_mel

BATCH_SIZE = 10


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for audio in sorted(args.corpus.glob("audio_*.npy")):
        out = args.out / audio.name.replace("audio_", "mel_")
        if out.exists():
            continue
        clips = np.load(audio, mmap_mode="r")
        batches = (clips[first : first + BATCH_SIZE] for first in range(0, len(clips), BATCH_SIZE))
        mels = [log_mel(torch.from_numpy(batch.astype(np.float32) / 32768)).half().numpy() for batch in batches]
        part = out.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, np.concatenate(mels))
        part.replace(out)
        print(out.name, flush=True)


if __name__ == "__main__":
    main()
