"""One pass of the linear layers for the rows of many states, with attention for each state by itself.

The rows of a pass are those of its states one after another: for each of a state's columns, its batch (one row, or a
conditional and a null one). Linear layers see all rows at once. Attention sees one column of one state at a time, with
the very shapes of a lone step, so that a row's bytes do not depend on who else is in the pass, nor on how many columns
of its own are.

Legend: N rows, B rows of one state, C its columns, K codebooks, D width, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stretto_acoustic.models.musicgen.block import MusicGenBlock
from stretto_acoustic.models.musicgen.state import MusicGenState


@dataclass(frozen=True, eq=False)
class Feed:
    """What one state reads in a pass: columns [B, K, C], and whether the logits after the last are wanted."""

    state: MusicGenState
    codes: Tensor
    with_logits: bool

    @property
    def num_columns(self) -> int:
        return int(self.codes.shape[2])


@dataclass(frozen=True, eq=False)
class Span:
    """Where the rows of one state lie in a pass."""

    state: MusicGenState
    first_row: int
    num_columns: int

    @property
    def batch_size(self) -> int:
        return self.state.batch_size

    @property
    def rows(self) -> slice:
        return slice(self.first_row, self.first_row + self.num_columns * self.batch_size)

    @property
    def last_rows(self) -> slice:
        return slice(self.rows.stop - self.batch_size, self.rows.stop)

    def rows_of(self, column: int) -> slice:
        first = self.first_row + column * self.batch_size
        return slice(first, first + self.batch_size)


def spans_of(feeds: Sequence[Feed]) -> list[Span]:
    """Lay out the rows of a pass.

    Raises:
        ValueError: If a state has no room for its columns, or stands twice in the pass.
    """
    if len({id(feed.state) for feed in feeds}) != len(feeds):
        raise ValueError("a state can be in a pass once only; give it more columns instead.")
    spans: list[Span] = []
    for feed in feeds:
        state = feed.state
        if state.num_steps + feed.num_columns > state.max_steps:
            raise ValueError(f"the state holds {state.max_steps} steps and all are used; allocate more.")
        spans.append(Span(state, spans[-1].rows.stop if spans else 0, feed.num_columns))
    return spans


def run_blocks(blocks: Sequence[MusicGenBlock], x: Tensor, spans: Sequence[Span], reach: int) -> Tensor:
    """Run rows [N, 1, D] through the blocks; fills the states' caches, and leaves their `num_steps` to the caller.

    Args:
        blocks: Of the model, in order.
        x: Embedded columns; rows after the last span are padding.
        spans: Which rows are whose.
        reach: How many steps back attention goes, the present one included; 0 for all.
    """
    hearing = [span for span in spans if span.state.memories]
    num_hearing = sum(span.num_columns * span.batch_size for span in hearing)
    for index, block in enumerate(blocks):
        query, key, value = block.qkv(x)  # [N, H, 1, E]
        attended = torch.zeros_like(query, memory_format=torch.contiguous_format)
        for span in spans:
            for column in range(span.num_columns):
                rows = span.rows_of(column)
                attended[rows] = _attend(span.state, index, column, query[rows], key[rows], value[rows], reach)
        x = block.add_self(x, attended)
        if hearing:
            x = _cross(block, index, x, hearing, is_everybody=num_hearing == spans[-1].rows.stop)
        x = block.add_feed_forward(x)
    return x


def _attend(
    state: MusicGenState, layer: int, column: int, query: Tensor, key: Tensor, value: Tensor, reach: int
) -> Tensor:
    """Write one column's key and value [B, H, 1, E] to the cache, and attend from it to what is in reach."""
    num_steps = state.num_steps + column
    at = state.prefix_length + num_steps
    start = state.prefix_length + max(0, num_steps + 1 - (reach or num_steps + 1))
    keys, values = state.caches[layer]
    keys.narrow(2, at, 1).copy_(key)
    values.narrow(2, at, 1).copy_(value)
    bias = state.prefix_bias
    return F.scaled_dot_product_attention(
        query,
        _in_reach(keys, state.prefix_length, start, at + 1),
        _in_reach(values, state.prefix_length, start, at + 1),
        attn_mask=None if bias is None else _in_reach(bias, state.prefix_length, start, at + 1, dim=3),
    )


def _cross(block: MusicGenBlock, layer: int, x: Tensor, hearing: Sequence[Span], *, is_everybody: bool) -> Tensor:
    """Let the states that have a text hear it; the rows of the others pass by untouched."""
    query = block.cross_query(x)
    heard = torch.zeros_like(query, memory_format=torch.contiguous_format)
    for span in hearing:
        keys, values = span.state.memories[layer]
        for column in range(span.num_columns):
            rows = span.rows_of(column)
            heard[rows] = F.scaled_dot_product_attention(query[rows], keys, values, attn_mask=span.state.cross_bias)
    added = block.add_cross(x, heard)
    if is_everybody:
        return added
    result = x.clone()
    for span in hearing:
        result[span.rows] = added[span.rows]
    return result


def _in_reach(cache: Tensor, prefix_length: int, start: int, stop: int, dim: int = 2) -> Tensor:
    """The prefix and the steps [start, stop) of `cache`, without a copy where they touch."""
    if start == prefix_length:
        return cache.narrow(dim, 0, stop)
    steps = cache.narrow(dim, start, stop - start)
    return steps if not prefix_length else torch.cat([cache.narrow(dim, 0, prefix_length), steps], dim)
