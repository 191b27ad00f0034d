"""The integer decoder: the kernel and torch agree to the bit, rows are their own, and results are near float32's."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_shared.nn.heap import HugePages
from stretto_shared.nn.lowbit import (
    DecoderBlock,
    DecoderLayers,
    DecoderRow,
    LowBitLinear,
    NativeDecoder,
    NativeKernel,
    ReferenceDecoder,
    cache_bytes,
    quantise_int4,
    quantise_int8,
)
from stretto_shared.nn.lowbit.reference import (
    exponential,
    gelu,
    halving_sum,
    layer_norm,
    mixed,
    quantise_to_four_bits,
)
from torch import Tensor, nn
from torch.nn import functional as F

FORMATS = {"int8": quantise_int8, "int4": quantise_int4}
CACHE_BITS = pytest.mark.parametrize("cache_bits", [8, 4])


@dataclass(frozen=True)
class Shape:
    """Of a small decoder: awkward sizes, with and without a memory."""

    dim: int
    num_heads: int
    hidden: int
    num_outputs: int
    has_memory: bool


SHAPES = (
    Shape(64, 2, 128, 70, True),
    Shape(48, 4, 96, 33, True),  # heads narrower than a lane, inputs no multiple of a tile
    Shape(160, 2, 64, 64, False),  # heads of five lanes
)


@pytest.fixture(scope="module")
def kernel(native_kernel: NativeKernel) -> NativeKernel:
    return native_kernel


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@functools.lru_cache
def floats_of(shape: Shape) -> dict[str, Tensor]:
    """The weights of two blocks and the heads, by name."""
    layers = {
        "qkv": (3 * shape.dim, shape.dim),
        "self_out": (shape.dim, shape.dim),
        "cross_q": (shape.dim, shape.dim),
        "cross_out": (shape.dim, shape.dim),
        "ffn_in": (shape.hidden, shape.dim),
        "ffn_out": (shape.dim, shape.hidden),
    }
    found = {
        f"{block}.{name}": randn(*size, seed=block * 10 + at) / size[1] ** 0.5
        for block in range(2)
        for at, (name, size) in enumerate(layers.items())
    }
    return found | {"heads": randn(shape.num_outputs, shape.dim, seed=99) / shape.dim**0.5}


@functools.lru_cache
def norm_of(dim: int, seed: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(dim).requires_grad_(False)
    norm.weight.copy_(1 + randn(dim, seed=seed) / 4)
    norm.bias.copy_(randn(dim, seed=seed + 1) / 4)
    return norm


@functools.lru_cache
def layers_of(shape: Shape, weight_format: str, kernel: NativeKernel | None, cache_bits: int = 8) -> DecoderLayers:
    made = {name: LowBitLinear(FORMATS[weight_format](w), kernel) for name, w in floats_of(shape).items()}
    blocks = []
    for block in range(2):
        own = {name.partition(".")[2]: layer for name, layer in made.items() if name.startswith(f"{block}.")}
        norm_cross = norm_of(shape.dim, 7 * block + 2)
        blocks.append(
            DecoderBlock(
                norm_of(shape.dim, 7 * block),
                own["qkv"],
                own["self_out"],
                norm_of(shape.dim, 7 * block + 1),
                own["ffn_in"],
                own["ffn_out"],
                norm_cross if shape.has_memory else None,
                own["cross_q"] if shape.has_memory else None,
                own["cross_out"] if shape.has_memory else None,
            )
        )
    return DecoderLayers(blocks, norm_of(shape.dim, 50), made["heads"], shape.num_heads, cache_bits)


@dataclass(frozen=True)
class Piece:
    """One request: rows of its own loudness, how many, what they hear, and how its steps are cut into passes."""

    seed: int
    num_steps: int
    prefix: int
    reach: int
    memory_length: int
    cuts: tuple[int, ...]


pieces = st.builds(
    Piece,
    seed=st.integers(0, 1000),
    num_steps=st.integers(1, 36),
    prefix=st.integers(0, 20),
    reach=st.sampled_from([1, 3, 17, 100]),
    memory_length=st.integers(0, 18),
    cuts=st.lists(st.integers(1, 20), max_size=4).map(tuple),
)


class Run:
    """A piece on a decoder: feeds its next rows, a prefix first, and keeps the logits."""

    def __init__(self, decoder: Any, shape: Shape, piece: Piece) -> None:
        self._piece = piece
        self._cache = decoder.new_cache(1, piece.prefix + piece.num_steps)
        self._memory = None
        if shape.has_memory and piece.memory_length:
            self._memory = decoder.new_cache(1, piece.memory_length)
            for block in range(2):
                numbers = randn(2, piece.memory_length, shape.dim, seed=piece.seed + block)
                decoder.remember(self._memory, block, numbers[0], numbers[1])
        loudness = 10.0 ** (piece.seed % 5 - 2)
        self.x = loudness * randn(piece.prefix + piece.num_steps, shape.dim, seed=piece.seed)
        self.done = 0
        self.logits: list[Tensor] = []

    @property
    def num_left(self) -> int:
        return len(self.x) - self.done

    def rows(self, count: int) -> list[DecoderRow[Any]]:
        prefix = self._piece.prefix
        rows = []
        for at in range(self.done, self.done + count):
            is_step = at >= prefix
            start = max(prefix, at + 1 - self._piece.reach) if is_step else 0
            heard = prefix if is_step else 0
            length = self._piece.memory_length if self._memory is not None else 0
            rows.append(DecoderRow(self._cache, 0, at, heard, start, self._memory, length))
        return rows


def read_together(decoder: Any, runs: list[Run], counts: list[int]) -> None:
    """One pass of so many rows of each run."""
    rows = [row for run, count in zip(runs, counts) for row in run.rows(count)]
    x = torch.cat([run.x[run.done : run.done + count] for run, count in zip(runs, counts)])
    logits = decoder.read(x.clone(), rows, list(range(len(rows))))
    at = 0
    for run, count in zip(runs, counts):
        run.logits += list(logits[at : at + count])
        run.done += count
        at += count


def alone(decoder: Any, shape: Shape, piece: Piece) -> Tensor:
    """Logits of a piece, row by row, with nobody beside it."""
    run = Run(decoder, shape, piece)
    while run.num_left:
        read_together(decoder, [run], [1])
    return torch.stack(run.logits)


def together(decoder: Any, shape: Shape, together_pieces: list[Piece]) -> list[Tensor]:
    """Logits of pieces that share passes, each cut as it says."""
    runs = [Run(decoder, shape, piece) for piece in together_pieces]
    turn = 0
    while any(run.num_left for run in runs):
        alive = [(run, piece.cuts) for run, piece in zip(runs, together_pieces) if run.num_left]
        counts = [min(run.num_left, cuts[turn % len(cuts)] if cuts else 1) for run, cuts in alive]
        read_together(decoder, [run for run, _ in alive], counts)
        turn += 1
    return [torch.stack(run.logits) for run in runs]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("weight_format", "cache_bits"), [("int8", 8), ("int4", 8), ("int4", 4)])
@settings(max_examples=8, deadline=None)
@given(several=st.lists(pieces, min_size=1, max_size=4), has_tiles=st.booleans())
def test_the_kernel_gives_the_bytes_of_the_reference_in_any_company(
    kernel: NativeKernel, shape: Shape, weight_format: str, cache_bits: int, several: list[Piece], has_tiles: bool
) -> None:
    native = NativeDecoder(layers_of(shape, weight_format, kernel, cache_bits), kernel)
    reference = ReferenceDecoder(layers_of(shape, weight_format, None, cache_bits))
    kernel.use_tiles(has_tiles)
    for piece, logits in zip(several, together(native, shape, several)):
        assert torch.equal(logits, alone(reference, shape, piece))
    kernel.use_tiles(True)


@CACHE_BITS
def test_a_window_that_begins_within_four_steps_of_the_prefix_hears_each_step_once(
    kernel: NativeKernel, cache_bits: int
) -> None:
    shape = SHAPES[1]
    native = NativeDecoder(layers_of(shape, "int4", kernel, cache_bits), kernel)
    reference = ReferenceDecoder(layers_of(shape, "int4", None, cache_bits))
    for piece in (Piece(1, 20, 6, 5, 7, ()), Piece(2, 9, 7, 100, 0, ()), Piece(3, 30, 3, 2, 0, ())):
        assert torch.equal(alone(native, shape, piece), alone(reference, shape, piece))


@pytest.mark.parametrize("weight_format", FORMATS)
@CACHE_BITS
@settings(max_examples=8, deadline=None)
@given(several=st.lists(pieces, min_size=2, max_size=3))
def test_the_reference_too_gives_a_row_its_own_bytes_in_any_company(
    weight_format: str, cache_bits: int, several: list[Piece]
) -> None:
    reference = ReferenceDecoder(layers_of(SHAPES[0], weight_format, None, cache_bits))
    for piece, logits in zip(several, together(reference, SHAPES[0], several)):
        assert torch.equal(logits, alone(reference, SHAPES[0], piece))


@CACHE_BITS
def test_threads_change_no_byte(kernel: NativeKernel, cache_bits: int) -> None:
    decoder = NativeDecoder(layers_of(SHAPES[0], "int4", kernel, cache_bits), kernel)
    several = [Piece(seed, 30, seed, 100, 3 * seed, (7,)) for seed in range(4)]
    threads, found = torch.get_num_threads(), []
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        found.append(torch.cat(together(decoder, SHAPES[0], several)))
    torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def by_floats(shape: Shape, piece: Piece) -> Tensor:
    """The same decoder by torch in float64, the weights unrounded."""
    weights = {name: weight.double() for name, weight in floats_of(shape).items()}
    run = Run(ReferenceDecoder(layers_of(shape, "int8", None)), shape, piece)
    x = run.x.double()
    size = len(x)
    steps = torch.arange(size)
    is_heard = (steps[None] <= steps[:, None]) & (
        (steps[None] < piece.prefix) | (steps[None] > steps[:, None] - piece.reach) | (steps[:, None] < piece.prefix)
    )

    def heads(y: Tensor) -> Tensor:
        return y.view(len(y), shape.num_heads, -1).transpose(0, 1)

    def attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        heard = F.scaled_dot_product_attention(heads(query), heads(keys), heads(values), attn_mask=mask)
        return heard.transpose(0, 1).flatten(1)

    def norm(y: Tensor, seed: int) -> Tensor:
        one = norm_of(shape.dim, seed)
        return F.layer_norm(y, (shape.dim,), one.weight.double(), one.bias.double(), one.eps)

    for block in range(2):
        own = {name.partition(".")[2]: w.t() for name, w in weights.items() if name.startswith(f"{block}.")}
        query, key, value = (norm(x, 7 * block) @ own["qkv"]).chunk(3, dim=1)
        x = x + attention(query, key, value, is_heard) @ own["self_out"]
        if shape.has_memory and piece.memory_length:
            numbers = randn(2, piece.memory_length, shape.dim, seed=piece.seed + block).double()
            query = norm(x, 7 * block + 2) @ own["cross_q"]
            x = x + attention(query, numbers[0], numbers[1], None) @ own["cross_out"]
        x = x + F.gelu(norm(x, 7 * block + 1) @ own["ffn_in"]) @ own["ffn_out"]
    return norm(x, 50) @ weights["heads"].t()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "piece", [Piece(2, 40, 0, 100, 9, ()), Piece(7, 30, 12, 5, 0, ()), Piece(12, 40, 3, 100, 1, ())]
)
def test_results_are_near_those_of_the_same_decoder_in_float64(shape: Shape, piece: Piece) -> None:
    exact = by_floats(shape, piece)
    for weight_format, cache_bits, most in (("int8", 8, 0.03), ("int8", 4, 0.12), ("int4", 8, 0.25), ("int4", 4, 0.3)):
        found = alone(ReferenceDecoder(layers_of(shape, weight_format, None, cache_bits)), shape, piece)
        assert 0 < (found - exact).norm() / exact.norm() < most


def test_numbers_of_four_bits_are_the_nearest_odd_fifteenths_of_the_largest() -> None:
    rows = torch.stack([torch.linspace(-3, 3, 33), torch.zeros(33), torch.full((33,), float("inf"))])
    integers, scales = quantise_to_four_bits(rows)
    assert integers[0].unique().tolist() == list(range(-15, 16, 2))
    assert ((integers[0] * scales[0] - rows[0]).abs() <= scales[0] * 1.0001).all()
    assert (integers[1] * scales[1]).abs().max() == 0 and scales[2].isnan().all()


def test_what_is_heard_is_a_mean_by_weights_of_fourteen_bits() -> None:
    weights, values = randn(3, 40, seed=4).exp(), randn(3, 40, 5, seed=5).mul(60).round()
    exact = (weights.double()[..., None] * values.double()).sum(1)
    bound = weights.amax(1) / 16383 / 2 * values.abs().sum(1).amax(1)
    error = (mixed(weights, values) - exact).abs().amax(1)
    assert (0 < error).all() and (error <= bound * 1.01).all()
    assert mixed(torch.zeros(1, 4), torch.ones(1, 4, 2)).tolist() == [[0, 0]]


def test_the_parts_are_what_they_are_called() -> None:
    x = torch.cat([torch.linspace(-86, 0, 5000), torch.zeros(1)])
    assert torch.allclose(exponential(x), x.double().exp().float(), rtol=3e-7)
    y = torch.linspace(-9, 9, 5000)
    assert (gelu(y) - F.gelu(y.double())).abs().max() < 1e-6
    rows = randn(3, 100, seed=1)
    assert torch.allclose(halving_sum(rows), rows.sum(1), atol=1e-5)
    assert torch.allclose(layer_norm(rows, norm_of(100, 3)), norm_of(100, 3)(rows), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cache_takes_the_bytes_that_it_says(kernel: NativeKernel, shape: Shape) -> None:
    sizes = {}
    for cache_bits in (8, 4):
        decoder = NativeDecoder(layers_of(shape, "int8", kernel, cache_bits), kernel)
        sizes[cache_bits] = decoder.new_cache(2, 17).stores.nbytes
        assert sizes[cache_bits] == cache_bytes(
            2, 2, 17, num_heads=shape.num_heads, head_dim=shape.dim // shape.num_heads, cache_bits=cache_bits
        )
    assert sizes[4] <= sizes[8]


@CACHE_BITS
def test_a_cache_that_another_piece_has_used_changes_no_byte(kernel: NativeKernel, cache_bits: int) -> None:
    shape, layers = SHAPES[0], layers_of(SHAPES[0], "int4", kernel, cache_bits)
    fresh, keeping = NativeDecoder(layers, kernel), NativeDecoder(layers, kernel, kept_bytes=64 << 20)
    used = [Piece(seed, 30, 4, 100, 9, (7,)) for seed in (1, 2)]
    addresses = set()
    for piece in (*used, used[0]):
        assert torch.equal(alone(keeping, shape, piece), alone(fresh, shape, piece))
        cache = keeping.new_cache(1, piece.prefix + piece.num_steps)
        addresses.add(cache.first)
        assert not cache.stores.any()
        cache.stores.fill_(0xA5)
        del cache
    assert len(addresses) == 1


def test_norms_that_the_kernel_would_not_compute_are_refused() -> None:
    layers = layers_of(SHAPES[0], "int8", None)
    odd = DecoderLayers(layers.blocks, nn.LayerNorm(64, eps=1e-3), layers.heads, layers.num_heads)
    with pytest.raises(ValueError, match="one eps"):
        ReferenceDecoder(odd)
    plain = DecoderLayers(layers.blocks, nn.LayerNorm(64, elementwise_affine=False), layers.heads, layers.num_heads)
    with pytest.raises(ValueError, match="weight and bias"):
        ReferenceDecoder(plain)
    with pytest.raises(ValueError, match="8 or 4, got 5"):
        ReferenceDecoder(layers_of(SHAPES[0], "int8", None, 5))


def test_what_a_pass_reads_lies_in_its_order_and_stays_there(kernel: NativeKernel) -> None:
    layers_of.cache_clear()  # layers that no decoder had before
    layers = layers_of(SHAPES[0], "int4", kernel)
    NativeDecoder(layers, kernel)
    addresses = [part.data_ptr() for matrix in layers.matrices() for part in matrix.panels or () if part is not None]
    assert len(addresses) == 3 * 13 and addresses == sorted(addresses)
    assert addresses[-1] - addresses[0] < sum(matrix.moved_bytes for matrix in layers.matrices())
    NativeDecoder(layers, kernel)  # another one of the same layers leaves the first what it reads
    assert addresses == [
        part.data_ptr() for each in layers.matrices() for part in each.panels or () if part is not None
    ]
    with pytest.raises(ValueError, match="not moved yet"):
        layers.heads.move_to(HugePages(1 << 20))
