"""Whether a linear layer gives a row the same bytes whatever rows stand beside it: measured, not believed.

Batched serving may join the rows of several requests in one product only where that holds. Kernels differ by number
format, by shape, by number of rows and by processor: single precision through oneDNN may hold from two rows on, where a
lone row takes another kernel. So a server tries its own layers when it loads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

CANDIDATES = (1, 2, 4, 8)
_ALL_UP_TO = 64
_STRIDE = 7  # meets every remainder of a block of rows that is a power of two
_SEED = 20_001


def linear_layers(module: nn.Module) -> list[nn.Module]:
    """One layer of each kind and shape below `module`: whatever has `in_features` and `out_features`."""
    kinds: dict[tuple[object, ...], nn.Module] = {}
    for layer in module.modules():
        if hasattr(layer, "in_features") and hasattr(layer, "out_features"):
            kinds.setdefault((type(layer), layer.in_features, layer.out_features), layer)
    return list(kinds.values())


@torch.inference_mode()
def fewest_invariant_rows(layers: Iterable[nn.Module], *, max_rows: int, dtype: torch.dtype) -> int | None:
    """Return the least number of rows from which on all `layers` treat each row by itself, up to `max_rows`.

    A pass with fewer rows is to be filled up to that number. A layer that says `is_row_invariant = False` is believed,
    and not tried; whatever else it says, it is tried.

    Args:
        layers: Callables from [rows, in_features] to [rows, out_features].
        max_rows: Most rows that will ever stand in one product. Every number up to 64 is tried, every seventh
            above, and this one.
        dtype: Of the rows.

    Returns:
        One of `CANDIDATES` that is at most `max_rows`; None if there is none.
    """
    fewest = 1
    for layer in layers:
        found = _fewest_rows(layer, max_rows, dtype)
        if found is None:
            return None
        fewest = max(fewest, found)
    return fewest


def _fewest_rows(layer: nn.Module, max_rows: int, dtype: torch.dtype) -> int | None:
    if getattr(layer, "is_row_invariant", True) is False or not hasattr(layer, "in_features"):
        return None  # it says so itself, or cannot be tried
    generator = torch.Generator().manual_seed(_SEED)
    rows = torch.randn(max_rows, 1, cast(int, layer.in_features), generator=generator)
    rows = (rows * torch.logspace(-1, 1, max_rows)[:, None, None]).to(dtype)  # neighbours of very different size
    order = torch.randperm(max_rows, generator=generator)
    counts = [*range(1, min(_ALL_UP_TO, max_rows) + 1), *range(_ALL_UP_TO + 1, max_rows, _STRIDE), max_rows]
    for candidate in CANDIDATES:
        if candidate > max_rows:
            return None
        alone = _in_groups(layer, rows, candidate)
        is_same = all(torch.equal(layer(rows[:count]), alone[:count]) for count in counts if count >= candidate)
        if is_same and torch.equal(layer(rows[order]), alone[order]):
            return candidate
    return None


def _in_groups(layer: nn.Module, rows: Tensor, size: int) -> Tensor:
    """The layer's result [rows, 1, out_features] of `size` rows at a time."""
    starts = [min(first, rows.shape[0] - size) for first in range(0, rows.shape[0], size)]
    results: list[Tensor] = [layer(rows[start : start + size]) for start in starts]
    overlap = size * len(starts) - rows.shape[0]  # of the last group with the one before it
    return torch.cat([*results[:-1], results[-1][overlap:]])
