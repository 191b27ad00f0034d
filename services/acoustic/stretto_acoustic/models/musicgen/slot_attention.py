"""Attention of one query a row over the entries of its slot that it hears: two Triton kernels, for a GPU.

The entries are cut into chunks, which are computed beside each other and then put together in their order. A chunk of
which a row hears nothing is not read, so that a short piece in a long slot costs what it uses, and one piece alone
still fills the GPU. The launch is the same whatever is heard, as a CUDA graph needs; what a program reads follows its
own row's numbers only, so a row's bytes are its own. The entry that a step adds is written by the program of its chunk,
which takes it from the registers: nobody reads it in the same pass. Flash-Decoding (Dao et al., 2023) with a fixed cut.
Where these kernels do not run, `fixed_pass` uses torch's attention with a mask.

Legend: R rows, H heads, S entries, E width of a head, C chunks.
"""

from __future__ import annotations

from functools import cache

import structlog
import torch
import triton
import triton.language as tl
from torch import Tensor

_CHUNK, _BLOCK = 128, 64
_LOG2_E = 1.4426950408889634
_log = structlog.get_logger(__name__)


# Triton reads the annotations of a kernel as code: no names but its own may stand there.
@triton.jit  # type: ignore[untyped-decorator]
def _hear_chunk(  # type: ignore[no-untyped-def]
    q,
    new_k,
    new_v,
    k,
    v,
    part,
    stats,
    first,
    last,
    prefix,
    q_row,
    q_head,
    kv_row,
    scale,
    H: tl.constexpr,
    S: tl.constexpr,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
    WRITES: tl.constexpr,
):
    """The unnormalised outcome [E], the largest score and the sum of weights of one chunk, one head and one row."""
    pair = tl.program_id(0)
    c = tl.program_id(1)
    row = pair // H
    head = pair % H
    lo = tl.load(first + row)
    hi = tl.load(last + row)
    pre = tl.load(prefix + row)
    e = tl.arange(0, E)
    at_query = row * q_row + head * q_head + e
    query = tl.load(q + at_query).to(tl.float32) * scale
    keys = k + row.to(tl.int64) * kv_row + head * (S * E)
    values = v + row.to(tl.int64) * kv_row + head * (S * E)
    best = tl.full([], -float("inf"), tl.float32)
    total = tl.full([], 0.0, tl.float32)
    acc = tl.zeros([E], dtype=tl.float32)
    for at in tl.static_range(0, CHUNK, BLOCK):
        start = c * CHUNK + at
        if ((start <= hi) & (start + BLOCK > lo)) | (start < pre):
            i = start + tl.arange(0, BLOCK)
            heard = (((i >= lo) & (i <= hi)) | (i < pre)) & (i < S)
            there = heard
            if WRITES:
                there = heard & (i != hi)
            kk = tl.load(keys + i[:, None] * E + e[None, :], mask=there[:, None], other=0.0).to(tl.float32)
            vv = tl.load(values + i[:, None] * E + e[None, :], mask=there[:, None], other=0.0).to(tl.float32)
            if WRITES:
                own_key = tl.load(new_k + at_query)
                own_value = tl.load(new_v + at_query)
                is_own = (i == hi)[:, None]
                kk = tl.where(is_own, own_key.to(tl.float32)[None, :], kk)
                vv = tl.where(is_own, own_value.to(tl.float32)[None, :], vv)
                is_here = (e >= 0) & (hi >= start) & (hi < start + BLOCK)
                tl.store(keys + hi * E + e, own_key, mask=is_here)
                tl.store(values + hi * E + e, own_value, mask=is_here)
            s = tl.where(heard, tl.sum(kk * query[None, :], axis=1), -float("inf"))
            new = tl.maximum(best, tl.max(s, axis=0))
            base = tl.where(new == -float("inf"), 0.0, new)
            p = tl.exp2(s - base)
            decay = tl.exp2(best - base)
            total = total * decay + tl.sum(p, axis=0)
            acc = acc * decay + tl.sum(p[:, None] * vv, axis=0)
            best = new
    at_part = pair * C + c
    tl.store(part + at_part * E + e, acc)
    tl.store(stats + at_part * 2, best)
    tl.store(stats + at_part * 2 + 1, total)


@triton.jit  # type: ignore[untyped-decorator]
def _put_together(  # type: ignore[no-untyped-def]
    part, stats, out, E: tl.constexpr, C: tl.constexpr, POWER: tl.constexpr
):
    """The outcome [E] of one head and one row, from its chunks in their order."""
    pair = tl.program_id(0)
    c = tl.arange(0, POWER)
    e = tl.arange(0, E)
    there = c < C
    best = tl.load(stats + (pair * C + c) * 2, mask=there, other=-float("inf"))
    total = tl.load(stats + (pair * C + c) * 2 + 1, mask=there, other=0.0)
    weight = tl.exp2(best - tl.max(best, axis=0))
    acc = tl.load(part + (pair * C + c[:, None]) * E + e[None, :], mask=there[:, None], other=0.0)
    value = tl.sum(acc * weight[:, None], axis=0) / tl.sum(total * weight, axis=0)
    tl.store(out + pair * E + e, value.to(out.dtype.element_ty))


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    first: Tensor,
    last: Tensor,
    num_prefix: Tensor,
    new: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Attention's outcome [R, H, 1, E] in float32 arithmetic.

    Args:
        query: [R, H, 1, E].
        keys: [R, H, S, E], a row's entries in one piece of memory.
        values: Like the keys.
        first: The first entry that each row hears [R].
        last: The last one [R], at least as large.
        num_prefix: It hears so many at the beginning besides [R], none of them `last`.
        new: A key and a value for each row, laid out like the query: they become its entry `last`. None: it is there.
    """
    num_rows, num_heads, _, width = query.shape
    num_entries = keys.shape[2]
    num_chunks = -(-num_entries // _CHUNK)
    pairs = num_rows * num_heads
    _check_layout(query, keys, values, new)
    part = torch.empty((pairs, num_chunks, width), dtype=torch.float32, device=query.device)
    stats = torch.empty((pairs, num_chunks, 2), dtype=torch.float32, device=query.device)
    out = torch.empty((num_rows, num_heads, 1, width), dtype=query.dtype, device=query.device)
    _hear_chunk[(pairs, num_chunks)](
        *(query, *(new or (query, query)), keys, values, part, stats, first, last, num_prefix),
        *(query.stride(0), query.stride(1), keys.stride(0), width**-0.5 * _LOG2_E),
        *(num_heads, num_entries, width, _CHUNK, _BLOCK, num_chunks, new is not None),
        num_warps=4,
    )
    _put_together[(pairs,)](part, stats, out, width, num_chunks, triton.next_power_of_2(num_chunks), num_warps=1)
    return out


@cache
def runs_on(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether the kernels can be built and started here; what hinders them (a compiler that lacks) is logged."""
    query = torch.ones((1, 1, 1, width), dtype=dtype, device=device)
    entry = torch.zeros((1,), dtype=torch.int64, device=device)
    try:
        keys, values = torch.zeros_like(query), torch.zeros_like(query)
        heard = attend(query, keys, values, entry, entry, entry, (query, query))
    except Exception as error:
        _log.warning("attention_under_a_mask", reason=f"Triton's kernels do not run on {device}: {error}")
        return False
    return bool((heard == 1).all())


def _check_layout(query: Tensor, keys: Tensor, values: Tensor, new: tuple[Tensor, Tensor] | None) -> None:
    num_entries, width = keys.shape[2:]
    if keys.stride()[1:] != (num_entries * width, width, 1) or values.stride() != keys.stride():
        raise ValueError(f"expected the entries of a row in one piece, got strides {keys.stride()}.")
    if query.stride(3) != 1 or any(each.stride() != query.stride() for each in new or ()):
        raise ValueError(f"expected new entries laid out like the query, whose strides are {query.stride()}.")
