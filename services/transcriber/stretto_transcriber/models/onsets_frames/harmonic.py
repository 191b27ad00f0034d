"""Onsets and Frames whose weights are shared over pitch: one small network that looks at each key and its harmonics.

After HPPNet (Wei et al. 2022, https://arxiv.org/abs/2208.14339). The spectrum's bands are a third of a semitone apart,
so a note looks the same wherever it lies but for its register. A pitch is described by the bands at its harmonics and
sub-harmonics; convolutions over time, neighbours and octaves; and an LSTM over time, of every pitch by itself. What the
network may know of the register is a bias of each pitch and channel. Onsets have a branch of their own; offsets, frames
and velocities read the other one, and frames also the onsets and offsets, detached, as in the papers.

Departures: offsets and activations share a branch; dropout is left out, since weights that are shared over 88 pitches
do not overfit; velocity reads the onsets' branch, where the stroke is.

Legend: B batch, C channels, T frames, P semitones or pitches, F numbers of a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_transcriber.models.onsets_frames.config import NUM_PITCHES, OnsetsFramesConfig
from stretto_transcriber.models.onsets_frames.heads import Heads
from stretto_transcriber.models.onsets_frames.spectrum import (
    BINS_PER_SEMITONE,
    HARMONIC_WINDOWS,
    NUM_SEMITONES,
    HarmonicSpectrum,
    harmonic_shifts,
)

HARMONICS = (0.5, 1, 2, 3, 4, 5, 6, 7, 8)
_RARE = -4.0  # the first bias of heads that are seldom on


def _normalised(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))


class HarmonicBranch(nn.Module):
    """Semitones [B, C, T, 99] to what is known of each pitch at each time [B, T, 88, 2 * lstm_size]."""

    def __init__(self, fold_channels: int, channels: int, lstm_size: int) -> None:
        super().__init__()
        self.shifts = harmonic_shifts(HARMONICS)
        self.harmonics = _normalised(nn.Conv2d(len(HARMONICS) * fold_channels, channels, 1, bias=False))
        self.register = nn.Parameter(torch.zeros(1, channels, 1, NUM_PITCHES))
        self.near = _normalised(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        octaves = nn.Conv2d(channels, channels, (1, 3), padding=(0, 12), dilation=(1, 12), bias=False)
        self.octaves = _normalised(octaves)
        self.later = _normalised(nn.Conv2d(channels, channels, (5, 1), padding=(4, 0), dilation=(2, 1), bias=False))
        self.lstm = nn.LSTM(channels, lstm_size, batch_first=True, bidirectional=True)

    def forward(self, semitones: Tensor) -> Tensor:
        x = self._at_harmonics(semitones)  # [B, C, T, 88]
        x = F.relu(x + self.register.to(x.dtype))
        for conv in (self.near, self.octaves, self.later):
            x = F.relu(x + conv(x))
        batch, channels, frames, _ = x.shape
        rows = x.permute(0, 3, 2, 1).reshape(batch * NUM_PITCHES, frames, channels)
        known: Tensor = self.lstm(rows)[0]  # [B * 88, T, 2 * lstm_size]
        return known.reshape(batch, NUM_PITCHES, frames, -1).transpose(1, 2)

    def _at_harmonics(self, semitones: Tensor) -> Tensor:
        # `self.harmonics` of all shifted copies side by side, without making them: a third faster on a CPU.
        conv, norm = self.harmonics
        kernel: Tensor = conv.get_parameter("weight")
        weights = kernel[:, :, 0, 0].chunk(len(self.shifts), 1)
        below, above = -min(self.shifts), NUM_PITCHES + max(self.shifts) - NUM_SEMITONES
        rows = F.pad(semitones.permute(0, 2, 3, 1), (0, 0, below, above))  # [B, T, P, C]
        firsts = [below + shift for shift in self.shifts]
        total = F.linear(rows[:, :, firsts[0] : firsts[0] + NUM_PITCHES], weights[0])
        for first, weight in zip(firsts[1:], weights[1:], strict=True):
            total = total + F.linear(rows[:, :, first : first + NUM_PITCHES], weight)
        out: Tensor = norm(total.permute(0, 3, 1, 2))
        return out


class HarmonicNetwork(nn.Module):
    """Features [B, T, F] to the logits of the heads."""

    def __init__(self, config: OnsetsFramesConfig) -> None:
        super().__init__()
        self.config = config
        self.spectrum = HarmonicSpectrum(config.sample_rate_hz, config.hop_length, config.frame_centre)
        stem, fold = config.stem_channels, config.fold_channels
        self.stem = _normalised(nn.Conv2d(len(HARMONIC_WINDOWS), stem, (3, 5), padding=(1, 2), bias=False))
        self.fold = _normalised(nn.Conv2d(stem, fold, (3, 3), stride=(1, 3), padding=(1, 0), bias=False))
        self.onset_branch = HarmonicBranch(fold, config.branch_channels, config.lstm_size)
        self.sustain_branch = HarmonicBranch(fold, config.branch_channels, config.lstm_size)
        known = 2 * config.lstm_size
        self.onset_head, self.velocity_head = nn.Linear(known, 1), nn.Linear(known, 1)
        self.offset_head = nn.Linear(known, 1) if config.has_offset_head else None
        self.activation = nn.Linear(known, config.combined_lstm_size)
        heard = config.combined_lstm_size + 1 + config.has_offset_head
        self.combined = nn.LSTM(heard, config.combined_lstm_size, batch_first=True, bidirectional=True)
        self.frame_head = nn.Linear(2 * config.combined_lstm_size, 1)
        self.key_head = nn.Linear(2 * config.combined_lstm_size, 1) if config.has_key_head else None
        for head in (self.onset_head, self.offset_head):
            if head is not None:
                nn.init.constant_(head.bias, _RARE)

    def forward(self, features: Tensor) -> Heads:
        x = torch.stack(features.chunk(len(HARMONIC_WINDOWS), -1), 1)  # [B, W, T, 297]
        x = F.relu(self.stem(x.contiguous(memory_format=torch.channels_last)))
        semitones = F.relu(self.fold(x))  # [B, C, T, 99]
        assert semitones.shape[-1] * BINS_PER_SEMITONE == x.shape[-1]
        struck, sounding = self.onset_branch(semitones), self.sustain_branch(semitones)
        onset = self.onset_head(struck)[..., 0]  # [B, T, 88]
        offset = self.offset_head(sounding)[..., 0] if self.offset_head is not None else None
        known = self._combined(sounding, onset, offset)
        key = self.key_head(known)[..., 0] if self.key_head is not None else None
        return Heads(onset, offset, self.frame_head(known)[..., 0], self.velocity_head(struck)[..., 0], key)

    def _combined(self, sounding: Tensor, onset: Tensor, offset: Tensor | None) -> Tensor:
        # [B, T, 88, 2 * combined_lstm_size]
        events = [torch.sigmoid(head.detach())[..., None] for head in (onset, offset) if head is not None]
        heard = torch.cat([self.activation(sounding), *(event.to(sounding.dtype) for event in events)], -1)
        batch, frames, pitches, _ = heard.shape
        rows = heard.transpose(1, 2).reshape(batch * pitches, frames, -1)
        known: Tensor = self.combined(rows)[0]  # [B * 88, T, 2 * combined_lstm_size]
        return known.reshape(batch, pitches, frames, -1).transpose(1, 2)
