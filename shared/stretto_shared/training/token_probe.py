"""What can be read off tokens by a linear map: probes, and the truths that they look for.

A probe is multinomial logistic regression on one-hot tokens: of a frame and `context` frames on either side, or of all
frames of a clip in equal shares. As one-hot inputs only pick rows of the map, it is a sum of table rows.

Truths, per token frame of 1 / 25 s or per clip, -1 where there is none:

- pitch class: the loudest of `extract_chroma` at the frame's centre; it hears 0.512 s, so the truth itself is smeared;
- beat position: the quarter of the beat at the frame's centre, by the score's own tempo and first beat, in clips with
  drums; nothing of the audio is asked;
- family: of the one instrument family that sounds in the clip.

Legend: N clips, T token frames, F chroma frames, V tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stretto_shared.features import CHROMA_FRAME_RATE_HZ
from stretto_shared.training.corpus.records import ClipRecord

NUM_BEAT_POSITIONS = 4
NO_TRUTH = -1


def frame_centres_s(num_frames: int, frame_rate_hz: float) -> NDArray[np.float64]:
    """Centres [T] of token frames."""
    centres: NDArray[np.float64] = (np.arange(num_frames, dtype=np.float64) + 0.5) / frame_rate_hz
    return centres


def pitch_class_truth(chroma: NDArray[np.integer], num_frames: int, frame_rate_hz: float) -> NDArray[np.int64]:
    """Loudest pitch classes [N, F] to truths [N, T]: those of the chroma frame centred nearest to each frame."""
    nearest = np.rint(frame_centres_s(num_frames, frame_rate_hz) * CHROMA_FRAME_RATE_HZ).astype(int)
    return chroma[:, np.minimum(nearest, chroma.shape[1] - 1)].astype(np.int64)


def beat_truth(records: Sequence[ClipRecord], num_frames: int, frame_rate_hz: float) -> NDArray[np.int64]:
    """Quarters of the beat [N, T], for clips of known tempo with drums."""
    centres = frame_centres_s(num_frames, frame_rate_hz)
    rows = []
    for record in records:
        if record.tempo_bpm is None or all(use.family != "drums" for use in record.instruments):
            rows.append(np.full(num_frames, NO_TRUTH))
        else:
            beats = (record.start_s + centres) * record.tempo_bpm / 60
            rows.append((beats % 1 * NUM_BEAT_POSITIONS).astype(int))
    return np.stack(rows).astype(np.int64)


def family_truth(records: Sequence[ClipRecord], families: Sequence[str]) -> NDArray[np.int64]:
    """Index [N, 1] of the only family of each clip, for clips with one of `families` alone."""
    alone = [{use.family for use in record.instruments} for record in records]
    known = [next(iter(own)) if len(own) == 1 else "" for own in alone]
    return np.array([[families.index(name) if name in families else NO_TRUTH] for name in known], np.int64)


@dataclass(frozen=True)
class ProbeOptions:
    """How a probe is fitted; the same for all tokens that are compared.

    Args:
        context: Frames on either side of the frame asked about; None reads the whole clip, which has one truth.
    """

    num_tokens: int
    num_classes: int
    context: int | None
    passes: int = 30
    batch_size: int = 32
    learning_rate: float = 0.03
    weight_decay: float = 1e-4
    seed: int = 0


class TokenProbe:
    """A linear map of one-hot tokens, fitted on some clips."""

    def __init__(self, options: ProbeOptions, tokens: NDArray[np.integer], truth: NDArray[np.integer]) -> None:
        """Fit on tokens [N, T] and truths [N, T], or [N, 1] for whole clips."""
        self._options = options
        offsets = 1 if options.context is None else 2 * options.context + 1
        # One row more for what lies beyond the ends of a clip.
        self._table = torch.zeros(offsets * (options.num_tokens + 1), options.num_classes, requires_grad=True)
        self._bias = torch.zeros(options.num_classes, requires_grad=True)
        told = (truth != NO_TRUTH).any(1)
        self._fit(torch.from_numpy(tokens[told].astype(np.int64)), torch.from_numpy(truth[told].astype(np.int64)))

    def _fit(self, tokens: Tensor, truth: Tensor) -> None:
        options = self._options
        optimizer = torch.optim.Adam([self._table, self._bias], options.learning_rate)
        generator = torch.Generator().manual_seed(options.seed)
        for number in range(options.passes):
            optimizer.param_groups[0]["lr"] = options.learning_rate * (1 - number / options.passes)
            for rows in torch.split(torch.randperm(len(tokens), generator=generator), options.batch_size):
                logits = self._logits(tokens[rows])
                loss = F.cross_entropy(logits.flatten(0, 1), truth[rows].flatten(), ignore_index=NO_TRUTH)
                loss = loss + options.weight_decay * self._table.square().sum()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()

    def _logits(self, tokens: Tensor) -> Tensor:
        """Tokens [N, T] to logits [N, T, C], or [N, 1, C] for whole clips."""
        context, size = self._options.context, self._options.num_tokens + 1
        if context is None:
            shares: Tensor = F.embedding(tokens, self._table).mean(1, keepdim=True)
            return shares + self._bias
        padded = F.pad(tokens, (context, context), value=self._options.num_tokens)
        windows = padded.unfold(1, 2 * context + 1, 1) + size * torch.arange(2 * context + 1)  # [N, T, 2 context + 1]
        summed = F.embedding_bag(windows.flatten(0, 1), self._table, mode="sum")
        return summed.view(*tokens.shape, -1) + self._bias

    @torch.no_grad()
    def accuracies(self, tokens: NDArray[np.integer], truth: NDArray[np.integer]) -> NDArray[np.float64]:
        """Share of right answers of each clip, NaN where it has no truth: [N] of tokens [N, T]."""
        parts = torch.split(torch.from_numpy(tokens.astype(np.int64)), 64)
        answers = torch.cat([self._logits(part).argmax(-1) for part in parts])
        told = truth != NO_TRUTH
        right = ((answers.numpy() == truth) & told).sum(1)
        return np.where(told.any(1), right / np.maximum(told.sum(1), 1), np.nan)
