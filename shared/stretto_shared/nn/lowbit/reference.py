"""`ReferenceDecoder`: an `IntegerDecoder` in torch, with the bytes of the native kernel, and far slower.

Every operation is one that IEEE arithmetic fixes (add, multiply, divide, square root, round) in an order that is
written down here and in `native/`; no reduction is left to torch but those that are exact.

Legend: as in `decoder`; S steps heard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stretto_shared.nn.lowbit.codebooks import halving_sum
from stretto_shared.nn.lowbit.decoder import DecoderLayers, DecoderRow, check_layers
from stretto_shared.nn.lowbit.linear import largest_of, quantise_rows

_MOST_WEIGHT = 16383  # of 14 bits
_LOW_PART = 128
_MOST_PLACE = 15  # of 4 bits; a place q stands for 2 q - 15
_EXP_TERMS = (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_ERFC_TERMS = (-1.453152027, 1.421413741, -0.284496736, 0.254829592)


@dataclass(frozen=True, eq=False)
class ReferenceCache:
    """Keys and values, integers as float32 [blocks, B, H, S, E], and their scales [blocks, B, H, S]."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor
    value_scales: Tensor
    bits: int

    def put(self, block: int, row: int, at: int, keys: Tensor, values: Tensor) -> None:
        """Write keys and values [n, H, E] from step `at` on."""
        steps = slice(at, at + keys.shape[0])
        for numbers, integers, scales in ((keys, self.keys, self.key_scales), (values, self.values, self.value_scales)):
            flat = numbers.flatten(0, 1)
            rounded, scale = quantise_rows(flat) if self.bits == 8 else quantise_to_four_bits(flat)
            integers[block, row, :, steps] = rounded.view(numbers.shape).transpose(0, 1)
            scales[block, row, :, steps] = scale.view(numbers.shape[:2]).t()


class ReferenceDecoder:
    """An `IntegerDecoder` by torch alone; its layers are those without a kernel, or with one, for the same bytes."""

    def __init__(self, layers: DecoderLayers) -> None:
        check_layers(layers)
        self._layers = layers

    def new_cache(self, num_rows: int, num_steps: int) -> ReferenceCache:
        layers = self._layers
        shape = (len(layers.blocks), num_rows, layers.num_heads, num_steps)
        whole = (*shape, layers.head_dim)
        keys, values, key_scales, value_scales = (torch.zeros(size) for size in (whole, whole, shape, shape))
        return ReferenceCache(keys, values, key_scales, value_scales, layers.cache_bits)

    def remember(self, cache: ReferenceCache, block: int, keys: Tensor, values: Tensor) -> None:
        cache.put(block, 0, 0, self._heads(keys), self._heads(values))

    def read(self, x: Tensor, rows: Sequence[DecoderRow[ReferenceCache]], wanted: Sequence[int]) -> Tensor:
        for index in range(len(self._layers.blocks)):
            x = self._run_block(index, x, rows)
        layers = self._layers
        logits: Tensor = layers.heads(layer_norm(x[list(wanted)], layers.norm))
        return logits

    def _run_block(self, index: int, x: Tensor, rows: Sequence[DecoderRow[ReferenceCache]]) -> Tensor:
        block = self._layers.blocks[index]
        query, key, value = (self._heads(part) for part in block.qkv(layer_norm(x, block.norm_self)).chunk(3, dim=1))
        for n, row in enumerate(rows):
            row.cache.put(index, row.row, row.at, key[n : n + 1], value[n : n + 1])
        heard = [self._attend_to_cache(query[n], row, index) for n, row in enumerate(rows)]
        x = x + block.self_out(torch.stack(heard).flatten(1))
        hearing = [n for n, row in enumerate(rows) if row.memory is not None]
        if hearing and block.norm_cross is not None and block.cross_q is not None and block.cross_out is not None:
            query = self._heads(block.cross_q(layer_norm(x[hearing], block.norm_cross)))
            heard = [self._attend_to_memory(each, rows[n], index) for n, each in zip(hearing, query)]
            x = x.index_add(0, torch.tensor(hearing), block.cross_out(torch.stack(heard).flatten(1)))
        hidden = gelu(block.ffn_in(layer_norm(x, block.norm_ffn)))
        moved: Tensor = x + block.ffn_out(hidden)
        return moved

    def _attend_to_cache(self, query: Tensor, row: DecoderRow[ReferenceCache], block: int) -> Tensor:
        steps = [*range(row.prefix), *range(row.start, row.at + 1)]
        return self._attend(query, row.cache, block, row.row, steps)

    def _attend_to_memory(self, query: Tensor, row: DecoderRow[ReferenceCache], block: int) -> Tensor:
        if row.memory is None:
            raise ValueError("expected a row with a memory.")
        return self._attend(query, row.memory, block, 0, list(range(row.memory_length)))

    def _attend(self, query: Tensor, cache: ReferenceCache, block: int, row: int, steps: list[int]) -> Tensor:
        """What the query [H, E] hears of `steps`: [H, E]."""
        integers, query_scale = quantise_rows(query)
        keys, values = cache.keys[block, row][:, steps], cache.values[block, row][:, steps]  # [H, S, E]
        dots = (keys * integers[:, None]).sum(-1)  # exact: below 2^24
        scale = torch.full_like(query_scale, self._layers.head_dim**-0.5)
        scores = dots * cache.key_scales[block, row][:, steps] * (query_scale * scale)
        weights = exponential(scores - scores.amax(1, keepdim=True))  # [H, S]
        total = halving_sum(weights)
        weights = weights * cache.value_scales[block, row][:, steps]
        return mixed(weights, values) / total[:, None]

    def _heads(self, x: Tensor) -> Tensor:
        """[N, D] as [N, H, E]."""
        return x.reshape(x.shape[0], self._layers.num_heads, -1)


def quantise_to_four_bits(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Odd integers from -15 to 15 [B, K], as float32, and scales [B, 1] of float32 rows [B, K]."""
    largest, is_heard, of_silence = largest_of(rows)
    half = torch.full_like(largest, _MOST_PLACE / 2)
    places = (rows * (half / largest) + half).round().clamp(0, _MOST_PLACE)
    scales = torch.where(is_heard, largest / (2 * half), of_silence)
    return torch.where(is_heard, 2 * places - _MOST_PLACE, -_MOST_PLACE), scales


def mixed(weights: Tensor, values: Tensor) -> Tensor:
    """Sum weights [H, S] times integers [H, S, E] over S, the weights as integers of 14 bits: [H, E]."""
    integers, unit = quantise_rows(weights, _MOST_WEIGHT)
    high = (integers / _LOW_PART).floor()
    upper, lower = (
        (part.double()[..., None] * values.double()).sum(1).float() for part in (high, integers - _LOW_PART * high)
    )
    return (upper * _single(_LOW_PART, values) + lower) * unit


def exponential(x: Tensor) -> Tensor:
    """Compute e^x for x of at most 0, as `exp_of` in `native/numerics.hpp`."""
    x = x.clamp(min=-87.0)
    n = (x * _single(1.44269504, x)).round()
    r = (x - n * _single(0.693359375, x)) - n * _single(-2.12194440e-4, x)
    p = torch.full_like(x, 1.9875691500e-4)
    for term in _EXP_TERMS:
        p = p * r + _single(term, x)
    p = (p * r * r + r) + 1.0
    return p * ((n.to(torch.int32) + 127) << 23).view(torch.float32)


def gelu(x: Tensor) -> Tensor:
    """GELU by the complementary error function, as `gelu_of` in `native/numerics.hpp`."""
    magnitude = x.abs()
    z = magnitude * _single(math.sqrt(0.5), x)
    t = torch.ones_like(x) / (1.0 + _single(0.3275911, x) * z)
    p = torch.full_like(x, 1.061405429)
    for term in _ERFC_TERMS:
        p = p * t + _single(term, x)
    tail = 0.5 * magnitude * (p * t * exponential(-(z * z)))
    return torch.where(x < 0, -tail, x - tail)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Layer norm of rows [N, D], as `layer_norm` in `native/numerics.hpp`."""
    count = _single(x.shape[-1], x)
    centred = x - (halving_sum(x) / count)[:, None]
    variance = halving_sum(centred * centred) / count + _single(norm.eps, x)
    root = torch.from_numpy(np.sqrt(variance.numpy()))  # rounded as IEEE says, which torch's own is not everywhere
    inverse = torch.ones_like(variance) / root
    scaled: Tensor = centred * inverse[:, None] * norm.weight
    return scaled + norm.bias


def _single(number: float, like: Tensor) -> Tensor:
    """A number in single precision, as a tensor: torch may rearrange what is done with plain numbers."""
    return torch.tensor(number, dtype=torch.float32, device=like.device)
