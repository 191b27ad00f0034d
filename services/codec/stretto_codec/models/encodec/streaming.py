"""EnCodec chunk by chunk: no sample is computed twice, causal or not.

Every layer keeps what its next outputs need of its past inputs, and nothing else is carried: a convolution its kernel's
reach, a transposed convolution one step, the LSTM its cells. A layer that is not causal gives its outputs as soon as
their last input is there, a few steps late; at the end of the clip each layer pads its own end, as the whole clip
would be padded, and gives the rest. The samples are those of one whole decode within rounding.

Lookahead, as the sum of the layers' right sides: none at 24 kHz. At 32 kHz 2402 samples, 3.75 frames, 75 ms: the first
convolution waits for 3 frames, everything after it for three quarters of one. So a first chunk of F frames gives
640 F - 2402 samples, those after it 640 a frame, and the end of the clip 2402 more. `EncodecDecoder.lag` says it for
any geometry.

Clips that share a step share the layers that have more weights than a chunk has values; finer layers take them one
after the other, whose values would not fit a cache together.

Number formats: in bfloat16 the matrices of the upsampler, those between the LSTM's steps, and the rows between layers
are rounded. The first and the last convolution, the LSTM's inputs and its cells stay in float32, or as exact where the
native kernel computes (`PreciseConvolution`).

Knows weights without a norm only (it is folded when they are loaded). Legend: B clips, T steps, C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from stretto_shared.nn.lowbit import BandConvolution, NativeKernel
from torch import Tensor, nn

from stretto_codec.models.encodec.config import EncodecConfig
from stretto_codec.models.encodec.model import Encodec
from stretto_codec.models.encodec.seanet import Conv, ConvTranspose, Lstm, ResidualUnit
from stretto_codec.models.encodec.segments import SegmentDecoder
from stretto_codec.models.encodec.streamed_layers import (
    CellState,
    ConvState,
    LayerState,
    StreamedConv,
    StreamedLstm,
    StreamedUnit,
    StreamedUp,
    after,
)
from stretto_codec.models.packed_matrix import PackedMatrix, try_joining
from stretto_codec.models.streaming import DecodeGrid, StreamDecoder, grid_of, join, part

PRODUCTS = (PackedMatrix, BandConvolution)


def encodec_grid(config: EncodecConfig) -> DecodeGrid:
    """The grid of any geometry: its segments, or short chunks first and then longer ones."""
    if config.segment_frames is not None:
        return DecodeGrid(config.segment_frames, is_scaled=config.normalize)
    return grid_of(config)


def encodec_decoder(model: Encodec) -> StreamDecoder:
    """What decodes clips of this model chunk by chunk."""
    return EncodecDecoder(model) if model.config.segment_frames is None else SegmentDecoder(model)


def rounded_encodec_decoder(model: Encodec, kernel: NativeKernel | None = None) -> StreamDecoder | None:
    """The same in bfloat16, by the native kernel if given one; None for segments, whose norms look at whole clips."""
    return EncodecDecoder(model, torch.bfloat16, kernel) if model.config.segment_frames is None else None


@dataclass(frozen=True)
class EncodecDecoderState:
    """What every layer keeps between two chunks."""

    first: ConvState
    lstm: CellState
    heavy: list[LayerState]
    light: list[LayerState]
    last: ConvState


class EncodecDecoder:
    """A `StreamDecoder` for unbroken clips.

    Invariant: the samples are those of `Encodec.decode` within rounding, whatever the geometry and the sizes of chunks;
    `tests/services/codec/test_encodec_streaming.py` holds it to that, and to computing nothing twice.
    """

    can_join = True

    def __init__(self, model: Encodec, dtype: torch.dtype = torch.float32, kernel: NativeKernel | None = None) -> None:
        self._model = model
        self._kernel = kernel
        layers = list(model.decoder.layers)
        self._first = StreamedConv(cast(Conv, layers[0]), torch.float32, kernel=kernel)
        self._lstm = StreamedLstm(cast(Lstm, layers[1]), dtype, kernel)
        upsampler = [
            StreamedUp(layer, dtype, kernel)
            if isinstance(layer, ConvTranspose)
            else StreamedUnit(cast(ResidualUnit, layer), dtype, kernel)
            for layer in layers[2:-1]
            if not isinstance(layer, nn.ELU)
        ]
        num_heavy = _num_heavy(upsampler, encodec_grid(model.config).chunk_frames)
        self._heavy, self._light = upsampler[:num_heavy], upsampler[num_heavy:]
        self._last = StreamedConv(cast(Conv, layers[-1]), torch.float32, by_tap=True, kernel=kernel, is_fine=True)

    @property
    def joins_any(self) -> bool:
        return not _matrices([self._first, self._lstm, *self._heavy, *self._light, self._last])

    @property
    def lag(self) -> int:
        """Samples that wait for frames after their own."""
        lag, jump = self._first.right * self._model.config.hop_length, self._model.config.hop_length
        for layer in [*self._heavy, *self._light]:
            if isinstance(layer, StreamedUp):
                jump //= layer.stride
                lag += layer.trim_left * jump
            else:
                lag += layer.wide.right * jump
        return lag + self._last.right

    def open(self) -> EncodecDecoderState:
        heavy, light = ([layer.open(1) for layer in layers] for layers in (self._heavy, self._light))
        return EncodecDecoderState(self._first.open(1), self._lstm.open(1), heavy, light, self._last.open(1))

    def step(
        self, codes: Tensor, state: EncodecDecoderState, scale: float | None = None
    ) -> tuple[Tensor, EncodecDecoderState]:
        return self._advance(self._model.quantizer.decode(codes).transpose(1, 2), state, at_end=False)

    def finish(self, state: EncodecDecoderState) -> Tensor | None:
        if not state.first.has_begun and state.first.past.shape[1] == 0:
            return None
        nothing = state.first.past[:, :0]
        audio, _ = self._advance(nothing, state, at_end=True)
        return audio if audio.shape[-1] else None

    def try_layers(self, max_clips: int, chunk_sizes: Sequence[int]) -> None:
        def run() -> None:
            state = self.open()
            for size in chunk_sizes:
                codes = torch.zeros(1, self._model.config.num_codebooks, size, dtype=torch.int64)
                _, state = self.step(codes, state)

        try_joining(_matrices([self._first, self._lstm, *self._heavy]), max_clips, run)

    def _advance(self, rows: Tensor, state: EncodecDecoderState, *, at_end: bool) -> tuple[Tensor, EncodecDecoderState]:
        """Latents [B, T, D] to audio [B, C, S]."""
        rows, first = self._first.step(rows, state.first, at_end=at_end)
        rows, lstm = self._lstm.step(rows, state.lstm)
        rows, heavy = _run(self._heavy, rows, state.heavy, at_end=at_end)
        clips = [
            self._finely(own_rows, light, last, at_end=at_end)
            for own_rows, light, last in zip(
                rows.chunk(len(rows)), part(state.light, len(rows)), part(state.last, len(rows)), strict=True
            )
        ]
        audio, light, last = (join(values) for values in zip(*clips, strict=True))
        return audio, EncodecDecoderState(first, lstm, heavy, light, last)

    def _finely(
        self, rows: Tensor, light: list[LayerState], last: ConvState, *, at_end: bool
    ) -> tuple[Tensor, list[LayerState], ConvState]:
        """The fine end of the decoder for one clip: rows [1, T, C] to audio [1, C, S]."""
        rows, light = _run(self._light, rows, light, at_end=at_end)
        joined = after(last.past, rows.to(self._last.dtype), None if self._last.bands is None else self._kernel)
        audio, last = self._last.go_on(joined, last, at_end=at_end)
        return audio.transpose(1, 2), light, last


def _run(
    layers: Sequence[StreamedUp | StreamedUnit], rows: Tensor, states: Sequence[LayerState], *, at_end: bool
) -> tuple[Tensor, list[LayerState]]:
    following: list[LayerState] = []
    for layer, state in zip(layers, states, strict=True):
        rows, after = layer.step(rows, state, at_end=at_end)  # type: ignore[arg-type]  # each gets its own kind
        following.append(after)
    return rows, following


def _num_heavy(upsampler: Sequence[StreamedUp | StreamedUnit], chunk_frames: int) -> int:
    """How many layers have more weights than values of a chunk's output, and so gain if clips share them."""
    num_rows, count = chunk_frames, 0
    for index, layer in enumerate(upsampler):
        num_rows *= layer.stride if isinstance(layer, StreamedUp) else 1
        num_outputs = layer.num_outputs if isinstance(layer, StreamedUp) else layer.narrow.num_outputs
        num_weights = sum(module.num_weights for module in layer.modules() if isinstance(module, PRODUCTS))
        if num_weights > num_rows * num_outputs:
            count = index + 1
    return count


def _matrices(layers: Sequence[nn.Module]) -> list[PackedMatrix]:
    return [module for layer in layers for module in layer.modules() if isinstance(module, PackedMatrix)]
