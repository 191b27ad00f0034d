"""`HarmonyClient`: chords, keys and Roman numerals of a score."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import grpc
from stretto.harmony.v1 import harmony_pb2, harmony_pb2_grpc
from stretto_shared.errors import NotFound
from stretto_shared.features import ModelInfo
from stretto_shared.grpc import convert
from stretto_shared.grpc.convert_harmony import labels_from_proto, labels_to_proto
from stretto_shared.harmony import HarmonyLabel

from stretto_orchestrator.clients.calling import errors_of, read


@dataclass(frozen=True)
class AnalyzedMeasures:
    """The labels of consecutive measures, and the analyzer."""

    labels: tuple[HarmonyLabel, ...]
    model: ModelInfo


class HarmonyClient:
    """`stretto.harmony.v1.HarmonyService`. Errors name the analyzer that was asked for as the caller does."""

    stage = "harmony"

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = harmony_pb2_grpc.HarmonyServiceStub(channel)
        self._timeout_s = timeout_s

    async def check_model(self, model: str, *, field: str) -> None:
        """Refuse an analyzer that the stage does not have; empty asks for any.

        Raises:
            NotFound: If there is none of that name.
        """
        names = [info.name for info in await self.list_models()]
        if not names or model not in ("", *names):
            known = ", ".join(names) or "no analyzer yet"
            raise NotFound(field, f"expected one that analyses harmony: {known}; got {model!r}. Choose one.")

    async def analyze(self, model: str, musicxml: bytes, *, field: str) -> AsyncGenerator[AnalyzedMeasures, None]:
        """Labels as they are found; errors name the analyzer `field`."""
        request = harmony_pb2.AnalyzeHarmonyRequest(model=model, score=_as_input(musicxml))
        call = self._stub.AnalyzeHarmony(request, timeout=self._timeout_s)
        info: ModelInfo | None = None
        try:
            with errors_of(self.stage, {"model": field}):
                async for response in call:
                    if response.HasField("outline"):
                        info = read(convert.model_info_from_proto, response.outline.model, self.stage)
                    elif response.HasField("window") and info is not None:
                        labels = read(labels_from_proto, response.window.labels, self.stage)
                        yield AnalyzedMeasures(labels, info)
        finally:
            call.cancel()

    async def write_musicxml(self, musicxml: bytes, labels: Sequence[HarmonyLabel], title: str) -> bytes:
        """The score with the numerals under its lowest staff."""
        request = harmony_pb2.WriteHarmonyRequest(
            score=_as_input(musicxml),
            labels=labels_to_proto(labels),
            format=harmony_pb2.ANALYSIS_FORMAT_MUSICXML,
            title=title,
        )
        with errors_of(self.stage, {"title": "config.title"}):
            response = await self._stub.WriteHarmony(request, timeout=self._timeout_s)
        return bytes(response.data)

    async def list_models(self) -> list[ModelInfo]:
        """The analyzers that the stage can serve."""
        with errors_of(self.stage):
            response = await self._stub.ListModels(harmony_pb2.ListModelsRequest(), timeout=self._timeout_s)
        return [read(convert.model_info_from_proto, each, self.stage) for each in response.models]


def _as_input(musicxml: bytes) -> harmony_pb2.ScoreInput:
    file = harmony_pb2.ScoreFile(data=musicxml, format=harmony_pb2.SCORE_FORMAT_MUSICXML)
    return harmony_pb2.ScoreInput(file=file)
