"""Cached log-mel of a corpus, `mel_{split}_{shard}.npy` float16 [N, 4 T, M], and crops as windows hear them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_semantic.models.w2vbert.config import MEL_FRAMES_PER_TOKEN, FrameGrid
from stretto_semantic.models.w2vbert.model import silent_mel
from torch import Tensor


class MelClips:
    """The shards of a split; those that are added to the folder later are found by `refresh`."""

    def __init__(self, folder: Path, split: str, grid: FrameGrid, seed: int) -> None:
        self._folder, self._split, self._grid = folder, split, grid
        self._random = np.random.default_rng(seed)
        self._silence = silent_mel().numpy()
        self._arrays: dict[str, NDArray[np.float16]] = {}
        self.refresh()
        if not self._arrays:
            raise SystemExit(f"No mel_{split}_*.npy in {folder}. Make the features first.")

    def refresh(self) -> None:
        """Open the shards that are new."""
        for path in sorted(self._folder.glob(f"mel_{self._split}_*.npy")):
            if path.name not in self._arrays:
                self._arrays[path.name] = np.load(path, mmap_mode="r")
        self._ends = np.cumsum([len(array) for array in self._arrays.values()])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def clip(self, index: int) -> Tensor:
        """Log-mel float32 [4 T, M] of one clip."""
        which = int(np.searchsorted(self._ends, index, side="right"))
        array = list(self._arrays.values())[which]
        clip = array[index - (int(self._ends[which - 1]) if which else 0)]
        return torch.from_numpy(np.asarray(clip, np.float32))

    def spread(self, most: int) -> Tensor:
        """Log-mel [N, 4 T, M] of at most so many clips, evenly spread over the split."""
        places = np.unique(np.linspace(0, len(self) - 1, min(len(self), most)).round().astype(int))
        return torch.stack([self.clip(int(place)) for place in places])

    def batch(self, size: int, loudest_change: float = 0.0) -> Tensor:
        """Crops [size, 4 * reach, M] that begin anywhere a window could, each at a level of its own.

        A crop reaches past the ends of its clip as far as a window would. A change of 1 is e**4 in power.
        """
        rows = []
        for index in self._random.integers(len(self), size=size):
            crop = self._crop(self.clip(int(index)).numpy())
            change = np.float32(self._random.uniform(-loudest_change, loudest_change))
            rows.append(np.maximum(crop + change, self._silence.min()))
        return torch.from_numpy(np.stack(rows))

    def _crop(self, clip: NDArray[np.float32]) -> NDArray[np.float32]:
        grid, step = self._grid, MEL_FRAMES_PER_TOKEN
        start = int(self._random.integers(-grid.left * step, len(clip) + (grid.right - grid.reach) * step + 1))
        crop = np.tile(self._silence, (grid.reach * step, 1))
        first, end = max(0, start), min(len(clip), start + grid.reach * step)
        crop[first - start : end - start] = clip[first:end]
        return crop
