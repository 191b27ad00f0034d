"""How alike a moment's harmony is to what was heard just before and comes just after, whatever the key.

Bars begin where harmony changes. In the manner of "Automatic audio segmentation using a measure of audio novelty"
(Foote 2000): columns of semitones are compared with one another. A convolution along the semitones, alike for all of
them, and a balance of high and low stand before the comparison and are learned; the comparison itself is an inner
product, so that it is the same in every key.

Legend: B batch, C columns, P semitones, H = 2 balances, L lags, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_transcriber.models.beat_tracker.config import BeatTrackerConfig

NUM_BALANCES = 2
SPAN_COLUMNS = (3, 6, 12, 24)
"""Columns before a moment that are compared, as one, with as many after it."""
_PLAIN_DIM, _HIDDEN_DIM = 24, 48
_PITCH_REACH = 6  # semitones
_LEAST_NORM = 1e-2


class Harmony(nn.Module):
    """Columns of semitones [B, C, P] to steps [B, D, C]."""

    def __init__(self, config: BeatTrackerConfig) -> None:
        super().__init__()
        self.lags = config.lag_columns
        self.scale = nn.BatchNorm1d(config.num_pitches)
        self.along = nn.Conv2d(1, config.pitch_channels, (1, 2 * _PITCH_REACH + 1), padding=(0, _PITCH_REACH))
        low = torch.linspace(2.0, -2.0, config.num_pitches)
        self.balance = nn.Parameter(torch.stack([low, torch.zeros_like(low)]))  # [H, P]
        self.plain = nn.Conv1d(config.num_pitches, _PLAIN_DIM, 1)
        num_likenesses = NUM_BALANCES * (2 * self.lags + len(SPAN_COLUMNS))
        self.join = nn.Sequential(
            nn.BatchNorm1d(num_likenesses + _PLAIN_DIM),
            nn.Conv1d(num_likenesses + _PLAIN_DIM, _HIDDEN_DIM, 5, padding=2),
            nn.GELU(),
            nn.BatchNorm1d(_HIDDEN_DIM),
            nn.Conv1d(_HIDDEN_DIM, config.dim, 1),
        )

    def forward(self, pitches: Tensor) -> Tensor:
        scaled = self.scale(pitches.transpose(1, 2))  # [B, P, C]
        batch, _, columns = scaled.shape
        along = F.relu(self.along(scaled.transpose(1, 2)[:, None]))  # [B, H * E, C, P]
        along = along.view(batch, NUM_BALANCES, -1, columns, along.shape[3]) * self.balance.sigmoid()[:, None, None]
        vectors = along.transpose(2, 3).flatten(3).flatten(0, 1).float()  # [B * H, C, E * P]
        likenesses = torch.cat([likeness_by_lag(vectors, self.lags), likeness_across(vectors)], dim=2)
        likenesses = likenesses.transpose(1, 2).reshape(batch, -1, columns)
        heard: Tensor = self.join(torch.cat([likenesses, self.plain(scaled)], dim=1))
        return heard


def likeness_by_lag(vectors: Tensor, num_lags: int) -> Tensor:
    """Cosines [N, C, 2 L] of vectors [N, C, E] with those 1 to L columns before, then after; 0 beyond the ends."""
    count, columns, _ = vectors.shape
    alike = _normal(vectors)
    cosines = F.pad(alike @ alike.transpose(1, 2), (num_lags, num_lags))  # [N, C, L + C + L]
    lags = torch.arange(1, num_lags + 1, device=vectors.device)
    offsets = num_lags + torch.cat([-lags, lags])
    places = torch.arange(columns, device=vectors.device)[:, None] + offsets  # [C, 2 L]
    return cosines.gather(2, places.expand(count, -1, -1))


def likeness_across(vectors: Tensor) -> Tensor:
    """Cosines of the sums of vectors [N, C, E] just before and from each column on, over each of `SPAN_COLUMNS`."""
    longest = SPAN_COLUMNS[-1]
    columns = vectors.shape[1]
    sums = F.pad(vectors, (0, 0, longest + 1, longest)).cumsum(1)
    now = longest + torch.arange(columns, device=vectors.device)  # sums up to the column before
    found = []
    for span in SPAN_COLUMNS:
        before, after = sums[:, now] - sums[:, now - span], sums[:, now + span] - sums[:, now]
        found.append((_normal(before) * _normal(after)).sum(2))
    return torch.stack(found, dim=2)


def _normal(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1, eps=_LEAST_NORM)
