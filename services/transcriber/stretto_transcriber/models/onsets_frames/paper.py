"""The papers' network: a convolution stack and a recurrent layer over all pitches at once for each head.

Hawthorne et al. 2018 (https://arxiv.org/abs/1710.11153) and 2019 (https://arxiv.org/abs/1810.12247). The stacks and
their keys are those of the PyTorch version by Jong Wook Kim, `onset_stack.0.cnn.0.weight` and so on, so that its state
dicts load; a network without `offset_stack` is the first paper's.

Departures: the heads give logits; velocity is a share of 127, not of the range 10 to 90; where released keys are heard
they are a second layer beside the frames'; and heads begin as seldom on.

Legend: B batch, C channels, T frames, F mel bands, D size of a stack's last layer, P pitches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stretto_transcriber.models.onsets_frames.config import NUM_PITCHES, OnsetsFramesConfig
from stretto_transcriber.models.onsets_frames.heads import Heads, begin_rare
from stretto_transcriber.models.onsets_frames.recurrent import recurred
from stretto_transcriber.models.onsets_frames.spectrum import MelSpectrum


class ConvStack(nn.Module):
    """Mel bands [B, T, F] to [B, T, D]."""

    def __init__(self, config: OnsetsFramesConfig) -> None:
        super().__init__()
        narrow, wide = config.conv_channels, 2 * config.conv_channels
        self.cnn = nn.Sequential(
            nn.Conv2d(1, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.ReLU(),
            nn.MaxPool2d((1, 2)), nn.Dropout(0.25),
            nn.Conv2d(narrow, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(),
            nn.MaxPool2d((1, 2)), nn.Dropout(0.25),
        )  # fmt: skip
        self.fc = nn.Sequential(nn.Linear(wide * (config.num_mel_bands // 4), config.fc_size), nn.Dropout(0.5))

    def forward(self, mel: Tensor) -> Tensor:
        x = self.cnn(mel[:, None])  # [B, C, T, F / 4]
        out: Tensor = self.fc(x.transpose(1, 2).flatten(2))
        return out


class BiLSTM(nn.Module):
    """[B, T, D] to [B, T, 2 * hidden]."""

    def __init__(self, num_features: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(num_features, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return recurred(self.rnn, x)


def _events(config: OnsetsFramesConfig) -> nn.Sequential:
    hidden = config.lstm_size
    return nn.Sequential(ConvStack(config), BiLSTM(config.fc_size, hidden), nn.Linear(2 * hidden, NUM_PITCHES))


class PaperNetwork(nn.Module):
    """Mel bands [B, T, F] to the logits of the heads, each [B, T, P]."""

    def __init__(self, config: OnsetsFramesConfig) -> None:
        super().__init__()
        self.spectrum = MelSpectrum(config.sample_rate_hz, config.hop_length, config.num_mel_bands, config.frame_centre)
        self.onset_stack = _events(config)
        self.offset_stack = _events(config) if config.has_offset_head else None
        self.frame_stack = nn.Sequential(ConvStack(config), nn.Linear(config.fc_size, NUM_PITCHES))
        heard = NUM_PITCHES * (3 if config.has_offset_head else 2)
        hidden = config.combined_lstm_size
        self.combined_stack = nn.Sequential(BiLSTM(heard, hidden), nn.Linear(2 * hidden, NUM_PITCHES))
        self.key_layer = nn.Linear(2 * hidden, NUM_PITCHES) if config.has_key_head else None
        self.velocity_stack = nn.Sequential(ConvStack(config), nn.Linear(config.fc_size, NUM_PITCHES))
        for stack in (self.onset_stack, self.offset_stack, self.combined_stack):
            if stack is not None:
                begin_rare(stack[-1])
        if self.key_layer is not None:
            begin_rare(self.key_layer)

    def forward(self, features: Tensor) -> Heads:
        onset, offset = self.onset_stack(features), None
        events = [torch.sigmoid(onset.detach())]
        if self.offset_stack is not None:
            offset = self.offset_stack(features)
            events.append(torch.sigmoid(offset.detach()))
        activation = torch.sigmoid(self.frame_stack(features))
        known = self.combined_stack[0](torch.cat([*events, activation], -1))
        key = self.key_layer(known) if self.key_layer is not None else None
        return Heads(onset, offset, self.combined_stack[1](known), self.velocity_stack(features), key)
