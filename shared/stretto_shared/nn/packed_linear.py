"""Linear layers whose weights lie as oneDNN's kernels read them: for models that take one step of few rows at a time.

torch hands single-precision products on a CPU to a library that is slow at two rows (the conditional and the null row
of guidance), on some processors two to three times slower than oneDNN with weights packed once
(`evals/speed/first_audio.py` shows the whole). What is packed can only be read forward: no gradients, no state dict.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stretto_shared.nn.heap import page_out

ROWS = 2  # for which the packing is chosen; it serves any number


class PackedLinear(nn.Module):
    """`nn.Linear` without a bias, for inference in single precision on a CPU; equal to it up to rounding."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if not can_pack(linear):
            raise ValueError(f"expected a float32 layer on the CPU without a bias, got {linear}.")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")
        return out


def can_pack(linear: nn.Linear) -> bool:
    """Whether this build of torch packs this layer."""
    weight = linear.weight
    is_plain = weight.dtype == torch.float32 and weight.device.type == "cpu" and linear.bias is None
    return is_plain and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def pack_linears(module: nn.Module) -> int:
    """Replace every linear layer below `module` that can be packed; return how many. The others stay as they are."""
    count = 0
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            if can_pack(child):
                setattr(module, name, PackedLinear(child))
                page_out([child.weight])  # or all of a file is in memory beside the copies before the last is made
                count += 1
        else:
            count += pack_linears(child)
    return count
