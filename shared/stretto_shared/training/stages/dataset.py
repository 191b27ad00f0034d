"""The features of a stage's clips, as windows: its own tokens with the style, the melody and the source beside them.

A folder holds, for each shard of a split, int16 `codes_{split}_{shard}.npy` [N, 12, T] and `semantic_...` [N, T],
float16 `style_...` [N, D], joint embeddings of the clips' audio, and int16 `melody_...` [N, n, U]. Clips of a shard
are taken where all that the stage needs is there; a melody may be missing, and is then not told.

Legend: N clips, B windows, T frames; K, Q, J, W, U, n as in `stretto_shared.nn.stage_lm.config` (n: its N).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stretto_shared.nn.rvq import ResidualVectorQuantizer
from stretto_shared.nn.stage_lm import UNTOLD, StageConfig
from stretto_shared.training.stages.recipe import Recipe


@dataclass(frozen=True)
class Windows:
    """A batch: `stream` [B, T * K], and what is told of it; a code that is `UNTOLD` is not."""

    stream: Tensor
    style: Tensor | None  # [B, Q]
    melody: Tensor | None  # [B, n, U]
    source: Tensor | None  # [B, J, W]

    def rolled(self) -> Windows:
        """The same streams, each told what belongs to another."""

        def of_another(codes: Tensor | None) -> Tensor | None:
            return None if codes is None else codes.roll(len(codes) // 2 or 1, 0)

        return replace(
            self, style=of_another(self.style), melody=of_another(self.melody), source=of_another(self.source)
        )


class StageFeatures:
    """All clips of one split, in memory.

    Raises:
        SystemExit: If no shard has all that the stage needs.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        recipe: Recipe,
        config: StageConfig,
        quantizer: ResidualVectorQuantizer | None,
    ) -> None:
        self.config = config
        self._quantizer = quantizer
        kinds = [recipe.own_kind, *([recipe.source_kind] if config.hears_source else [])]
        kinds += ["style"] if config.hears_style else []
        shards = _shards(folder, split, kinds)
        if not shards:
            raise SystemExit(f"No shard of split {split!r} in {folder} has all of {', '.join(kinds)}. Make them first.")
        last = recipe.first_codebook + config.num_codebooks
        self.own = _tokens(folder, recipe.own_kind, shards)[:, recipe.first_codebook : last]
        self.source = self.style = self.melody = None
        if config.hears_source:
            self.source = _tokens(folder, recipe.source_kind, shards)[:, : config.num_source_codebooks]
        if config.hears_style:
            self.style = np.concatenate([np.load(folder / f"style_{shard}.npy") for shard in shards])
        if config.hears_melody:
            self.melody = _melodies(folder, shards, len(self.own), config)

    def __len__(self) -> int:
        return len(self.own)

    @property
    def num_clip_frames(self) -> int:
        return int(self.own.shape[2])

    def windows(
        self, clips: Sequence[int], first_frames: Sequence[int], num_frames: int, *, noise: Tensor | None = None
    ) -> Windows:
        """Windows of `num_frames` own frames of some clips, told all there is.

        Args:
            clips: Indices [B].
            first_frames: Where each window begins in its clip, in own frames.
            num_frames: T.
            noise: Added to the styles [B, D] before they become codes.
        """
        config, rate_hz = self.config, self.config.frame_rate_hz
        own = _cut(self.own, clips, first_frames, 1.0, num_frames)
        source = style = melody = None
        if self.source is not None:
            ratio = config.source_frame_rate_hz / rate_hz
            source = _cut(self.source, clips, first_frames, ratio, config.source_frames(num_frames))
        if self.melody is not None:
            ratio = config.melody_frame_rate_hz / rate_hz
            melody = _cut(self.melody, clips, first_frames, ratio, config.melody_frames(num_frames))
        if self.style is not None:
            style = self.style_codes(torch.from_numpy(self.style[list(clips)].astype(np.float32)), noise)
        return Windows(own.transpose(1, 2).flatten(1), style, melody, source)

    def style_codes(self, embeddings: Tensor, noise: Tensor | None) -> Tensor:
        """Codes [B, Q] of points [B, D] of unit length, moved by the noise first."""
        assert self._quantizer is not None
        moved = embeddings if noise is None else embeddings + noise
        return self._quantizer.encode(F.normalize(moved, dim=-1)[:, None])[..., 0]


def random_windows(
    features: StageFeatures, clips: Sequence[int], recipe: Recipe, random: np.random.Generator
) -> Windows:
    """Windows anywhere in some clips, all of one random length, with some of what belongs to them left out."""
    config = features.config
    num_frames = min(config.window_frames, features.num_clip_frames)
    if random.random() < recipe.short_share:
        num_frames = int(random.integers(1 + num_frames // 16, num_frames + 1))
    first_frames = random.integers(0, features.num_clip_frames - num_frames + 1, len(clips)).tolist()
    noise = None
    if features.style is not None and recipe.style_noise:
        dim = features.style.shape[1]
        lengths = random.uniform(0, recipe.style_noise, (len(clips), 1)) * dim**-0.5
        noise = torch.from_numpy((random.standard_normal((len(clips), dim)) * lengths).astype(np.float32))
    whole = features.windows(clips, first_frames, num_frames, noise=noise)
    source = None if whole.source is None else wrong_in_part(whole.source, recipe.source_noise, random)
    return Windows(
        whole.stream,
        _dropped(whole.style, recipe.style_dropout, random),
        _dropped(whole.melody, recipe.melody_dropout, random),
        _dropped(source, recipe.source_dropout, random),
    )


def wrong_in_part(tokens: Tensor, most: float, random: np.random.Generator) -> Tensor:
    """Tokens [B, ...] of which, in half of the rows, a random share up to `most` is replaced by others of the batch."""
    if not most:
        return tokens
    share = random.uniform(0, most, len(tokens)) * (random.random(len(tokens)) < 0.5)
    is_wrong = random.random(tokens.shape) < share.reshape(-1, *[1] * (tokens.ndim - 1))
    others = tokens[torch.from_numpy(random.permutation(len(tokens)))].roll(int(random.integers(1, 9)), -1)
    return torch.where(torch.from_numpy(is_wrong) & (others != UNTOLD), others, tokens)


def _dropped(codes: Tensor | None, share: float, random: np.random.Generator) -> Tensor | None:
    """The codes, not told in a random share of the rows."""
    if codes is None or not share:
        return codes
    is_untold = torch.from_numpy(random.random(len(codes)) < share)
    return codes.masked_fill(is_untold.view(-1, *[1] * (codes.ndim - 1)), UNTOLD)


def _cut(
    codes: NDArray[np.int16], clips: Sequence[int], first_frames: Sequence[int], ratio: float, num_frames: int
) -> Tensor:
    """Frames [B, K, T] of some clips [N, K, T']; `UNTOLD` beyond their end."""
    cut = np.full((len(clips), codes.shape[1], num_frames), UNTOLD, np.int64)
    for row, (clip, first) in enumerate(zip(clips, first_frames, strict=True)):
        start = int(first * ratio + 1e-6)
        found = codes[clip, :, start : start + num_frames]
        cut[row, :, : found.shape[1]] = found
    return torch.from_numpy(cut)


def _shards(folder: Path, split: str, kinds: Sequence[str]) -> list[str]:
    """`{split}_{shard}` of every shard that has all kinds, in order."""
    names = [{path.stem.removeprefix(f"{kind}_") for path in folder.glob(f"{kind}_{split}_*.npy")} for kind in kinds]
    return sorted(set.intersection(*names))


def _tokens(folder: Path, kind: str, shards: Sequence[str]) -> NDArray[np.int16]:
    """Tokens [N, K, T] of one kind; of a kind with one codebook, K is 1."""
    tokens = np.concatenate([np.load(folder / f"{kind}_{shard}.npy") for shard in shards])
    return tokens if tokens.ndim == 3 else tokens[:, None]


def _melodies(folder: Path, shards: Sequence[str], num_clips: int, config: StageConfig) -> NDArray[np.int16]:
    """Melodies [N, n, U]; untold where a shard has none yet."""
    found = {shard: np.load(path) for shard in shards if (path := folder / f"melody_{shard}.npy").exists()}
    num_columns = max((melody.shape[2] for melody in found.values()), default=1)
    parts: list[NDArray[np.int16]] = []
    for shard in shards:
        num_rows = len(np.load(folder / f"style_{shard}.npy", mmap_mode="r"))
        parts.append(found.get(shard, np.full((num_rows, config.num_melody_codebooks, num_columns), UNTOLD, np.int16)))
    melodies = np.concatenate(parts)
    if len(melodies) != num_clips:
        raise SystemExit(f"The shards have {num_clips} clips and {len(melodies)} melodies. Make the melodies again.")
    return melodies
