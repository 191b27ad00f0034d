"""`HarmonyEngine`: what the service does, as one; files, analyses and single questions have a file each."""

from __future__ import annotations

import asyncio

from stretto_shared.features import ModelInfo

from stretto_harmony.engine.analyzers import Analyzers
from stretto_harmony.engine.analyzing import Analyzing
from stretto_harmony.engine.files import ScoreFile, ScoreFiles
from stretto_harmony.engine.questions import Questions
from stretto_harmony.scores.score import Score

ScoreSource = Score | ScoreFile


class HarmonyEngine:
    """Starts, stops and lists the analyzers, and holds what works with them.

    Args:
        analyzers: The analyzers.
        files: Reads and writes.
    """

    def __init__(self, analyzers: Analyzers, files: ScoreFiles) -> None:
        self._analyzers = analyzers
        self.files = files
        self.analyzing = Analyzing(analyzers)
        self.questions = Questions(analyzers)

    async def start(self) -> None:
        """Load every analyzer on its own thread.

        Raises:
            StrettoError: What the loading of one raised.
        """
        await self._analyzers.start()

    async def stop(self) -> None:
        """Fail what waits, and end the threads."""
        await asyncio.gather(self._analyzers.stop(), self.files.stop())

    def count_waiting(self) -> int:
        """Count the requests that wait for a thread."""
        return self._analyzers.count_waiting() + self.files.count_waiting()

    def list_models(self) -> list[ModelInfo]:
        """The analyzers, sorted by name."""
        return self._analyzers.list_models()

    def check_model(self, model: str) -> None:
        """Refuse an analyzer that is not there before anything is read for it.

        Raises:
            NotFound: If there is no such analyzer.
        """
        self._analyzers.find(model)

    def check_modules(self, model: str) -> None:
        """Refuse an analyzer that has no modules before anything is read for it.

        Raises:
            NotFound: If there is no such analyzer.
        """
        self._analyzers.find_modules(model)

    async def score_of(self, source: ScoreSource) -> Score:
        """The score itself, read if it comes as a file."""
        self._analyzers.ready()
        return source if isinstance(source, Score) else await self.files.read(source)
