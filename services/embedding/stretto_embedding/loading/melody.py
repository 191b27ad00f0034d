"""Melody encoders: the registry by architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from stretto_shared import weights
from stretto_shared.errors import NotFound
from stretto_shared.nn.heap import giving_memory_back

from stretto_embedding.loading import melody_tokens
from stretto_embedding.loading.encoders import MelodyEncoder
from stretto_embedding.loading.files import list_names

# `architecture` of our own layout: a function of the resolved weights.
ARCHITECTURES: Mapping[str, Callable[[weights.ResolvedWeights], MelodyEncoder]] = {
    melody_tokens.ARCHITECTURE: melody_tokens.build
}


def list_default_names(weights_dir: Path) -> list[str]:
    """The melody encoders committed to `weights_dir`, sorted."""
    return list_names(weights_dir, ARCHITECTURES)


def load(name: str, source: str, *, weights_dir: Path) -> MelodyEncoder:
    """Find, verify and build one melody encoder.

    Args:
        name: The name that requests use; no melody encoder is a default, since an empty name is the chromagram's.
        source: `default` or `file:///folder`, in our own layout.
        weights_dir: Where `default` looks.

    Raises:
        InvalidInput: If the name or the source is malformed, or the weights are pickled.
        NotFound: If the architecture is not in the registry.
        NotReady: If a file is missing or damaged, or its tensors do not fit its config.
    """
    with giving_memory_back():
        resolved = weights.resolve(source, name=name, default_dir=weights_dir)
        architecture = str(resolved.config.get("architecture"))
        if architecture not in ARCHITECTURES:
            raise NotFound(
                "model",
                f"expected a melody encoder of {', '.join(ARCHITECTURES)}, got {architecture!r} from {source!r}. "
                "Name another source.",
            )
        return ARCHITECTURES[architecture](resolved)
