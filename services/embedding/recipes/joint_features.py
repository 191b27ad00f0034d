"""What a MuLan is trained on: log-mel spectrograms and the token states of captions, shard by shard, and their changes.

Reads `mel_{split}_{shard}.npy` float16 [N, T, M] (mapped, not read) and `text_{split}_{shard}.npz` as
`services/acoustic/recipes/prepare_features.py` writes it.

Legend: B batch, T frames, M mel bands, L tokens, S width of the states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SILENCE = (math.log(1e-9) + 14.5) / 4.0
_NEPER_PER_DB = math.log(10) / 10 / 4.0  # `log_mel` is a fourth of the natural logarithm of power
_EQ_KNOTS = 6


@dataclass(frozen=True)
class Captions:
    """States float32 [B, L, S] of one caption of each clip, and where there are any, [B, L]."""

    states: Tensor
    mask: Tensor


class JointFeatures:
    """All clips of some splits that have both a spectrogram and captions."""

    def __init__(self, folders: Sequence[tuple[Path, str]]) -> None:
        self._mels: list[NDArray[np.float16]] = []
        self._states: list[NDArray[np.float16]] = []
        self._offsets: list[NDArray[np.int64]] = []
        self._heldout: list[NDArray[np.int64]] = []
        self.places: list[tuple[int, int]] = []
        for folder, split in folders:
            for path in sorted(folder.glob(f"mel_{split}_*.npy")):
                text = path.with_name(path.name.replace("mel_", "text_")).with_suffix(".npz")
                if text.exists():
                    self._add(path, text)
        if not self.places:
            wanted = ", ".join(f"{folder}/{{mel,text}}_{split}_*" for folder, split in folders)
            raise FileNotFoundError(f"expected features at {wanted}, found none. Prepare them.")

    def _add(self, mel: Path, text: Path) -> None:
        mels = np.load(mel, mmap_mode="r")
        with np.load(text) as arrays:
            states, offsets, heldout = arrays["states"], arrays["offsets"], arrays["heldout"]
        if len(mels) != len(offsets):
            raise ValueError(f"{mel.name} holds {len(mels)} clips, {text.name} {len(offsets)}. Prepare both again.")
        self.places += [(len(self._mels), row) for row in range(len(mels))]
        self._mels.append(mels)
        self._states.append(states)
        self._offsets.append(offsets)
        self._heldout.append(heldout)

    def __len__(self) -> int:
        return len(self.places)

    def num_captions(self, index: int) -> int:
        """How many captions of training templates a clip has."""
        shard, row = self.places[index]
        return int((np.diff(self._offsets[shard][row]) > 0).sum()) - int(self._heldout[shard][row])

    def mel(self, indices: Sequence[int], starts: Sequence[int] | None = None, num_frames: int = 0) -> Tensor:
        """Spectrograms float32 [B, T, M], whole or `num_frames` from `starts` on."""
        rows = []
        for position, index in enumerate(indices):
            shard, row = self.places[index]
            start = starts[position] if starts is not None else 0
            rows.append(self._mels[shard][row, start : start + num_frames if num_frames else None])
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    @property
    def num_frames(self) -> int:
        """Frames of a whole clip."""
        return int(self._mels[0].shape[1])

    def captions(self, indices: Sequence[int], which: Sequence[int]) -> Captions:
        """Caption `which[b]` of clip `indices[b]`, padded to the longest."""
        rows = []
        for index, number in zip(indices, which, strict=True):
            shard, row = self.places[index]
            first, last = self._offsets[shard][row][number : number + 2]
            rows.append(torch.from_numpy(self._states[shard][first:last]))
        longest = max(map(len, rows))
        states = torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows])
        mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        return Captions(states.float(), mask)


def perturbed(mel: Tensor, random: np.random.Generator, *, gain_db: float, eq_db: float, max_masked: int) -> Tensor:
    """Spectrograms [B, T, M] at another level, through another room's tone, with stretches of time and bands missing.

    The tone is a smooth curve over the bands; what lay at the floor stays there.
    """
    batch, frames, bands = mel.shape
    knots = torch.from_numpy(random.normal(0.0, eq_db, (batch, 1, _EQ_KNOTS)).astype(np.float32))
    tone = F.interpolate(knots, size=bands, mode="linear", align_corners=True)  # [B, 1, M]
    level = torch.from_numpy(random.uniform(-gain_db, gain_db, (batch, 1, 1)).astype(np.float32))
    out = (mel + (tone + level) * _NEPER_PER_DB).clamp(min=SILENCE)
    if max_masked:
        for row in range(batch):
            width, height = int(random.integers(max_masked + 1)), int(random.integers(bands // 8 + 1))
            first, lowest = int(random.integers(frames - width + 1)), int(random.integers(bands - height + 1))
            out[row, first : first + width] = SILENCE
            out[row, :, lowest : lowest + height] = SILENCE
    return out
