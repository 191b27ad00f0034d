"""`SharedSteps`: chunks of streams that wait for one codec at the same moment are decoded in one pass.

A stream that wants a chunk waits its turn on the model thread as ever. Whose turn comes takes others along, if they
wait for a chunk of the same shape and the codec found at load that company changes no bit (`loading.py`); when their
own turns come, their chunks are there. So nobody waits for company, and nobody's samples depend on it.

Legend: B clips, K codebooks, T frames, C channels, S samples.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from stretto_shared.audio import Waveform
from stretto_shared.engine.thread import ModelThread
from torch import Tensor

from stretto_codec.engine.frames import Chunk
from stretto_codec.loading import LoadedCodec
from stretto_codec.models.packed_matrix import JOINED_CLIPS
from stretto_codec.models.streaming import ClipDecoder, step_together

ObserveRtf = Callable[[float], None]


@dataclass(eq=False)
class _Wish:
    """A stream that waits for its next chunk; `audio` [1, C, S] or `error` once it was served."""

    clip: ClipDecoder
    chunk: Chunk
    audio: Tensor | None = None
    error: Exception | None = None

    @property
    def is_served(self) -> bool:
        return self.audio is not None or self.error is not None


class SharedSteps:
    """The decoding steps of one codec's streams.

    Invariant: each stream gets the samples and the errors that it would get alone, and holds at most one chunk here;
    `tests/services/codec/test_shared_steps.py` holds it to that.

    Args:
        codec: What decodes.
        thread: Its model thread.
        observe_rtf: Gets, for each stream of a pass, the pass's time for a second of its audio.
    """

    def __init__(self, codec: LoadedCodec, thread: ModelThread, observe_rtf: ObserveRtf | None) -> None:
        self._codec = codec
        self._thread = thread
        self._observe_rtf = observe_rtf
        self._waiting: list[_Wish] = []
        self._lock = threading.Lock()

    async def step(self, clip: ClipDecoder, chunk: Chunk) -> Waveform | None:
        """The samples that the next chunk gives, or None if it gives none yet."""
        wish = _Wish(clip, chunk)
        with self._lock:
            self._waiting.append(wish)
        try:
            return await self._thread.run(partial(self._turn, wish))
        finally:
            self._forget([wish])

    async def finish(self, clip: ClipDecoder) -> Waveform | None:
        """The samples that were held back, or None if there are none."""
        return await self._thread.run(partial(self._finish, clip))

    def _turn(self, wish: _Wish) -> Waveform | None:
        if not wish.is_served:
            self._serve(self._company(wish))
        if wish.error is not None:
            raise wish.error
        assert wish.audio is not None
        return self._to_waveform(wish.audio)

    def _company(self, wish: _Wish) -> list[_Wish]:
        """The wishes of one pass: this one, and as many of its kind as may be joined."""
        sizes = [1, *(count for count in JOINED_CLIPS if count <= self._codec.max_joined)]
        kind = self._kind(wish)
        with self._lock:
            others = [] if kind is None else [w for w in self._waiting if w is not wish and self._kind(w) == kind]
        wishes = [wish, *others]
        wishes = wishes[: max(size for size in sizes if size <= len(wishes))]
        self._forget(wishes)
        return wishes

    def _kind(self, wish: _Wish) -> tuple[bool, int, int] | None:
        """What has to be equal in one pass; None for a chunk that is not whole, whose size nobody tried."""
        num_codebooks, num_frames = wish.chunk.codes.shape
        if num_frames != self._codec.grid.size(wish.chunk.index):
            return None
        return wish.chunk.index == 0, num_codebooks, num_frames

    def _forget(self, wishes: Sequence[_Wish]) -> None:
        with self._lock:
            self._waiting = [wish for wish in self._waiting if wish not in wishes]

    def _serve(self, wishes: Sequence[_Wish]) -> None:
        began_s = time.perf_counter()
        if not self._serve_together(wishes):
            for wish in wishes:  # one by one, so that who fails fails alone
                try:
                    with torch.inference_mode():
                        wish.audio = wish.clip.step(_to_codes(wish.chunk), wish.chunk.scale)
                except Exception as error:  # it is raised in the turn of the stream that it belongs to
                    wish.error = error
        taken_s = time.perf_counter() - began_s
        num_samples = [wish.audio.shape[-1] for wish in wishes if wish.audio is not None]
        for own in num_samples:
            if own and self._observe_rtf is not None:
                self._observe_rtf(taken_s * self._codec.config.sample_rate_hz / sum(num_samples))

    def _serve_together(self, wishes: Sequence[_Wish]) -> bool:
        """Serve them in one pass, or tell that it failed and changed nothing."""
        if len(wishes) == 1:
            return False
        try:
            with torch.inference_mode():
                codes = torch.cat([_to_codes(wish.chunk) for wish in wishes])
                audios = step_together([wish.clip for wish in wishes], codes)
        except Exception:  # whose fault it is shows when they are served one by one
            return False
        for wish, audio in zip(wishes, audios, strict=True):
            wish.audio = audio
        return True

    def _finish(self, clip: ClipDecoder) -> Waveform | None:
        began_s = time.perf_counter()
        with torch.inference_mode():
            rest = clip.finish()
        if rest is None:
            return None
        waveform = self._to_waveform(rest)
        if waveform is not None and self._observe_rtf is not None:
            self._observe_rtf((time.perf_counter() - began_s) / waveform.duration_s)
        return waveform

    def _to_waveform(self, audio: Tensor) -> Waveform | None:
        """[1, C, S] to a waveform, None without samples; a codec that gives NaN is broken, which is nobody's input."""
        samples = audio[0].numpy()
        if samples.shape[1] == 0:
            return None
        if not np.isfinite(samples).all():
            raise RuntimeError(f"codec {self._codec.info.model_id} gave samples that are not finite")
        return Waveform(samples, self._codec.config.sample_rate_hz)


def _to_codes(chunk: Chunk) -> Tensor:
    """A chunk's codes as int64 [1, K, T]."""
    return torch.from_numpy(chunk.codes.astype(np.int64))[None]
