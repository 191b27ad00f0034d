"""A clip's audio to tokens, window by window, with the tokens that one piece would have given.

Memory is bounded by the window, whatever the length of the clip, and other requests get the model thread between two
windows. A window carries as much audio on both sides as its frames depend on, and what an encoder remembers without end
is handed on; so only rounding can tell windows from one piece. A codec with segments of its own is run on those.

Legend: K codebooks, T frames, C channels, S samples, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from stretto_codec.loading import EncoderParts, LoadedCodec, Segments

WINDOW_S = 5.0

Encoded = tuple[Tensor, Tensor]
"""Codes [1, K, T] and the loudness of each segment [1, N]; N is 0 for a codec without."""


def encode_work(codec: LoadedCodec, audio: Tensor) -> Iterator[Callable[[], Encoded]]:
    """What the model thread has to do for a clip [1, C, S] at the codec's rate, in this order; the results join up."""
    parts = codec.encoder_parts()
    if isinstance(parts, Segments):
        yield from _segments(codec, parts, audio)
    else:
        encoder = WindowedEncoder(parts, codec.config.hop_length)
        yield from encoder.windows(audio, max(1, round(codec.config.frame_rate_hz * WINDOW_S)))


def join(results: list[Encoded]) -> Encoded:
    """The results of all work of a clip as one."""
    return torch.cat([codes for codes, _ in results], dim=-1), torch.cat([scales for _, scales in results], dim=-1)


class WindowedEncoder:
    """Encodes one clip; holds what the encoder remembers between windows.

    Invariant: the codes are those of one piece, for any size of window;
    `tests/services/codec/test_long_clips.py` holds it to that.
    """

    def __init__(self, parts: EncoderParts, hop_length: int) -> None:
        self._parts = parts
        self._hop = hop_length
        self._memory: object = None
        self._frames = torch.zeros(0)  # [1, D, T] before the quantizer: those that `back` still needs
        self._num_coded = 0  # of these, how many have their codes

    def windows(self, audio: Tensor, window_frames: int) -> Iterator[Callable[[], Encoded]]:
        """One piece of work for each window of a clip [1, C, S]; to be run in order."""
        num_frames = -(-audio.shape[-1] // self._hop)
        reach = self._parts.front_reach
        for start in range(0, num_frames, window_frames):
            stop = min(start + window_frames, num_frames)
            begin = max(0, start - reach.before)
            window = audio[..., begin * self._hop : (stop + reach.after) * self._hop]
            yield partial(self._step, window, start - begin, stop - start, stop == num_frames)

    def _step(self, window: Tensor, num_before: int, num_frames: int, is_last: bool) -> Encoded:
        parts = self._parts
        with torch.inference_mode():
            frames = parts.front(window)[..., num_before : num_before + num_frames]
            if parts.remember is not None:
                frames, self._memory = parts.remember(frames, self._memory)
            if self._frames.numel():
                frames = torch.cat([self._frames, frames], dim=-1)
            stop = frames.shape[-1] if is_last else max(self._num_coded, frames.shape[-1] - parts.back_reach.after)
            codes = parts.back(frames)[..., self._num_coded : stop]
            keep_from = max(0, stop - parts.back_reach.before)
            self._frames, self._num_coded = frames[..., keep_from:].clone(), stop - keep_from
        return codes, window.new_zeros(1, 0)


def _segments(codec: LoadedCodec, segments: Segments, audio: Tensor) -> Iterator[Callable[[], Encoded]]:
    """One piece of work for each of the codec's own segments, which know nothing of each other."""
    for offset in range(0, audio.shape[-1], segments.stride):
        yield partial(_encode_segment, codec, audio[..., offset : offset + segments.length])


def _encode_segment(codec: LoadedCodec, segment: Tensor) -> Encoded:
    with torch.inference_mode():
        codes, scales = codec.encode(segment)  # the end, which the next segment has too, comes out once more
    num_frames = -(-segment.shape[-1] // codec.config.hop_length)
    return codes[..., :num_frames], scales[:, :1]
