"""`SharedSteps`: chunks of streams that wait for one codec at the same moment are decoded in one pass.

A stream that wants a chunk takes a turn on the model thread as ever. In each turn the chunk that is due first is
decoded, and others with it, if they are of the same shape and the codec found at load that company changes no bit
(`loading.py`). So nobody's samples depend on company, and a listener whose audio runs out is not kept waiting by
streams that are ahead of theirs. Nobody waits for company but streams to which nobody can be listening
(`codec_engine.py`).

Legend: B clips, K codebooks, T frames, C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from stretto_shared.audio import Waveform
from stretto_shared.engine.shared_turns import SharedTurns
from stretto_shared.engine.thread import ModelThread
from torch import Tensor

from stretto_codec.engine.frames import Chunk
from stretto_codec.loading import LoadedCodec
from stretto_codec.models.streaming import ClipDecoder, finish_together, step_together

ObserveRtf = Callable[[float], None]
_NOTHING = torch.zeros(1, 1, 0)


@dataclass(frozen=True, eq=False)
class _Step:
    """What a stream wants next.

    Args:
        clip: Its decoder.
        chunk: Its next chunk; None for what is held back at the end.
        is_under_way: Whether a whole chunk came before.
        due_s: When its listener will have heard all before it, on `time.perf_counter`.
    """

    clip: ClipDecoder
    chunk: Chunk | None
    is_under_way: bool
    due_s: float


class SharedSteps:
    """The decoding steps of one codec's streams.

    Invariant: each stream gets the samples and the errors that it would get alone, and holds at most one chunk here;
    `tests/services/codec/test_shared_steps.py` holds it to that.

    Args:
        codec: What decodes.
        thread: Its model thread.
        observe_rtf: Gets, for each stream of a pass, the pass's time for a second of its audio.
        count_streams: How many streams there are, those counted whose next chunk has not come.
    """

    def __init__(
        self,
        codec: LoadedCodec,
        thread: ModelThread,
        observe_rtf: ObserveRtf | None,
        count_streams: Callable[[], int] | None = None,
    ) -> None:
        self._codec = codec
        self._thread = thread
        self._observe_rtf = observe_rtf
        self._turns: SharedTurns[_Step, Tensor] = SharedTurns(
            thread,
            kind_of=self._kind_of,
            sizes=codec.joined_sizes,
            do_alone=_step_alone,
            do_together=_step_in_company,
            on_pass=self._observe,
            urgency_of=lambda step: step.due_s,
            count_callers=count_streams,
        )

    @property
    def num_waiting(self) -> int:
        """Streams whose chunk nobody has begun."""
        return self._turns.num_waiting

    async def step(
        self, clip: ClipDecoder, chunk: Chunk, *, due_s: float = 0.0, patience_s: float = 0.0
    ) -> Waveform | None:
        """The samples that the next chunk gives, or None if it gives none yet.

        Args:
            clip: The stream's decoder.
            chunk: Its next chunk.
            due_s: When it is needed, on any clock that all streams share; of two that wait the earlier goes first.
            patience_s: How long it may wait for company; a chunk that takes none does not, nor one that is the last.
        """
        is_last = chunk.codes.shape[1] < self._codec.grid.size(chunk.index)
        return await self._run(_Step(clip, chunk, chunk.index > 0, due_s), 0.0 if is_last else patience_s)

    async def finish(self, clip: ClipDecoder, *, is_under_way: bool = False, due_s: float = 0.0) -> Waveform | None:
        """The samples that were held back, or None if there are none; waits for no company, but takes what is there.

        Args:
            clip: The stream's decoder.
            is_under_way: Whether a whole chunk of it was decoded.
            due_s: As in `step`.
        """
        return await self._run(_Step(clip, None, is_under_way, due_s), 0.0)

    def look_who_is_here(self) -> None:
        """Let nobody wait for company if nobody else can come; to be called when a stream has left."""
        self._turns.look_who_is_here()

    async def _run(self, step: _Step, patience_s: float) -> Waveform | None:
        can_join = len(self._codec.joined_sizes) > 0 and self._kind_of(step) is not None
        return self._to_waveform(await self._turns.run(step, patience_s=patience_s if can_join else 0.0))

    def _kind_of(self, step: _Step) -> tuple[bool, int, int] | None:
        """What has to be equal in one pass.

        None for the end of a clip, and a chunk that is not whole, where the codec joins only what was tried, which
        these were not; and always before a whole chunk came.
        """
        if step.chunk is None:
            return (step.is_under_way, 0, 0) if self._codec.decoder.joins_any and step.is_under_way else None
        num_codebooks, num_frames = step.chunk.codes.shape
        is_whole = num_frames == self._codec.grid.size(step.chunk.index)
        if not is_whole and not (self._codec.decoder.joins_any and step.is_under_way):
            return None
        return step.is_under_way, num_codebooks, num_frames

    def _observe(self, audios: Sequence[Tensor], taken_s: float) -> None:
        num_samples = [audio.shape[-1] for audio in audios]
        for own in num_samples:
            if own and self._observe_rtf is not None:
                self._observe_rtf(taken_s * self._codec.config.sample_rate_hz / sum(num_samples))

    def _to_waveform(self, audio: Tensor) -> Waveform | None:
        """[1, C, S] to a waveform, None without samples; a codec that gives NaN is broken, which is nobody's input."""
        samples = audio[0].numpy()
        if samples.shape[1] == 0:
            return None
        if not np.isfinite(samples).all():
            raise RuntimeError(f"codec {self._codec.info.model_id} gave samples that are not finite")
        return Waveform(samples, self._codec.config.sample_rate_hz)


def _step_alone(step: _Step) -> Tensor:
    with torch.inference_mode():
        if step.chunk is None:
            rest = step.clip.finish()
            return _NOTHING if rest is None else rest
        return step.clip.step(_to_codes(step.chunk), step.chunk.scale)


def _step_in_company(steps: Sequence[_Step]) -> Sequence[Tensor]:
    clips, chunks = [step.clip for step in steps], [step.chunk for step in steps if step.chunk is not None]
    with torch.inference_mode():
        if chunks:
            return step_together(clips, torch.cat([_to_codes(chunk) for chunk in chunks]))
        rests = finish_together(clips)
        return [_NOTHING] * len(clips) if rests is None else rests


def _to_codes(chunk: Chunk) -> Tensor:
    """A chunk's codes as int64 [1, K, T]."""
    return torch.from_numpy(chunk.codes.astype(np.int64))[None]
