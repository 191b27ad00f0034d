"""Resumable training state on disk: written whole or not at all, read back without running anybody's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, and dicts and lists of them) to `path` in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(dict(state), part)
    part.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """What `save` wrote, or None if there is nothing at `path`."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251  our own file
    return state
