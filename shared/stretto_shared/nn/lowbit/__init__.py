"""Layers and decoders with weights of 8 or 4 bits, whose result for a row depends on no other row."""

from stretto_shared.nn.lowbit.bands import BandCells, BandConvolution, PreciseConvolution, join_elu, load_bands
from stretto_shared.nn.lowbit.columns import ColumnEmbedding, guided_rows
from stretto_shared.nn.lowbit.decoder import (
    ARITHMETIC,
    DecoderBlock,
    DecoderLayers,
    DecoderRow,
    IntegerDecoder,
    NativeDecoder,
    cache_bytes,
)
from stretto_shared.nn.lowbit.formats import IntegerMatrix, quantise_int4, quantise_int8
from stretto_shared.nn.lowbit.kernel import NativeKernel, load_native_kernel
from stretto_shared.nn.lowbit.linear import LowBitLinear
from stretto_shared.nn.lowbit.reference import ReferenceDecoder

__all__ = [
    "ARITHMETIC",
    "BandCells",
    "BandConvolution",
    "ColumnEmbedding",
    "DecoderBlock",
    "DecoderLayers",
    "DecoderRow",
    "IntegerDecoder",
    "IntegerMatrix",
    "LowBitLinear",
    "NativeDecoder",
    "NativeKernel",
    "PreciseConvolution",
    "ReferenceDecoder",
    "cache_bytes",
    "guided_rows",
    "join_elu",
    "load_bands",
    "load_native_kernel",
    "quantise_int4",
    "quantise_int8",
]
