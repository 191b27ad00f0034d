"""Linear layers with weights of 8 or 4 bits, whose result for a row depends on no other row."""

from stretto_shared.nn.lowbit.formats import IntegerMatrix, quantise_int4, quantise_int8
from stretto_shared.nn.lowbit.linear import LowBitLinear
from stretto_shared.nn.lowbit.native import NativeKernel, load_native_kernel

__all__ = ["IntegerMatrix", "LowBitLinear", "NativeKernel", "load_native_kernel", "quantise_int4", "quantise_int8"]
