"""A beat tracker from its exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stretto_shared.weights import load_tensors, resolve
from torch import Tensor

from stretto_transcriber.models.beat_tracker.config import BeatTrackerConfig
from stretto_transcriber.models.beat_tracker.network import BeatTracker

ARCHITECTURE = "BeatTracker"


def build_beat_tracker(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BeatTracker:
    """The tracker of an export's `config` and tensors, in single precision, ready to hear."""
    tracker = BeatTracker(BeatTrackerConfig(**config))
    tracker.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    )
    return tracker.eval().requires_grad_(False)


def load_beat_tracker(folder: Path) -> BeatTracker:
    """The tracker exported to `folder`.

    Raises:
        InvalidInput, NotReady: As `weights.resolve` does.
    """
    resolved = resolve(f"file://{folder.resolve()}", name="beat_tracker", default_dir=folder.parent)
    return build_beat_tracker(resolved.config["config"], load_tensors(resolved))
