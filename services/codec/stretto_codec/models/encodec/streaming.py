"""EnCodec chunk by chunk: exact, causal or not.

Without segments the decoder is a convolution over frames, an LSTM, and an upsampler of finite reach. So a step runs
the first and the last on a window of the chunk with its neighbouring frames, which costs a few frames' work more,
and carries the LSTM's state. A window that does not begin or end with the clip is padded wrongly at that end; the
samples which that reaches are exactly those cut off. With segments (48 kHz) a chunk is a segment.

The first chunk has to be longer than the reflected padding of the first convolution, which it is on every grid here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stretto_codec.models.encodec.config import EncodecConfig
from stretto_codec.models.encodec.model import Encodec, SegmentMixer
from stretto_codec.models.encodec.seanet import LstmState
from stretto_codec.models.streaming import ChunkDecoder, DecodeGrid, grid_of


def encodec_grid(config: EncodecConfig) -> DecodeGrid:
    """The grid of any geometry: its segments, or chunks with the lookahead that its convolutions want."""
    if config.segment_frames is not None:
        return DecodeGrid(config.segment_frames, is_scaled=config.normalize)
    _, conv_right = _conv_reach(config)
    return DecodeGrid(grid_of(config).chunk_frames, lookahead_frames=conv_right + _upsampler_reach(config)[1])


def open_encodec_decoder(model: Encodec) -> ChunkDecoder:
    """A decoder at the start of a clip."""
    return WindowedDecoder(model) if model.config.segment_frames is None else SegmentDecoder(model)


class SegmentDecoder:
    """A `ChunkDecoder` for overlapping segments: each is decoded alone, then mixed."""

    def __init__(self, model: Encodec) -> None:
        self._model = model
        self._mixer = SegmentMixer(model.config)

    def step(self, codes: Tensor, ahead: Tensor, scale: float | None) -> Tensor:
        return self._mixer.add(self._model.decode_segment(codes, None if scale is None else torch.tensor([scale])))

    def finish(self) -> Tensor | None:
        return self._mixer.finish()


class WindowedDecoder:
    """A `ChunkDecoder` for one unbroken clip: windows around the convolutions, a state for the LSTM.

    Invariant: the samples are those of `Encodec.decode` within rounding, whatever the geometry;
    `tests/services/codec/test_encodec.py` holds it to that.
    """

    def __init__(self, model: Encodec) -> None:
        config = model.config
        self._model = model
        self._conv_left, _ = _conv_reach(config)
        self._up_left, self._up_right = _upsampler_reach(config)
        self._lookahead = encodec_grid(config).lookahead_frames
        self._start = 0  # first frame of the next chunk
        self._remembered = 0  # frames that the LSTM has seen
        self._state: LstmState | None = None
        self._codes = torch.zeros(1, 0, 0, dtype=torch.int64)  # frames before `_start` that are still wanted
        self._states = torch.zeros(0)  # LSTM outputs [1, C, T] up to `_remembered`, from `_states_start` on
        self._states_start = 0

    def step(self, codes: Tensor, ahead: Tensor, scale: float | None) -> Tensor:
        num_frames, hop = codes.shape[-1], self._model.config.hop_length
        stop = self._start + num_frames
        is_clip_end_visible = ahead.shape[-1] < self._lookahead or self._lookahead == 0
        window_stop = stop + ahead.shape[-1]
        wanted = min(stop + self._up_right, window_stop) if is_clip_end_visible else stop + self._up_right

        window = torch.cat([codes, ahead], dim=-1)
        if self._codes.shape[-1]:
            window = torch.cat([self._codes, window], dim=-1)
        self._advance(window, window_stop - window.shape[-1], wanted)

        offset = self._start - self._states_start
        audio = self._model.decoder.upsample(self._states)[..., offset * hop : (offset + num_frames) * hop]

        keep_from = max(0, min(stop, self._remembered - self._conv_left))
        self._codes = window[..., keep_from - (window_stop - window.shape[-1]) : window.shape[-1] - ahead.shape[-1]]
        states_from = max(0, stop - self._up_left)
        self._states = self._states[..., states_from - self._states_start :]
        self._states_start, self._start = states_from, stop
        return audio

    def finish(self) -> Tensor | None:
        return None

    def _advance(self, window: Tensor, window_start: int, wanted: int) -> None:
        """Run the LSTM up to frame `wanted`, over codes [1, K, T] that begin at frame `window_start`."""
        if wanted <= self._remembered:
            return
        first = max(0, self._remembered - self._conv_left) - window_start
        convolved = self._model.decoder.frame_conv(self._model.quantizer.decode(window[..., first:]))
        begin = self._remembered - window_start - first
        new = convolved[..., begin : begin + wanted - self._remembered]
        states, self._state = self._model.decoder.lstm.advance(new, self._state)
        self._states = torch.cat([self._states, states], dim=-1) if self._states.numel() else states
        self._remembered = wanted


def _conv_reach(config: EncodecConfig) -> tuple[int, int]:
    """Frames before and after a frame on which the decoder's first convolution depends."""
    return _reach(config, config.kernel_size)


def _upsampler_reach(config: EncodecConfig) -> tuple[int, int]:
    """Frames before and after a frame on which its samples depend behind the LSTM."""
    left, right = _reach(config, config.last_kernel_size)
    for ratio in reversed(config.ratios):
        for unit in range(config.num_residual_layers):
            dilated = (config.residual_kernel_size - 1) * config.dilation_base**unit + 1
            unit_left, unit_right = _reach(config, dilated)
            left, right = left + unit_left, right + unit_right
        left = -(-left // ratio) + 1
        right = 0 if config.causal else -(-right // ratio) + 1
    return left, right


def _reach(config: EncodecConfig, kernel_size: int) -> tuple[int, int]:
    right = 0 if config.causal else (kernel_size - 1) // 2
    return kernel_size - 1 - right, right
