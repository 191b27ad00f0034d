"""A small network that hears beats, downbeats and onsets in a log-mel spectrogram, at 50 frames a second.

In the spirit of "Beat This! Accurate Beat Tracking Without DBN Postprocessing" (Foscarin, Schlüter, Widmer 2024,
https://arxiv.org/abs/2407.21658), whose front end, sum head and shift-tolerant loss it takes over, and of the
convolutional trackers of "Temporal convolutional networks for musical audio beat tracking" (Davies, Böck 2019).
Departures from Beat This!:
    - 16 kHz and 64 bands in place of 22.05 kHz and 128: the transcriber's other model hears 16 kHz too, so that a
      recording is resampled once; what cymbals add above 8 kHz is also heard below it.
    - Dilated convolutions over time in place of transformers: a tenth of a million weights learn in minutes.
    - A second input: semitones, at a quarter of the rate, and how alike they are over time (`harmony.py`). Mel bands
      alone left a third of the POP909 songs of validation with their bars on another beat.
    - A head for onsets, which costs a row of weights, and the decoder of `decoding.py` in place of peak picking.

The network is not causal. A recording is heard in windows of a fixed grid, each with context on both sides and silence
beyond the ends, all of one shape, so that a stream, a file and a batch give the same numbers.

Legend: B batch, S samples, T frames, M mel bands, C channels, D width, Q columns of P semitones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_transcriber.models.beat_tracker.config import BeatTrackerConfig
from stretto_transcriber.models.beat_tracker.features import log_mel, log_pitches
from stretto_transcriber.models.beat_tracker.harmony import Harmony


class Spectra(NamedTuple):
    """What the network hears: mel bands [B, T, M], and semitones [B, Q, P]."""

    mel: Tensor
    pitches: Tensor


@dataclass(frozen=True, eq=False)
class Activations:
    """Probabilities [B, T] of a beat, of a downbeat and of an onset at each frame; or, in training, their logits."""

    beat: Tensor
    downbeat: Tensor
    onset: Tensor


class BeatTracker(nn.Module):
    """Spectrograms to activations.

    Invariant: a window's activations depend neither on what else is in the batch nor on how the audio arrived; a
    downbeat is a beat, so that the beat's logit contains the downbeat's
    (`tests/services/transcriber/test_beat_network.py`).
    """

    def __init__(self, config: BeatTrackerConfig) -> None:
        super().__init__()
        self.config = config
        channels, dim = config.num_channels, config.dim
        self.scale = nn.BatchNorm1d(config.num_bands)
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, (3, 4), stride=(1, 4), padding=(1, 0)),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, 2 * channels, (3, 4), stride=(1, 2), padding=(1, 1)),
            nn.BatchNorm2d(2 * channels),
            nn.GELU(),
            nn.Conv2d(2 * channels, 2 * channels, (3, 4), stride=(1, 2), padding=(1, 1)),
            nn.BatchNorm2d(2 * channels),
            nn.GELU(),
        )
        self.project = nn.Linear(2 * channels * (config.num_bands // 16), dim)
        self.harmony = Harmony(config)
        self.layers = nn.ModuleList(
            _DilatedLayer(dim, config.kernel_frames, 2**layer) for layer in range(config.num_layers)
        )
        self.heads = nn.Linear(dim, 3)
        nn.init.constant_(self.heads.bias, -2.0)

    def features(self, audio: Tensor) -> Spectra:
        """The spectra of mono audio [B, S], S a positive multiple of the hop."""
        return Spectra(log_mel(audio, self.config), log_pitches(audio, self.config))

    def logits(self, features: Spectra) -> Activations:
        """Logits [B, T] from spectra."""
        mel = features.mel
        scaled = self.scale(mel.transpose(1, 2)).transpose(1, 2)
        heard = self.stem(scaled[:, None])  # [B, 2 C, T, M / 16]
        steps = self.project(heard.permute(0, 2, 1, 3).flatten(2)).transpose(1, 2)  # [B, D, T]
        harmony = self.harmony(features.pitches).repeat_interleave(self.config.pitch_frames, dim=2)
        steps = steps + harmony[:, :, : mel.shape[1]]
        for layer in self.layers:
            steps = layer(steps)
        beat, downbeat, onset = self.heads(steps.transpose(1, 2)).unbind(-1)
        return Activations(beat + downbeat, downbeat, onset)

    def forward(self, features: Spectra) -> Activations:
        """Probabilities [B, T] from spectra."""
        logits = self.logits(features)
        return Activations(logits.beat.sigmoid(), logits.downbeat.sigmoid(), logits.onset.sigmoid())

    @torch.inference_mode()
    def window_activations(self, audio: Tensor) -> Activations:
        """Probabilities [B, window_frames] of the inner frames of windows of audio [B, window_samples].

        Raises:
            ValueError: If the windows are not of the grid's length.
        """
        config = self.config
        if audio.ndim != 2 or audio.shape[1] != config.window_samples:
            raise ValueError(f"expected windows [B, {config.window_samples}], got {tuple(audio.shape)}.")
        inner = slice(config.context_frames, config.context_frames + config.window_frames)
        heard = self(self.features(audio))
        return Activations(heard.beat[:, inner], heard.downbeat[:, inner], heard.onset[:, inner])

    def hear(self, audio: Tensor) -> Activations:
        """Probabilities [T] of a whole mono recording [S], window by window; T is S / hop_length, rounded up."""
        config = self.config
        num_frames = -(-audio.shape[0] // config.hop_length)
        num_windows = -(-num_frames // config.window_frames)
        before = config.context_frames * config.hop_length
        step = config.window_frames * config.hop_length
        padded = F.pad(audio, (before, num_windows * step + before - audio.shape[0]))
        starts = range(0, num_windows * step, step)
        heard = [self.window_activations(padded[None, start : start + config.window_samples]) for start in starts]
        names = ("beat", "downbeat", "onset")
        if not heard:
            return Activations(*(torch.zeros(0) for _ in names))
        return Activations(*(torch.cat([getattr(part, name)[0] for part in heard])[:num_frames] for name in names))


class _DilatedLayer(nn.Module):
    """A residual layer over frames `dilation` apart: normalise, convolve, and mix the channels."""

    def __init__(self, dim: int, kernel_frames: int, dilation: int) -> None:
        super().__init__()
        reach = kernel_frames // 2 * dilation
        self.norm = nn.BatchNorm1d(dim)
        self.convolve = nn.Conv1d(dim, dim, kernel_frames, padding=reach, dilation=dilation)
        self.mix = nn.Conv1d(dim, dim, 1)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(0.1)

    def forward(self, steps: Tensor) -> Tensor:
        heard = self.dropout(self.activation(self.convolve(self.norm(steps))))
        mixed: Tensor = steps + self.mix(heard)
        return mixed
