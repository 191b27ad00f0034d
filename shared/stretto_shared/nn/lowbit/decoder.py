"""A transformer decoder whose weights, rows and caches are integers: one pass for rows of many requests.

`NativeDecoder` runs a pass in one call of the native kernel; `reference.ReferenceDecoder` is the same arithmetic in
torch, slow, for machines without it. Both give the same bytes (`tests/shared/nn/test_lowbit_decoder.py`), and a row's
bytes depend on its own request alone: products are those of `linear`, and attention is computed for each row and head
by itself, over keys and values of eight or four bits with a scale for each step and head. Norms, softmax, GELU and
residuals are float32, each with the one order of roundings that `native/numerics.hpp` and `native/attention.hpp` state.

Blocks are pre-norm without biases in their matrices: self-attention, attention to a memory where a block has it, a GELU
feed-forward layer. Positions, embeddings and masks are the caller's. Knows nothing of requests and sampling.

Legend: N rows of a pass, M rows whose logits are wanted, B rows of a cache, D width, H heads, E width of a head,
V outputs of the heads.
"""

from __future__ import annotations

import ctypes
import math
import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from stretto_shared.nn.heap import HugePages, SpareRoom
from stretto_shared.nn.lowbit.kernel import NativeKernel
from stretto_shared.nn.lowbit.linear import LowBitLinear

ARITHMETIC = "lowbit-3"
"""What is computed, to the bit; a change of bytes changes this name, and with it the identity of models served so."""
Cache = TypeVar("Cache")
_PANEL_STEPS = 16
_LANES = 16
_SCALE_BYTES = 8  # of a key and of a value
_ROW = struct.Struct("=QqqqqqQqqq")  # `Row` in `native/decoder.hpp`


@dataclass(frozen=True, eq=False)
class DecoderBlock:
    """The layers of one block; `norm_cross`, `cross_q` and `cross_out` are None where it hears no memory."""

    norm_self: nn.LayerNorm
    qkv: LowBitLinear
    self_out: LowBitLinear
    norm_ffn: nn.LayerNorm
    ffn_in: LowBitLinear
    ffn_out: LowBitLinear
    norm_cross: nn.LayerNorm | None = None
    cross_q: LowBitLinear | None = None
    cross_out: LowBitLinear | None = None


@dataclass(frozen=True, eq=False)
class DecoderLayers:
    """A whole decoder: its blocks, the norm after them, and the heads; keys and values are held in 8 or 4 bits."""

    blocks: Sequence[DecoderBlock]
    norm: nn.LayerNorm
    heads: LowBitLinear
    num_heads: int
    cache_bits: int = 8

    @property
    def dim(self) -> int:
        return self.heads.in_features

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    def matrices(self) -> list[LowBitLinear]:
        """Every matrix, in the order in which they are read."""
        found = [
            matrix
            for block in self.blocks
            for matrix in (block.qkv, block.self_out, block.cross_q, block.cross_out, block.ffn_in, block.ffn_out)
        ]
        return [matrix for matrix in (*found, self.heads) if matrix is not None]

    def norms(self) -> list[nn.LayerNorm]:
        """Every layer norm, in the order in which they are used."""
        found = [norm for block in self.blocks for norm in (block.norm_self, block.norm_cross, block.norm_ffn)]
        return [norm for norm in (*found, self.norm) if norm is not None]


@dataclass(eq=False, slots=True)  # not frozen, which makes many of them slowly
class DecoderRow(Generic[Cache]):
    """One row of a pass.

    Args:
        cache: Of its request, and `row`, its row there.
        at: The step that this row is; its key and value are written there.
        prefix: It hears steps [0, prefix) ...
        start: ... and [start, at].
        memory: A cache of one row that it hears as well, of which the first `memory_length` steps; None for none.
    """

    cache: Cache
    row: int
    at: int
    prefix: int
    start: int
    memory: Cache | None = None
    memory_length: int = 0


class IntegerDecoder(Protocol[Cache]):
    """What `NativeDecoder` and `ReferenceDecoder` do."""

    def new_cache(self, num_rows: int, num_steps: int) -> Cache:
        """Room for the keys and values of `num_rows` rows and so many steps, in every block."""
        ...

    def remember(self, cache: Cache, block: int, keys: Tensor, values: Tensor) -> None:
        """Write keys and values [n, D] as the first steps of the one row of a memory."""
        ...

    def read(self, x: Tensor, rows: Sequence[DecoderRow[Cache]], wanted: Sequence[int]) -> Tensor:
        """Run rows [N, D], float32, whose keys and values go to their caches; the rows of a request stand in order.

        Returns:
            Logits [M, V] of the rows `wanted`. `x` is not kept.
        """
        ...


def cache_bytes(
    num_blocks: int, num_rows: int, num_steps: int, *, num_heads: int, head_dim: int, cache_bits: int = 8
) -> int:
    """Bytes that a cache takes: keys and values, and two scales for each step and head."""
    return num_blocks * num_rows * num_heads * _padded(num_steps, _PANEL_STEPS) * _bytes_per_step(head_dim, cache_bits)


class NativeCache:
    """Stores as `native/attention.hpp` lays them out.

    Args:
        stores: Bytes [blocks, B, H * store], which nobody moves.
        capacity: Steps that each store has room for.
    """

    def __init__(self, stores: Tensor, capacity: int) -> None:
        self.stores = stores
        self.capacity = capacity
        self.first = stores.data_ptr()
        self.block_bytes = stores.stride(0)
        self.row_bytes = stores.stride(1)

    def address(self, block: int, row: int) -> int:
        return self.first + block * self.block_bytes + row * self.row_bytes


class NativeDecoder:
    """An `IntegerDecoder` by the native kernel.

    Args:
        layers: Made with `kernel`, norms in float32 with weights and biases.
        kernel: The native kernel.
        kept_bytes: Caches that nobody holds any more stay for new ones, as long as all take no more than this.
    """

    def __init__(self, layers: DecoderLayers, kernel: NativeKernel, *, kept_bytes: int = 0) -> None:
        check_layers(layers)
        self._room = SpareRoom(kept_bytes)
        _move_together(layers.matrices())
        self._layers = layers
        self._kernel = kernel
        self._blocks = (_Block * len(layers.blocks))(*(_block(block) for block in layers.blocks))
        self._decoder = _Decoder(
            layers.dim,
            layers.num_heads,
            len(layers.blocks),
            ctypes.cast(self._blocks, ctypes.c_void_p),
            _norm(layers.norm),
            _matrix(layers.heads),
            layers.norm.eps,
            layers.head_dim**-0.5,
            layers.cache_bits,
        )

    def new_cache(self, num_rows: int, num_steps: int) -> NativeCache:
        capacity = _padded(num_steps, _PANEL_STEPS)
        num_bytes = self._layers.num_heads * capacity * _bytes_per_step(self._layers.head_dim, self._layers.cache_bits)
        shape = (len(self._layers.blocks), num_rows, num_bytes)
        room = self._room.zeros(math.prod(shape))
        cache = NativeCache(room.view(shape), capacity)
        weakref.finalize(cache, self._room.give_back, room)
        return cache

    def remember(self, cache: NativeCache, block: int, keys: Tensor, values: Tensor) -> None:
        layers = self._layers
        store = cache.address(block, 0)
        self._kernel.remember(
            store, cache.capacity, layers.cache_bits, layers.num_heads, layers.head_dim, 0, keys, values
        )

    def read(self, x: Tensor, rows: Sequence[DecoderRow[NativeCache]], wanted: Sequence[int]) -> Tensor:
        logits = torch.empty((len(wanted), self._layers.heads.out_features))
        if rows:
            self._kernel.decode(
                self._decoder,
                x.contiguous(),
                b"".join(map(_row, rows)),
                struct.pack(f"={len(wanted)}i", *wanted),
                logits,
            )
        return logits


def check_layers(layers: DecoderLayers) -> None:
    """Refuse what a decoder cannot compute.

    Raises:
        ValueError: If a norm has no weight or bias, is not float32, or has another eps than the last one, or caches
            are of neither 8 nor 4 bits.
    """
    if layers.cache_bits not in (8, 4):
        raise ValueError(f"expected cache_bits of 8 or 4, got {layers.cache_bits}.")
    for norm in layers.norms():
        if norm.weight is None or norm.bias is None or norm.weight.dtype != torch.float32:
            raise ValueError(f"expected layer norms in float32 with weight and bias, got {norm}.")
        if norm.eps != layers.norm.eps:
            raise ValueError(f"expected one eps for all layer norms, got {norm.eps} and {layers.norm.eps}.")


def _move_together(matrices: Sequence[LowBitLinear]) -> None:
    """Lay what the kernel reads of the matrices side by side on huge pages, in order; those that lie so stay there.

    A pass reads all of it once, and what it asks of the memory ahead comes later where pages have to be looked up.
    """
    moving = [matrix for matrix in matrices if not matrix.is_moved]
    pages = HugePages(sum(matrix.moved_bytes for matrix in moving))
    for matrix in moving:
        matrix.move_to(pages)


def _padded(size: int, to: int) -> int:
    return -(-size // to) * to


def _bytes_per_step(head_dim: int, cache_bits: int) -> int:
    return 2 * _padded(head_dim, _LANES * 8 // cache_bits) * cache_bits // 8 + _SCALE_BYTES


class _Norm(ctypes.Structure):
    _fields_ = (("scale", ctypes.c_void_p), ("shift", ctypes.c_void_p))


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("books", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
    )


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, _Norm) for name in ("norm_self", "norm_cross", "norm_ffn")),
        *((name, _Matrix) for name in ("qkv", "self_out", "cross_q", "cross_out", "ffn_in", "ffn_out")),
    )


class _Decoder(ctypes.Structure):
    _fields_ = (
        ("width", ctypes.c_int64),
        ("num_heads", ctypes.c_int64),
        ("num_blocks", ctypes.c_int64),
        ("blocks", ctypes.c_void_p),
        ("norm", _Norm),
        ("heads", _Matrix),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("cache_bits", ctypes.c_int64),
    )


def _block(block: DecoderBlock) -> Any:
    matrices = (block.qkv, block.self_out, block.cross_q, block.cross_out, block.ffn_in, block.ffn_out)
    return _Block(*map(_norm, (block.norm_self, block.norm_cross, block.norm_ffn)), *map(_matrix, matrices))


def _norm(norm: nn.LayerNorm | None) -> Any:
    return _Norm() if norm is None else _Norm(norm.weight.data_ptr(), norm.bias.data_ptr())


def _matrix(layer: LowBitLinear | None) -> Any:
    if layer is None:
        return _Matrix()
    if layer.panels is None:
        raise ValueError(f"expected a layer of the native kernel, got {layer}.")
    weights, books, scales = layer.panels
    return _Matrix(
        weights.data_ptr(),
        None if books is None else books.data_ptr(),
        scales.data_ptr(),
        layer.in_features,
        layer.out_features,
    )


def _row(row: DecoderRow[NativeCache]) -> bytes:
    cache, memory = row.cache, row.memory
    first = cache.address(0, row.row)
    if memory is None:
        return _ROW.pack(first, cache.capacity, cache.block_bytes, row.at, row.prefix, row.start, 0, 0, 0, 0)
    return _ROW.pack(
        first,
        cache.capacity,
        cache.block_bytes,
        row.at,
        row.prefix,
        row.start,
        memory.first,
        memory.capacity,
        memory.block_bytes,
        row.memory_length,
    )
