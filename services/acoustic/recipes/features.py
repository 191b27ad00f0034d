"""What `prepare_features.py` wrote, as batches for the language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Clips with their conditions; a row whose text mask is all 0 has no text, one whose chroma is all -1 no melody."""

    codes: Tensor  # [B, K, T]
    text_states: Tensor  # [B, L, D]
    text_mask: Tensor  # [B, L]
    chroma: Tensor  # [B, P]


class Features:
    """All shards of one split, in memory."""

    def __init__(self, folder: Path, split: str, num_codebooks: int) -> None:
        names = sorted(path.stem.removeprefix("codes_") for path in folder.glob(f"codes_{split}_*.npy"))
        if not names:
            raise SystemExit(f"No codes_{split}_*.npy in {folder}. Run prepare_features.py first.")
        self.codes = np.concatenate([np.load(folder / f"codes_{n}.npy")[:, :num_codebooks] for n in names])
        self.chroma = np.concatenate([np.load(folder / f"chroma_{n}.npy") for n in names])
        self.captions: list[list[np.ndarray]] = []
        self.num_heldout: list[int] = []
        for name in names:
            with np.load(folder / f"text_{name}.npz") as text:
                states = text["states"]
                for edges in text["offsets"]:
                    pairs = zip(edges, edges[1:], strict=False)
                    self.captions.append([states[a:b] for a, b in pairs if b > a])
                self.num_heldout += text["heldout"].tolist()

    def __len__(self) -> int:
        return len(self.codes)

    def caption(self, index: int, random: np.random.Generator, *, heldout: bool = False) -> np.ndarray:
        """States [L, D] of one caption of clip `index`, of a training template or of a held-out one."""
        captions, num_heldout = self.captions[index], self.num_heldout[index]
        own = captions[len(captions) - num_heldout :] if heldout else captions[: len(captions) - num_heldout]
        return own[int(random.integers(len(own)))]

    def batch(
        self,
        indices: Sequence[int],
        random: np.random.Generator,
        *,
        text_dropout: float = 0.0,
        melody_dropout: float = 0.0,
        heldout: bool = False,
        caption_of: Sequence[int] | None = None,
    ) -> Batch:
        """Clips `indices`; `caption_of` takes the captions of other clips instead."""
        texts = [self.caption(i, random, heldout=heldout) for i in (caption_of if caption_of is not None else indices)]
        longest = max(len(text) for text in texts)
        states = np.zeros((len(texts), longest, texts[0].shape[1]), np.float32)
        mask = np.zeros((len(texts), longest), np.int64)
        chroma = self.chroma[list(indices)].astype(np.int64)
        for row, text in enumerate(texts):
            if random.random() >= text_dropout:
                states[row, : len(text)], mask[row, : len(text)] = text, 1
            if random.random() < melody_dropout:
                chroma[row] = -1
        codes = torch.from_numpy(self.codes[list(indices)].astype(np.int64))
        return Batch(codes, torch.from_numpy(states), torch.from_numpy(mask), torch.from_numpy(chroma))
