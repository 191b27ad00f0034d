"""A ChordGNN from its exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stretto_shared.weights import load_tensors, resolve
from torch import Tensor

from stretto_harmony.models.chordgnn.config import ChordGnnConfig
from stretto_harmony.models.chordgnn.network import ChordGnn

ARCHITECTURE = "ChordGnn"


def build_chordgnn(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ChordGnn:
    """The network of an export's `config` and tensors, in single precision, ready to analyse."""
    network = ChordGnn(ChordGnnConfig(**config))
    network.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    )
    return network.eval().requires_grad_(False)


def load_chordgnn(folder: Path) -> ChordGnn:
    """The network exported to `folder`.

    Raises:
        InvalidInput, NotReady: As `weights.resolve` does.
    """
    resolved = resolve(f"file://{folder.resolve()}", name="chordgnn", default_dir=folder.parent)
    return build_chordgnn(resolved.config["config"], load_tensors(resolved))
