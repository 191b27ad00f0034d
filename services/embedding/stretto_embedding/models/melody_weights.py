"""A melody encoder from its exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stretto_shared.weights import load_tensors, resolve
from torch import Tensor

from stretto_embedding.models.melody import MelodyEncoder, MelodyEncoderConfig

ARCHITECTURE = "MelodyEncoder"


def build_melody_encoder(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MelodyEncoder:
    """The encoder of an export's `config` and tensors, in single precision, ready to encode."""
    encoder = MelodyEncoder(MelodyEncoderConfig(**config))
    encoder.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    )
    return encoder.eval().requires_grad_(False)


def load_melody_encoder(folder: Path) -> MelodyEncoder:
    """The encoder exported to `folder`.

    Raises:
        InvalidInput, NotReady: As `weights.resolve` does.
    """
    resolved = resolve(f"file://{folder.resolve()}", name="melody", default_dir=folder.parent)
    return build_melody_encoder(resolved.config["config"], load_tensors(resolved))
