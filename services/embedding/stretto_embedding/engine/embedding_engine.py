"""Texts, recordings and melodies in; states, points, chromagrams and codes out. Knows nothing of protobuf and grpc.

Each encoder has a model thread; the chromagram has one of its own, so that a long melody does not hold up a prompt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from stretto_shared.audio import Waveform
from stretto_shared.dsp.chroma import extract_chroma
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import InvalidInput, NotFound, NotReady
from stretto_shared.features import Chromagram, JointEmbedding, ModelInfo, TextStates
from stretto_shared.nn.threads import use_threads
from stretto_shared.tokens import TokenMatrix

from stretto_embedding.engine.joint_lane import JointLane
from stretto_embedding.engine.limits import MAX_MELODY_S, MAX_TEXTS, Limits, StageMeter, check_recordings, check_text
from stretto_embedding.engine.listening import resample
from stretto_embedding.engine.text_queue import TextQueue
from stretto_embedding.engine.values import EmbeddedAudio, EmbeddedTexts, Melody, RankedAudio, ScoredTag
from stretto_embedding.loading import JointEncoder, MelodyEncoder, TextEncoder

Encoder = TypeVar("Encoder", bound=TextEncoder | JointEncoder | MelodyEncoder)


class EmbeddingEngine:
    """Serves text, joint and melody encoders by name, and the chromagram.

    Invariant: before `start` returns and after `stop` every call fails with NotReady; torch runs on model threads only.

    Args:
        text_loaders: Name to a function that loads the encoder; the first is the default one.
        joint_loaders: The same of joint encoders; their first is the default where a recording is.
        melody_loaders: The same of melody encoders; none is a default.
        limits: How much each encoder takes at once.
        num_threads: CPU threads inside one operation; 0 leaves the choice to torch.
        meter: Who counts what the engine does; None counts nothing.

    Raises:
        InvalidInput: If two encoders have one name.
    """

    def __init__(
        self,
        text_loaders: Mapping[str, Callable[[], TextEncoder]],
        *,
        joint_loaders: Mapping[str, Callable[[], JointEncoder]] | None = None,
        melody_loaders: Mapping[str, Callable[[], MelodyEncoder]] | None = None,
        limits: Limits | None = None,
        num_threads: int = 0,
        meter: StageMeter | None = None,
    ) -> None:
        self._meter = meter
        self._num_threads = num_threads
        self._limits = limits or Limits()
        self._text_loaders = dict(text_loaders)
        self._joint_loaders = dict(joint_loaders or {})
        self._melody_loaders = dict(melody_loaders or {})
        _check_names([*self._text_loaders, *self._joint_loaders, *self._melody_loaders])
        most = self._limits.max_queued
        self._threads = {name: ModelThread(name, max_queued=most) for name in (*text_loaders, *self._melody_loaders)}
        num_calls = self._limits.max_requests + 1  # one for each request, and one for a batch of texts
        self._threads |= {name: ModelThread(name, max_queued=num_calls) for name in self._joint_loaders}
        self._chroma_thread = ModelThread("melody", max_queued=most)
        self._texts: dict[str, tuple[TextEncoder, TextQueue[TextStates]]] = {}
        self._joints: dict[str, JointLane] = {}
        self._melodies: dict[str, MelodyEncoder] = {}
        self._is_ready = False
        if meter is not None:
            meter.watch_waiting(self._count_waiting)

    async def start(self) -> None:
        """Load every encoder on its own thread."""
        texts, joints, melodies = await asyncio.gather(
            self._load(self._text_loaders), self._load(self._joint_loaders), self._load(self._melody_loaders)
        )
        limits, observe = self._limits, self._observe_wait
        self._texts = {
            name: (each, TextQueue(self._threads[name], each, each.encode_ids, limits, observe))
            for name, each in texts.items()
        }
        self._joints = {name: JointLane(each, self._threads[name], limits, observe) for name, each in joints.items()}
        self._melodies = melodies
        self._is_ready = True

    async def stop(self) -> None:
        """Fail what waits and end the threads."""
        self._is_ready = False
        for _, queue in self._texts.values():
            await queue.close()
        for lane in self._joints.values():
            await lane.close()
        for thread in (*self._threads.values(), self._chroma_thread):
            await thread.close()

    async def embed_text(self, model: str, texts: Sequence[str]) -> EmbeddedTexts:
        """1 to 64 texts, in order: their states, or their points if the encoder is a joint one.

        Raises:
            InvalidInput: On too many, empty or too long texts.
            NotFound: If there is no such encoder.
        """
        name = self._find(model, [*self._texts, *self._joints])
        if not 1 <= len(texts) <= MAX_TEXTS:
            raise InvalidInput("texts", f"expected 1 to {MAX_TEXTS} texts, got {len(texts)}. Split the request.")
        fields = [f"texts[{index}]" for index in range(len(texts))]
        for text, field in zip(texts, fields, strict=True):
            check_text(text, field)
        if name in self._joints:
            lane = self._joints[name]
            return EmbeddedTexts(lane.info, embeddings=tuple(await lane.embed_texts(texts, fields)))
        encoder, queue = self._texts[name]
        return EmbeddedTexts(encoder.info, states=tuple(await queue.encode(texts, fields)))

    async def embed_audio(self, model: str, waveform: Waveform) -> EmbeddedAudio:
        """A recording of 0.1 s to ten minutes in a joint space: its windows, and their mean.

        Raises:
            InvalidInput: On any other duration, or an encoder that hears no recordings.
            NotFound: If there is no such encoder.
            Overloaded: If the encoder serves as many requests as it may.
        """
        return await self._joint(model).embed_audio(waveform)

    async def rank_audio(
        self, model: str, query: str | Waveform, candidates: Sequence[Waveform]
    ) -> tuple[list[RankedAudio], ModelInfo]:
        """1 to 64 recordings by their cosine to a text or another recording, best first; of equals the earlier.

        Raises:
            InvalidInput: On a query or a candidate outside its range, or an encoder that hears no recordings.
            NotFound: If there is no such encoder.
            Overloaded: If the encoder serves as many requests as it may.
        """
        lane = self._joint(model)
        return await lane.rank(query, candidates), lane.info

    async def tag_audio(self, model: str, waveform: Waveform, tags: Sequence[str]) -> tuple[list[ScoredTag], ModelInfo]:
        """Up to 256 tags, or the encoder's own, by their cosine to a recording, best first.

        Raises:
            InvalidInput: On a recording or a tag outside its range, or an encoder that hears no recordings.
            NotFound: If there is no such encoder.
            Overloaded: If the encoder serves as many requests as it may.
        """
        lane = self._joint(model)
        return await lane.tag(waveform, tags), lane.info

    async def quantize(self, model: str, points: Sequence[JointEmbedding]) -> tuple[list[JointEmbedding], ModelInfo]:
        """1 to 1024 points of a joint space with their codes.

        Raises:
            InvalidInput: On too many points, one of another space, or an encoder without a quantiser.
            NotFound: If there is no such encoder.
            Overloaded: If the encoder serves as many requests as it may.
        """
        lane = self._joint(model)
        return await lane.quantize(points), lane.info

    async def embed_melody(self, waveform: Waveform, model: str = "") -> Melody:
        """The loudest pitch class over time of 0.1 s to 60 s of audio, or its codes by a melody encoder.

        Raises:
            InvalidInput: On any other duration, or an encoder of another kind.
            NotFound: If there is no such encoder.
        """
        self._check_ready()
        if model:
            model = self._find(model, self._melodies)
        await check_recordings({"waveform": waveform}, MAX_MELODY_S)
        queued_at_s = time.monotonic()
        if not model:
            chroma = await self._chroma_thread.run(partial(self._extract, waveform, queued_at_s))
            return Melody(chromagram=chroma)
        encoder = self._melodies[model]
        codes = await self._threads[model].run(partial(self._encode_melody, encoder, waveform, queued_at_s))
        return Melody(codes=codes, model=encoder.info)

    def list_models(self) -> list[ModelInfo]:
        """The encoders, sorted by name."""
        self._check_ready()
        infos = [encoder.info for encoder, _ in self._texts.values()]
        infos += [lane.info for lane in self._joints.values()]
        infos += [encoder.info for encoder in self._melodies.values()]
        return sorted(infos, key=lambda info: info.name)

    async def _load(self, loaders: Mapping[str, Callable[[], Encoder]]) -> dict[str, Encoder]:
        calls = (self._threads[name].run(partial(self._load_one, load)) for name, load in loaders.items())
        return dict(zip(loaders, await asyncio.gather(*calls), strict=True))

    def _load_one(self, load: Callable[[], Encoder]) -> Encoder:
        use_threads(self._num_threads)
        return load()

    def _joint(self, model: str) -> JointLane:
        return self._joints[self._find(model, self._joints)]

    def _find(self, model: str, names: Iterable[str]) -> str:
        """The name of an encoder among `names`, whose first is the default one."""
        self._check_ready()
        fitting = list(names)
        if not model and fitting:
            return fitting[0]
        if model in fitting:
            return model
        known = f"expected one of {', '.join(sorted(fitting))}" if fitting else "no encoder served here does that"
        if model in (*self._texts, *self._joints, *self._melodies):
            raise InvalidInput("model", f"{known}, got {model!r}, which does other work. Choose one that does.")
        raise NotFound("model", f"{known}, got {model!r}. Choose one, or have it served.")

    def _check_ready(self) -> None:
        if not self._is_ready:
            raise NotReady("The embedding service has not loaded its encoders, or is stopping. Retry shortly.")

    def _extract(self, waveform: Waveform, queued_at_s: float) -> Chromagram:
        self._observe_wait(queued_at_s)
        return extract_chroma(waveform)

    def _encode_melody(self, encoder: MelodyEncoder, waveform: Waveform, queued_at_s: float) -> TokenMatrix:
        self._observe_wait(queued_at_s)
        codes = encoder.encode(np.concatenate(list(resample(waveform, encoder.sample_rate_hz))))
        return TokenMatrix(codes.astype(np.int32), encoder.info.frame_rate_hz, encoder.info.model_id)

    def _observe_wait(self, queued_at_s: float) -> None:
        if self._meter is not None:
            self._meter.observe_queue_wait(time.monotonic() - queued_at_s)

    def _count_waiting(self) -> int:
        num_waiting = sum(queue.num_queued for _, queue in list(self._texts.values()))
        num_waiting += sum(lane.num_queued for lane in list(self._joints.values()))
        num_waiting += sum(self._threads[name].num_queued for name in self._melodies)
        return num_waiting + self._chroma_thread.num_queued


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput("models", f"expected each name once, got {name!r} for two encoders. Rename one.")
