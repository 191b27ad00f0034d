"""Reading a stage's stream column by column: caches, and one pass of the linear layers for the rows of many of them.

The rows of a pass are those of its windows one after another: for each of a window's columns, its batch (one row, or a
conditional and a null one). Linear layers see all rows at once; attention sees one column of one window at a time, with
the very shapes of a lone step, so that a row's bytes depend neither on who else is in the pass nor on how many columns
of its own are. The prefix is read when the window is opened, in a pass of its own.

Legend: N rows, B rows of one window, C its columns; P, S, L, D, H, E as in `model`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stretto_shared.nn.stage_lm.config import StageConfig
from stretto_shared.nn.stage_lm.model import StageLM
from stretto_shared.nn.stage_lm.positions import Layout


@dataclass(eq=False)
class StageCache:
    """What was read of one window; made by `open_window`, advanced in place by `read`."""

    keys: tuple[Tensor, ...]  # [B, H, P + S, E] of each layer
    values: tuple[Tensor, ...]  # the same
    bias: Tensor  # [1, H, S, P + S] of the stream's columns
    num_prefix: int
    num_steps: int = 0  # columns of the stream that were read

    @property
    def batch_size(self) -> int:
        return int(self.keys[0].shape[0])

    @property
    def max_steps(self) -> int:
        return int(self.bias.shape[2])


@dataclass(frozen=True, eq=False)
class Feed:
    """What one window reads in a pass: columns [C], and whether the logits after the last are wanted."""

    cache: StageCache
    tokens: Tensor
    with_logits: bool

    @property
    def num_columns(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def num_rows(self) -> int:
        return self.num_columns * self.cache.batch_size


class Biases:
    """The relative biases of a model's last few layouts, for inference: read, never written, by any number of windows.

    All windows of a piece but its last have one layout, and making its biases takes as long as several steps.
    """

    def __init__(self, model: StageLM, max_layouts: int = 8) -> None:
        self._model = model
        self._max_layouts = max_layouts
        self._known: OrderedDict[Layout, tuple[Tensor, Tensor]] = OrderedDict()

    def of(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """Biases [1, H, P, P] of the prefix, and [1, H, S, P + S] of the stream's columns."""
        if layout not in self._known:
            bias = self._model.relative_bias(layout)[None]
            num_prefix = layout.num_prefix(self._model.config)
            own = bias[:, :, :num_prefix, :num_prefix].contiguous()
            self._known[layout] = own, bias[:, :, num_prefix:].contiguous()
        self._known.move_to_end(layout)
        while len(self._known) > self._max_layouts:
            self._known.popitem(last=False)
        return self._known[layout]


def cache_bytes(config: StageConfig, num_rows: int, num_positions: int) -> int:
    """Bytes of the float32 keys and values of so many rows and positions."""
    return 2 * 4 * config.num_layers * num_rows * num_positions * config.dim


def open_window(
    model: StageLM,
    batch: int,
    num_steps: int,
    style: Tensor | None = None,
    melody: Tensor | None = None,
    source: Tensor | None = None,
    biases: Biases | None = None,
) -> StageCache:
    """Read the prefix of a window of `num_steps` columns; arguments as those of `StageLM.forward`.

    With `biases`, those of an earlier window of the same layout are used again.
    """
    x, layout = model.prefix(batch, num_steps, style, melody, source)
    num_prefix, config = x.shape[1], model.config
    own, of_stream = (biases or Biases(model)).of(layout)
    shape = (batch, config.num_heads, num_prefix + num_steps, config.dim // config.num_heads)
    keys_of, values_of = (tuple(x.new_zeros(shape) for _ in model.blocks()) for _ in range(2))
    cache = StageCache(keys_of, values_of, of_stream, num_prefix)
    if num_prefix:
        for block, keys, values in zip(model.blocks(), cache.keys, cache.values):
            query, key, value = block.qkv(x)
            keys[:, :, :num_prefix], values[:, :, :num_prefix] = key, value
            x = block.finish(x, F.scaled_dot_product_attention(query, key, value, attn_mask=own))
    return cache


def read(model: StageLM, feeds: Sequence[Feed], *, min_rows: int = 1) -> list[Tensor | None]:
    """Read the columns of every window in one pass, and advance it.

    Args:
        model: In eval mode.
        feeds: Windows, each once.
        min_rows: Rows that the pass is filled up to.

    Returns:
        For each window the logits [B, V] after its last column, or None where it wants none.

    Raises:
        ValueError: If a window has no room for its columns, or a token is out of range; then none has advanced.
    """
    _check(model.config, feeds)
    x = torch.cat([_embed(model, feed) for feed in feeds])
    num_rows = x.shape[0]
    if num_rows < min_rows:
        x = torch.cat([x, x.new_zeros(min_rows - num_rows, 1, x.shape[2])])
    places = _places(feeds)
    for index, block in enumerate(model.blocks()):
        query, key, value = block.qkv(x)  # [N, H, 1, E]
        x = block.finish(x, _attend(places, index, query, key, value))
    logits: list[Tensor | None] = []
    first = 0
    for feed in feeds:
        first += feed.num_rows
        feed.cache.num_steps += feed.num_columns
        codebook = (feed.cache.num_steps - 1) % model.config.num_codebooks
        last = x[first - feed.cache.batch_size : first]
        logits.append(model.predict_one(last, codebook) if feed.with_logits else None)
    return logits


def _embed(model: StageLM, feed: Feed) -> Tensor:
    """Vectors [C * B, 1, D] of a window's columns; what its first column holds is the start, whatever it says."""
    at, table = feed.cache.num_steps, model.stream
    if at:
        vectors = table.embed(feed.tokens[None], at - 1)[0]
    else:
        vectors = torch.cat([table.start[None], table.embed(feed.tokens[None, 1:], 0)[0]])
    return vectors.repeat_interleave(feed.cache.batch_size, 0)[:, None]


@dataclass(frozen=True, eq=False)
class _Place:
    """One column of a pass: its rows, where it lies in its window's cache, and its bias [1, H, 1, at + 1]."""

    cache: StageCache
    rows: slice
    at: int
    bias: Tensor


def _places(feeds: Sequence[Feed]) -> list[_Place]:
    places: list[_Place] = []
    first = 0
    for feed in feeds:
        cache = feed.cache
        for step in range(cache.num_steps, cache.num_steps + feed.num_columns):
            at = cache.num_prefix + step
            rows = slice(first, first + cache.batch_size)
            places.append(_Place(cache, rows, at, cache.bias[:, :, step : step + 1, : at + 1]))
            first = rows.stop
    return places


def _attend(places: Sequence[_Place], layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Write each column's key and value [B, H, 1, E] to its cache, and attend from it to what was read before."""
    num_rows = query.shape[0]
    if len(places) == 1 and places[0].rows.stop == num_rows:
        return _attend_one(places[0], layer, query, key, value)  # the usual pass, without a cut
    parts = [_attend_one(each, layer, query[each.rows], key[each.rows], value[each.rows]) for each in places]
    if places[-1].rows.stop < num_rows:
        parts.append(torch.zeros_like(query[places[-1].rows.stop :]))
    return torch.cat(parts)


def _attend_one(place: _Place, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    keys, values, at = place.cache.keys[layer], place.cache.values[layer], place.at
    keys.narrow(2, at, 1).copy_(key)
    values.narrow(2, at, 1).copy_(value)
    heard, said = keys.narrow(2, 0, at + 1), values.narrow(2, 0, at + 1)
    return F.scaled_dot_product_attention(query, heard, said, attn_mask=place.bias)


def _check(config: StageConfig, feeds: Sequence[Feed]) -> None:
    if len({id(feed.cache) for feed in feeds}) != len(feeds):
        raise ValueError("a window can be in a pass once only; give it more columns instead.")
    for feed in feeds:
        cache = feed.cache
        if cache.num_steps + feed.num_columns > cache.max_steps:
            raise ValueError(f"the window holds {cache.max_steps} columns and all are used; open a longer one.")
        tokens = feed.tokens[0 if cache.num_steps else 1 :]
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < config.cardinality:
            raise ValueError(f"tokens: expected 0 to {config.cardinality - 1}, got {tokens.tolist()}.")
