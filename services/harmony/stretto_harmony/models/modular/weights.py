"""A modular analyzer from its exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stretto_shared.weights import load_tensors, resolve
from torch import Tensor

from stretto_harmony.models.modular.analyzer import ModularAnalyzer
from stretto_harmony.models.modular.config import ModularConfig, SearchConfig
from stretto_harmony.models.modular.networks import Modules

ARCHITECTURE = "ModularAnalyzer"


def build_modular(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ModularAnalyzer:
    """The analyzer of an export's `config` (`modules` and `search`) and tensors, in single precision."""
    modules = Modules(ModularConfig(**config["modules"]))
    modules.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    )
    return ModularAnalyzer(modules, SearchConfig(**config["search"]))


def load_modular(folder: Path) -> ModularAnalyzer:
    """The analyzer exported to `folder`.

    Raises:
        InvalidInput, NotReady: As `weights.resolve` does.
    """
    resolved = resolve(f"file://{folder.resolve()}", name="modular", default_dir=folder.parent)
    return build_modular(resolved.config["config"], load_tensors(resolved))
