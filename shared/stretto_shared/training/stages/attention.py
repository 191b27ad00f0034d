"""Causal attention with a learned bias, forward and backward, for training on a CPU.

torch's own attention with a mask that takes a gradient makes whole matrices of scores for a whole batch, masked half
included, and goes over them a dozen times through memory. Here each window is attended by itself, in blocks of queries
that see no key beyond them, so that the scores stay in a core's cache; what is kept for the backward pass is the
weights alone, in the number format of the values.

Legend: B windows, H heads, L positions, E width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_BLOCK = 192


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        scale = query.shape[-1] ** -0.5
        query, key, value = ((query * scale).contiguous(), key.contiguous(), value.contiguous())
        outcome, weights = torch.empty_like(query), []
        for rows in _blocks(query.shape[2]):
            own = bias[:, rows, : rows.stop].to(query.dtype)
            for b in range(query.shape[0]):
                scores = torch.baddbmm(own, query[b, :, rows], key[b, :, : rows.stop].transpose(1, 2))
                heard = torch.softmax(scores, -1)
                outcome[b, :, rows] = torch.bmm(heard, value[b, :, : rows.stop])
                weights.append(heard)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.bias_shape = bias.shape
        return outcome

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        query, key, value, *weights = ctx.saved_tensors
        outer = gradients[0].to(value.dtype).contiguous()
        of_query = torch.empty_like(query)
        of_key, of_value = torch.zeros_like(key, dtype=torch.float32), torch.zeros_like(value, dtype=torch.float32)
        of_bias = torch.zeros(ctx.bias_shape)
        kept = iter(weights)
        for rows in _blocks(query.shape[2]):
            keys = slice(0, rows.stop)
            for b in range(query.shape[0]):
                heard = next(kept)
                of_value[b, :, keys] += torch.bmm(heard.transpose(1, 2), outer[b, :, rows])
                of_heard = torch.bmm(outer[b, :, rows], value[b, :, keys].transpose(1, 2))
                of_scores = torch._softmax_backward_data(of_heard, heard, -1, heard.dtype)
                of_bias[:, rows, keys] += of_scores
                of_query[b, :, rows] = torch.bmm(of_scores, key[b, :, keys])
                of_key[b, :, keys] += torch.bmm(of_scores.transpose(1, 2), query[b, :, rows])
        return of_query * query.shape[-1] ** -0.5, of_key.to(key.dtype), of_value.to(value.dtype), of_bias


def _blocks(length: int) -> Iterator[slice]:
    for first in range(0, length, _BLOCK):
        yield slice(first, min(first + _BLOCK, length))


def causal_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attend with queries, keys and values [B, H, L, E] and a bias [1, H, L, L] that is -inf for what lies ahead."""
    outcome: Tensor = _CausalAttention.apply(query, key, value, bias[0])  # type: ignore[no-untyped-call]
    return outcome
