"""`WeightFormat`: how the matrices of a model are held, chosen when it is loaded, made from one checkpoint.

| format | bytes a weight | a row's result depends on | made of |
|---|---|---|---|
| `as_dtype`, `fp32` | 4 (2 in bfloat16) | the number of rows | the checkpoint as it is, packed for oneDNN in float32 |
| `bf16` | 2 | as torch's bfloat16 product does | weights rounded to bfloat16; rows too, on their way in |
| `int8` | 1 | itself | `lowbit`: a scale per output, rows rounded to int8 with a scale each |
| `int4` | 0.53 | itself | `lowbit`: 16 levels, of one of eight codebooks for each 32 weights |
| `int4_kv4` | 0.53 | itself | as `int4`; keys and values of attention in four bits too, where the others have eight |

Only linear layers without a bias are replaced: those of a transformer's blocks and heads. Speed and the choice:
`docs/adr/0007-weights-of-eight-and-four-bits.md`; quality: `evals/quality/weight_formats.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from stretto_shared.errors import InvalidInput
from stretto_shared.nn.lowbit import LowBitLinear, load_native_kernel, quantise_int4, quantise_int8
from stretto_shared.nn.packed_linear import pack_linears

WeightFormat = Literal["as_dtype", "fp32", "bf16", "int8", "int4", "int4_kv4"]
WEIGHT_FORMATS: tuple[str, ...] = get_args(WeightFormat)
INTEGER_FORMATS = ("int8", "int4", "int4_kv4")


class Bf16Linear(nn.Module):
    """`nn.Linear` without a bias whose weights and products are bfloat16, whatever comes in and goes out."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._weight = linear.weight.detach().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features], in the number format of `x`."""
        return nn.functional.linear(x.bfloat16(), self._weight).to(x.dtype)


def cache_bits_of(weight_format: str) -> int:
    """Bits of a number in the attention caches of a model whose weights are integers."""
    return 4 if weight_format == "int4_kv4" else 8


def check_weight_format(weight_format: str, dtype: torch.dtype) -> None:
    """Refuse what cannot be served.

    Raises:
        InvalidInput: If there is no such format, or `fp32` or one of integers, whose arithmetic beside the matrices is
            float32, meet a model of another number format.
    """
    if weight_format not in WEIGHT_FORMATS:
        raise InvalidInput("weight_format", f"expected one of {', '.join(WEIGHT_FORMATS)}, got {weight_format!r}.")
    if weight_format in ("fp32", *INTEGER_FORMATS) and dtype != torch.float32:
        raise InvalidInput(
            "weight_format",
            f"expected bf16 or as_dtype beside dtype {dtype}, got {weight_format!r}. Set dtype float32.",
        )


def fill(
    module: nn.Module, tensors: Mapping[str, Tensor], weight_format: str, *, native_kernel_dir: Path | None = None
) -> None:
    """Fill a module on the meta device layer by layer, and bring each linear layer into its format at once.

    Asks for each tensor once and keeps none, so that memory never holds a checkpoint beside what is made of it;
    `as_dtype` and `fp32` are left to `set_weight_format`.

    Raises:
        RuntimeError: If tensors are missing, left over, or of another shape.
        ValueError: If a weight is not finite.
    """
    expected, given = set(module.state_dict()), set(tensors)
    if expected != given:
        missing, left_over = sorted(expected - given)[:5], sorted(given - expected)[:5]
        raise RuntimeError(f"expected other tensors: missing {missing or 'none'}, left over {left_over or 'none'}")
    make = _replacement(weight_format, native_kernel_dir)
    for name in [name for name, _ in module.named_modules()]:  # names alone: a layer that is replaced has to go
        child, prefix = module.get_submodule(name), f"{name}." if name else ""
        own = {key: tensors[prefix + key] for key in child.state_dict() if "." not in key}
        if own:
            child.load_state_dict(own, strict=False, assign=True)
        if make is not None and isinstance(child, nn.Linear) and child.bias is None:
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, make(child))


def set_weight_format(module: nn.Module, weight_format: str, *, native_kernel_dir: Path | None = None) -> int:
    """Replace the linear layers below `module` that have no bias; return how many.

    Args:
        module: In eval mode, on the CPU.
        weight_format: One of `WEIGHT_FORMATS`.
        native_kernel_dir: Where the kernel of int8 and int4 lies or is compiled to; None computes them with torch, for
            the same bytes.

    Raises:
        ValueError: If a weight is not finite.
    """
    make = _replacement(weight_format, native_kernel_dir)
    return pack_linears(module) if make is None else _replace(module, make)


def _replacement(weight_format: str, native_kernel_dir: Path | None) -> Callable[[nn.Linear], nn.Module] | None:
    """What makes a layer of the format from a linear layer; None where it stays as it is."""
    if weight_format in ("as_dtype", "fp32"):
        return None
    if weight_format == "bf16":
        return Bf16Linear
    kernel = None if native_kernel_dir is None else load_native_kernel(native_kernel_dir)
    if weight_format == "int8":
        return lambda linear: LowBitLinear(quantise_int8(linear.weight), kernel)
    bits = cache_bits_of(weight_format)
    return lambda linear: LowBitLinear(quantise_int4(linear.weight, kernel), kernel, cache_bits=bits)


def _replace(module: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> int:
    count = 0
    for name, child in module.named_children():
        if not isinstance(child, nn.Linear):
            count += _replace(child, make)
        elif child.bias is None:
            setattr(module, name, make(child))
            count += 1
    return count
