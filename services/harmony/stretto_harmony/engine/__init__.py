"""Scores in, labels out; files read and written. Knows nothing of protobuf and grpc."""

from stretto_harmony.engine.analyzers import Analyzers, Meter
from stretto_harmony.engine.analyzing import Amendment, Analyzing, Edit, Outline
from stretto_harmony.engine.files import ScoreFile, ScoreFiles, ScoreFormat
from stretto_harmony.engine.harmony_engine import HarmonyEngine, ScoreSource
from stretto_harmony.engine.questions import Candidate, Chord, Questions
from stretto_harmony.engine.windows import MeasureGrid, WindowLabels
from stretto_harmony.writers.written import AnalysisFormat, WrittenAnalysis

__all__ = [
    "Amendment",
    "AnalysisFormat",
    "Analyzers",
    "Analyzing",
    "Candidate",
    "Chord",
    "Edit",
    "HarmonyEngine",
    "MeasureGrid",
    "Meter",
    "Outline",
    "Questions",
    "ScoreFile",
    "ScoreFiles",
    "ScoreFormat",
    "ScoreSource",
    "WindowLabels",
    "WrittenAnalysis",
]
