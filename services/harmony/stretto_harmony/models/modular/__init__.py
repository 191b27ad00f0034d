"""McLeod and Rohrmeier's modular analyzer (2021): six modules and a joint beam search."""

from stretto_harmony.models.modular.analyzer import ModularAnalyzer
from stretto_harmony.models.modular.config import SEARCH_PRESETS, ModularConfig, SearchConfig, search_of
from stretto_harmony.models.modular.networks import Modules

__all__ = ["ModularAnalyzer", "Modules", "ModularConfig", "SearchConfig", "SEARCH_PRESETS", "search_of"]
