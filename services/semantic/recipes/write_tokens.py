"""Turn cached log-mel into semantic tokens, shard by shard: `python services/semantic/recipes/write_tokens.py ...`.

Each `mel_{split}_{shard}.npy` float16 [N, 4 T, M] becomes `semantic_{split}_{shard}.npy` int16 [N, T], by the
service's windows. Clips share a pass, and their mel is kept in half precision, so that where two centroids are about
equally near, a token may be the other than the service gives. What exists is not made again, unless with `--again`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_semantic.models.w2vbert.config import MEL_FRAMES_PER_TOKEN, TokenizerConfig
from stretto_semantic.models.w2vbert.model import W2vBertTokenizer, cut_windows
from stretto_shared import weights

CLIPS_A_PASS = 4


def load_tokenizer(folder: Path) -> W2vBertTokenizer:
    """The exported tokenizer in `folder`, in single precision."""
    resolved = weights.resolve(folder.resolve().as_uri(), name=folder.name, default_dir=folder)
    tokenizer = W2vBertTokenizer(TokenizerConfig(**resolved.config["config"]))
    tokenizer.load_state_dict({name: value.float() for name, value in weights.load_tensors(resolved).items()})
    return tokenizer.eval()


@torch.inference_mode()
def tokenize_clips(tokenizer: W2vBertTokenizer, mel: NDArray[np.float16]) -> NDArray[np.int16]:
    """Tokens [N, T] of log-mel [N, 4 T, M]."""
    rows = []
    for start in range(0, len(mel), CLIPS_A_PASS):
        clips = torch.from_numpy(np.asarray(mel[start : start + CLIPS_A_PASS], np.float32))
        windows = cut_windows(clips, tokenizer.grid)
        ids = tokenizer.tokenize(windows.flatten(0, 1)).view(len(clips), -1)
        rows.append(ids[:, : mel.shape[1] // MEL_FRAMES_PER_TOKEN].to(torch.int16).numpy())
    return np.concatenate(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="exported tokenizer, a folder")
    parser.add_argument("--features", type=Path, required=True, help="folder of mel_{split}_{shard}.npy")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--again", action="store_true", help="make what exists again")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(args.tokenizer)
    for path in sorted(args.features.glob("mel_*.npy")):
        out = args.out / path.name.replace("mel_", "semantic_")
        if out.exists() and not args.again:
            continue
        part = out.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, tokenize_clips(tokenizer, np.load(path, mmap_mode="r")))
        part.replace(out)
        print(out.name, flush=True)


if __name__ == "__main__":
    main()
