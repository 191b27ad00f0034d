"""What encoders of every kind read from a folder: a tokenizer, the state of a module, and whether it is theirs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Generic, TypeVar

from stretto_shared import weights
from stretto_shared.errors import NotReady
from stretto_shared.nn.heap import as_single
from tokenizers import Tokenizer
from torch import Tensor, nn

T = TypeVar("T")


class Once(Generic[T]):
    """A loader that loads once, whichever thread asks first, and gives all of them the same.

    Invariant: a load that failed is tried again by the next who asks.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loaded: list[T] = []

    def __call__(self) -> T:
        with self._lock:
            if not self._loaded:
                self._loaded.append(self._load())
            return self._loaded[0]


def read_tokenizer(resolved: weights.ResolvedWeights) -> Tokenizer:
    """The tokenizer beside the weights; it neither cuts nor pads.

    Raises:
        NotReady: If there is none.
    """
    path = resolved.folder / "tokenizer.json"
    if not path.is_file():
        raise NotReady(
            f"Source {resolved.source!r} has no tokenizer.json beside its weights. Add it.", reason="WEIGHTS_MISSING"
        )
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def with_state(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The module with these weights in float32, in eval mode.

    Raises:
        NotReady: If they are not the module's.
    """
    try:
        model.load_state_dict(as_single(state), assign=True)
    except RuntimeError as error:
        raise NotReady(f"The weights do not fit their config.json: {error}", reason="WEIGHTS_DAMAGED") from error
    return model.eval().requires_grad_(False)


def list_names(weights_dir: Path, architectures: Collection[str]) -> list[str]:
    """The folders of `weights_dir` whose checkpoint is of one of these architectures, sorted."""
    return sorted(
        path.parent.name
        for path in weights_dir.glob(f"*/{weights.CONFIG_FILE}")
        if json.loads(path.read_text(encoding="utf-8")).get("architecture") in architectures
    )
