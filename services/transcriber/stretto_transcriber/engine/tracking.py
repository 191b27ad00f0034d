"""`Tracking`: the beats of a recording, once all of it was heard.

What is kept of the audio is what the model said of each frame, a few numbers fifty times a second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
from stretto_shared.audio import Waveform
from stretto_shared.engine.thread import ModelThread
from stretto_shared.features import ModelInfo

from stretto_transcriber.engine.hearing import Hearing, MeasuredAudio
from stretto_transcriber.loading import LoadedTracker
from stretto_transcriber.models.beats import TrackedBeats

MAX_TRACKED_S = 3_600.0


class Tracking:
    """Beats of what is heard.

    Invariant: recordings are decoded one at a time on a thread of their own, so that neither the event loop nor a model
    waits for it; who gives up before his turn costs nothing (`tests/services/transcriber/test_track_beats.py`).

    Args:
        hearing: The models that hear beats.
        max_waiting: Recordings that may wait to be decoded; as many as all models serve at once never find it full.
    """

    def __init__(self, hearing: Hearing[LoadedTracker], *, max_waiting: int) -> None:
        self.hearing = hearing
        self._decoding = ModelThread("beats-decoding", max_queued=max_waiting)

    async def track(self, model: str, audio: AsyncIterator[Waveform]) -> tuple[TrackedBeats, ModelInfo]:
        """Beats, and the model that heard them.

        Args:
            model: The model; empty takes the default one.
            audio: Messages of at least one sample, all of one rate and as many channels; at least one message.

        Raises:
            InvalidInput: If there is no audio, its rate or channels change, or it is too loud or too long.
            NotFound: If there is no such model.
            Overloaded: If the model serves as many streams as it takes.
        """
        loaded = self.hearing.find(model)
        with self.hearing.admitted(loaded):
            measured = MeasuredAudio(audio, MAX_TRACKED_S)
            async with (
                aclosing(measured.messages()) as messages,
                aclosing(self.hearing.frames(loaded, messages)) as heard,
            ):
                parts = [frames async for frames in heard]
            tracked = await self._decoding.run(lambda: loaded.track(np.concatenate(parts)))
            return tracked, loaded.info

    def count_waiting(self) -> int:
        """Count the requests that wait for a model thread, or to be decoded."""
        return self.hearing.count_waiting() + self._decoding.num_queued

    async def stop(self) -> None:
        """Fail what waits to be decoded."""
        await self._decoding.close()
