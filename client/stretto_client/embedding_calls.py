"""The client's calls on texts, recordings and melodies as vectors; `StrettoClient` has them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stretto.embedding.v1 import embedding_pb2
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import JointEmbedding
from stretto_shared.grpc import convert
from stretto_shared.grpc.settings import MEBIBYTE

from stretto_client.calls import answer
from stretto_client.values import EmbeddedAudio, EmbeddedMelody, EmbeddedText, RankedAudio, Ranking, ScoredTag, TagList

SHORT_TIMEOUT_S = 30.0
LISTENING_TIMEOUT_S = 300.0


class EmbeddingCalls:
    """Every method of the embedding service, as the door passes it on."""

    _embedding: Any  # the stub, from enter to exit
    _max_bytes: int

    async def embed_text(
        self, texts: Sequence[str], *, model: str = "", timeout_s: float = SHORT_TIMEOUT_S
    ) -> EmbeddedText:
        """Up to 64 texts as vectors: pooled and for each token, or as points of a joint encoder's space."""
        request = embedding_pb2.EmbedTextRequest(model=model, texts=texts)
        reply = await answer(self._embedding.EmbedText(request, timeout=timeout_s))
        return EmbeddedText(
            tuple(convert.text_states_from_proto(state) for state in reply.states),
            convert.model_info_from_proto(reply.model),
            tuple(convert.joint_embedding_from_proto(each) for each in reply.embeddings),
        )

    async def embed_audio(
        self, waveform: Waveform, *, model: str = "", timeout_s: float = LISTENING_TIMEOUT_S
    ) -> EmbeddedAudio:
        """A recording of up to ten minutes as a point of a joint encoder's space: its windows, and their mean.

        Raises:
            InvalidInput: If the audio does not fit in one message; it says how many seconds would.
        """
        request = embedding_pb2.EmbedAudioRequest(model=model, waveform=convert.waveform_to_proto(waveform))
        self._check_size(request, waveform, "waveform")
        reply = await answer(self._embedding.EmbedAudio(request, timeout=timeout_s))
        return EmbeddedAudio(
            convert.joint_embedding_from_proto(reply.embedding),
            tuple(convert.joint_embedding_from_proto(each) for each in reply.windows),
            reply.window_s,
            reply.stride_s,
            convert.model_info_from_proto(reply.model),
        )

    async def rank_audio(
        self,
        query: str | Waveform,
        candidates: Sequence[Waveform],
        *,
        model: str = "",
        timeout_s: float = LISTENING_TIMEOUT_S,
    ) -> Ranking:
        """Up to 64 recordings by how well they fit a text or another recording, best first.

        Raises:
            InvalidInput: If they do not fit in one message; it says how many seconds they may have in all.
        """
        request = embedding_pb2.RankAudioRequest(model=model)
        if isinstance(query, str):
            request.text = query
        else:
            request.reference.CopyFrom(convert.waveform_to_proto(query))
            self._check_size(request, query, "reference")
        for candidate in candidates:
            request.candidates.append(convert.waveform_to_proto(candidate))
        self._check_total(request, [*candidates, *([] if isinstance(query, str) else [query])])
        reply = await answer(self._embedding.RankAudio(request, timeout=timeout_s))
        ranked = tuple(RankedAudio(each.candidate_index, each.similarity) for each in reply.ranking)
        return Ranking(ranked, convert.model_info_from_proto(reply.model))

    async def tag_audio(
        self,
        waveform: Waveform,
        tags: Sequence[str] = (),
        *,
        model: str = "",
        timeout_s: float = LISTENING_TIMEOUT_S,
    ) -> TagList:
        """How well each of up to 256 tags fits a recording, best first; no tags takes the encoder's own.

        Raises:
            InvalidInput: If the audio does not fit in one message; it says how many seconds would.
        """
        request = embedding_pb2.TagAudioRequest(model=model, waveform=convert.waveform_to_proto(waveform), tags=tags)
        self._check_size(request, waveform, "waveform")
        reply = await answer(self._embedding.TagAudio(request, timeout=timeout_s))
        scored = tuple(ScoredTag(each.tag, each.similarity, each.probability) for each in reply.tags)
        return TagList(scored, convert.model_info_from_proto(reply.model))

    async def quantize_embeddings(
        self, embeddings: Sequence[JointEmbedding], *, model: str = "", timeout_s: float = SHORT_TIMEOUT_S
    ) -> tuple[JointEmbedding, ...]:
        """Up to 1024 points of a joint space, such as ones between others, with their codes."""
        request = embedding_pb2.QuantizeEmbeddingsRequest(
            model=model, embeddings=[convert.joint_embedding_to_proto(each) for each in embeddings]
        )
        reply = await answer(self._embedding.QuantizeEmbeddings(request, timeout=timeout_s))
        return tuple(convert.joint_embedding_from_proto(each) for each in reply.embeddings)

    async def embed_melody(
        self, waveform: Waveform, *, model: str = "", timeout_s: float = SHORT_TIMEOUT_S
    ) -> EmbeddedMelody:
        """The melody of up to a minute: its strongest pitch class over time, or a melody encoder's codes.

        Raises:
            InvalidInput: If the audio does not fit in one message; it says how many seconds would.
        """
        request = embedding_pb2.EmbedMelodyRequest(model=model, waveform=convert.waveform_to_proto(waveform))
        self._check_size(request, waveform, "waveform")
        reply = await answer(self._embedding.EmbedMelody(request, timeout=timeout_s))
        return EmbeddedMelody(
            convert.chromagram_from_proto(reply.melody) if reply.HasField("melody") else None,
            convert.tokens_from_proto(reply.codes) if reply.HasField("codes") else None,
            convert.model_info_from_proto(reply.model) if reply.HasField("model") else None,
        )

    def _check_size(self, request: Any, audio: Waveform, field: str) -> None:
        """Raise InvalidInput, in seconds, where gRPC would say only how many bytes are too many."""
        num_bytes = request.ByteSize()
        if num_bytes <= self._max_bytes:
            return
        channels = "mono" if audio.num_channels == 1 else "stereo"
        raise InvalidInput(
            field,
            f"expected at most {self._fitting_s(audio.duration_s, num_bytes):g} s of {channels} audio at "
            f"{audio.sample_rate_hz} Hz ({self._max_bytes / MEBIBYTE:g} MiB in one message), got "
            f"{audio.duration_s:.1f} s. Send it in parts, in mono or at a lower rate.",
        )

    def _check_total(self, request: Any, recordings: Sequence[Waveform]) -> None:
        """The same for recordings that go together."""
        num_bytes = request.ByteSize()
        if num_bytes <= self._max_bytes:
            return
        duration_s = sum(each.duration_s for each in recordings)
        raise InvalidInput(
            "candidates",
            f"expected about {self._fitting_s(duration_s, num_bytes):g} s of such audio at most "
            f"({self._max_bytes / MEBIBYTE:g} MiB in one message), got {duration_s:.1f} s in all. Send fewer, in mono "
            "or at a lower rate.",
        )

    def _fitting_s(self, duration_s: float, num_bytes: int) -> float:
        return math.floor(duration_s * self._max_bytes / num_bytes * 10) / 10
