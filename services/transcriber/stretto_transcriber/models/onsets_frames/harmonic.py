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

from stretto_transcriber.models.onsets_frames.beside import at_once
from stretto_transcriber.models.onsets_frames.config import NUM_PITCHES, OnsetsFramesConfig
from stretto_transcriber.models.onsets_frames.heads import Heads, begin_rare
from stretto_transcriber.models.onsets_frames.recurrent import recurred
from stretto_transcriber.models.onsets_frames.spectrum import (
    BINS_PER_SEMITONE,
    HARMONIC_WINDOWS,
    NUM_SEMITONES,
    HarmonicSpectrum,
    harmonic_shifts,
)

HARMONICS = (0.5, 1, 2, 3, 4, 5, 6, 7, 8)


class NormalisedConv(nn.Sequential):
    """A convolution and its batch norm, which is part of the kernel once it is trained."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv, nn.BatchNorm2d(conv.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            out: Tensor = self[1](self[0](x))
            return out
        kernel, shift = self.folded()
        conv = self.conv
        return F.conv2d(x, kernel, shift, conv.stride, conv.padding, conv.dilation)

    @property
    def conv(self) -> nn.Conv2d:
        conv = self[0]
        assert isinstance(conv, nn.Conv2d)
        return conv

    def folded(self) -> tuple[Tensor, Tensor]:
        """The kernel [O, I, H, W] and bias [O] that do what both do in eval mode."""
        norm = self[1]
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return self.conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


class HarmonicBranch(nn.Module):
    """Semitones [B, C, T, 99] to what is known of each pitch at each time [B, T, 88, 2 * lstm_size]."""

    def __init__(self, fold_channels: int, channels: int, lstm_size: int) -> None:
        super().__init__()
        self.shifts = harmonic_shifts(HARMONICS)
        self.harmonics = NormalisedConv(nn.Conv2d(len(HARMONICS) * fold_channels, channels, 1, bias=False))
        self.register = nn.Parameter(torch.zeros(1, channels, 1, NUM_PITCHES))
        self.near = NormalisedConv(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        octaves = nn.Conv2d(channels, channels, (1, 3), padding=(0, 12), dilation=(1, 12), bias=False)
        self.octaves = NormalisedConv(octaves)
        self.later = NormalisedConv(nn.Conv2d(channels, channels, (5, 1), padding=(4, 0), dilation=(2, 1), bias=False))
        self.lstm = nn.LSTM(channels, lstm_size, batch_first=True, bidirectional=True)

    def forward(self, semitones: Tensor) -> Tensor:
        at = self._at_harmonics if self.training else self._at_harmonics_at_once
        x = at(semitones)  # [B, C, T, 88]
        x = x.add_(self.register.to(x.dtype)).relu_()
        for conv in (self.near, self.octaves, self.later):
            x = conv(x).add_(x).relu_()
        batch, channels, frames, _ = x.shape
        rows = x.permute(0, 3, 2, 1).reshape(batch * NUM_PITCHES, frames, channels)
        known = recurred(self.lstm, rows)  # [B * 88, T, 2 * lstm_size]
        return known.reshape(batch, NUM_PITCHES, frames, -1).transpose(1, 2)

    def _at_harmonics(self, semitones: Tensor) -> Tensor:
        # `self.harmonics` of all shifted copies side by side, without making them.
        weights = self.harmonics.conv.weight[:, :, 0, 0].chunk(len(self.shifts), 1)
        copies = self._shifted(semitones)
        total = F.linear(copies[0], weights[0])
        for copy, weight in zip(copies[1:], weights[1:], strict=True):
            total = total + F.linear(copy, weight)
        out: Tensor = self.harmonics[1](total.permute(0, 3, 1, 2))
        return out

    def _at_harmonics_at_once(self, semitones: Tensor) -> Tensor:
        # The same in eval mode, a product for each frame that adds to what is there: half the time on a CPU.
        with torch.autocast(semitones.device.type, enabled=False):
            kernel, shift = self.harmonics.folded()
            weights = kernel[:, :, 0, 0].t().chunk(len(self.shifts))  # each [C of a semitone, C]
            copies = [copy.flatten(0, 1) for copy in self._shifted(semitones.float())]  # each [B * T, 88, C]
            total = shift.expand(len(copies[0]), NUM_PITCHES, -1).contiguous()
            for copy, weight in zip(copies, weights, strict=True):
                total.baddbmm_(copy, weight.expand(len(copy), -1, -1))
        batch, _, frames, _ = semitones.shape
        return total.reshape(batch, frames, NUM_PITCHES, -1).permute(0, 3, 1, 2)

    def _shifted(self, semitones: Tensor) -> list[Tensor]:
        """Views [B, T, 88, C], one for each shift."""
        below, above = -min(self.shifts), NUM_PITCHES + max(self.shifts) - NUM_SEMITONES
        rows = F.pad(semitones.permute(0, 2, 3, 1), (0, 0, below, above))  # [B, T, P, C]
        return [rows[:, :, below + shift : below + shift + NUM_PITCHES] for shift in self.shifts]


class HarmonicNetwork(nn.Module):
    """Features [B, T, F] to the logits of the heads."""

    def __init__(self, config: OnsetsFramesConfig) -> None:
        super().__init__()
        self.config = config
        self.spectrum = HarmonicSpectrum(config.sample_rate_hz, config.hop_length, config.frame_centre)
        stem, fold = config.stem_channels, config.fold_channels
        self.stem = NormalisedConv(nn.Conv2d(len(HARMONIC_WINDOWS), stem, (3, 5), padding=(1, 2), bias=False))
        self.fold = NormalisedConv(nn.Conv2d(stem, fold, (3, 3), stride=(1, 3), padding=(1, 0), bias=False))
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
        for head in (self.onset_head, self.offset_head, self.frame_head, self.key_head):
            if head is not None:
                begin_rare(head)

    def forward(self, features: Tensor) -> Heads:
        x = torch.stack(features.chunk(len(HARMONIC_WINDOWS), -1), 1)  # [B, W, T, 297]
        x = self.stem(x.contiguous(memory_format=torch.channels_last)).relu_()
        semitones = self.fold(x).relu_()  # [B, C, T, 99]
        assert semitones.shape[-1] * BINS_PER_SEMITONE == x.shape[-1]
        struck, sounding = at_once(self.onset_branch, self.sustain_branch, semitones)
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
        known = recurred(self.combined, rows)  # [B * 88, T, 2 * combined_lstm_size]
        return known.reshape(batch, pitches, frames, -1).transpose(1, 2)
