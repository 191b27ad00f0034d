"""Joint encoders of texts and recordings: the registry by architecture. One adapter to a file, beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from stretto_shared import weights
from stretto_shared.errors import NotFound
from stretto_shared.nn.heap import giving_memory_back

from stretto_embedding.loading import clap, mulan
from stretto_embedding.loading.encoders import JointEncoder
from stretto_embedding.loading.files import list_names
from stretto_embedding.loading.text import TextEncoder, load_default

Build = Callable[..., JointEncoder]
"""Called with the resolved weights, `is_default`, and `load_text_encoder`, which gives MiniLM to those that read it."""

# `architecture` of our own layout.
ARCHITECTURES: Mapping[str, Build] = {"MuLan": mulan.build}

# `model_type` of a Hugging Face `config.json`.
HUGGING_FACE_MODELS: Mapping[str, Build] = {"clap": clap.build}


def list_default_names(weights_dir: Path) -> list[str]:
    """The joint encoders committed to `weights_dir`, sorted; the first is the default one."""
    return list_names(weights_dir, ARCHITECTURES)


def load(
    name: str,
    source: str,
    *,
    weights_dir: Path,
    is_default: bool = False,
    load_text_encoder: Callable[[], TextEncoder] = load_default,
) -> JointEncoder:
    """Find, verify and build one joint encoder.

    Args:
        name: The name that requests use.
        source: `default`, `hf://org/name@revision` or `file:///folder`.
        weights_dir: Where `default` looks.
        is_default: Whether an empty `model` field selects it.
        load_text_encoder: Gives MiniLM to an encoder that reads its states; one that is served can be shared.

    Raises:
        InvalidInput: If the name or the source is malformed, or the weights are pickled.
        NotFound: If the architecture is not in the registry.
        NotReady: If a file is missing or damaged, or its tensors do not fit its config.
    """
    with giving_memory_back():
        resolved = weights.resolve(source, name=name, default_dir=weights_dir)
        key = "model_type" if resolved.is_hugging_face_layout else "architecture"
        known = HUGGING_FACE_MODELS if resolved.is_hugging_face_layout else ARCHITECTURES
        architecture = str(resolved.config.get(key))
        if architecture not in known:
            raise NotFound(
                "model",
                f"expected a joint encoder of {', '.join(known)}, got {architecture!r} from {source!r}. "
                "Name another source.",
            )
        return known[architecture](resolved, is_default=is_default, load_text_encoder=load_text_encoder)
