"""`unfilled`: where modules are made without values, and without memory for them, because a checkpoint is to fill them.

Torch's own way, `torch.device("meta")`, still draws first values, and to draw normal ones or to compute with what
`arange` counts it imports its compiler: 800 modules, which take two seconds of a server's start in which it hardly
answers its health. Nothing is drawn here, and what is counted, as tables of positions are, has its values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_DRAWING = (torch.Tensor.normal_, torch.Tensor.uniform_)


class _NothingDrawn(TorchFunctionMode):
    """Functions that give a tensor its first values give it back as it is; counting is done on the CPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _DRAWING or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else (kwargs or {})["tensor"]
        if func is torch.arange:
            return func(*args, **{"device": "cpu", **(kwargs or {})})
        return func(*args, **(kwargs or {}))


@contextmanager
def unfilled() -> Iterator[None]:
    """Make modules on the meta device, of this thread alone."""
    with torch.device("meta"), _NothingDrawn():
        yield
