"""The published key layouts of EnCodec, mapped to the keys of `Encodec`. Tensors in, tensors out; opens no file.

- Hugging Face: `encoder.layers.N.conv.{weight_g,weight_v}` or `...parametrizations.weight.original{0,1}`,
  `quantizer.layers.k.codebook.embed`.
- Original and audiocraft: `encoder.model.N.conv.conv.*`, `decoder.model.N.convtr.convtr.*`,
  `quantizer.vq.layers.k._codebook.embed`.

Weight norm is folded: w = g * v / |v|, the norm over all axes but the first. Training's own buffers are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_ORIGINAL_TO_HUGGING_FACE = (
    (re.compile(r"^(encoder|decoder)\.model\."), r"\1.layers."),
    (re.compile(r"\.(conv\.conv|convtr\.convtr)\."), ".conv."),
    (re.compile(r"\.(conv|convtr)\.norm\."), ".norm."),
    (re.compile(r"^quantizer\.vq\.layers\.(\d+)\._codebook\."), r"quantizer.layers.\1.codebook."),
)
_CODEBOOK = re.compile(r"^quantizer\.layers\.(\d+)\.codebook\.embed$")
_TRAINING_BUFFER = re.compile(r"^quantizer\.layers\.\d+\.codebook\.(embed_avg|cluster_size|inited)$")
_GAIN = re.compile(r"\.(weight_g|parametrizations\.weight\.original0)$")
_GAIN_TO_DIRECTION = {"weight_g": "weight_v", "parametrizations.weight.original0": "parametrizations.weight.original1"}
_DIRECTION = re.compile(r"\.(weight_v|parametrizations\.weight\.original1)$")


def convert_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map a state dict in either published layout, or already in our own, to the keys of `Encodec`.

    Raises:
        ValueError: If a weight norm lacks its half or a codebook is missing.
    """
    if "quantizer.codebooks" in state:
        return dict(state)
    renamed = {_rename(key): value for key, value in state.items()}
    converted: dict[str, Tensor] = {}
    codebooks: dict[int, Tensor] = {}
    for key, value in renamed.items():
        if match := _CODEBOOK.match(key):
            codebooks[int(match[1])] = value
        elif match := _GAIN.search(key):
            prefix = key[: match.start()]
            direction = renamed.get(f"{prefix}.{_GAIN_TO_DIRECTION[match[1]]}")
            if direction is None:
                raise ValueError(f"{key}: expected its {_GAIN_TO_DIRECTION[match[1]]!r} beside it, got none.")
            converted[f"{prefix}.weight"] = torch._weight_norm(direction, value, 0)
        elif not _TRAINING_BUFFER.match(key) and not _DIRECTION.search(key):
            converted[key] = value
    if sorted(codebooks) != list(range(len(codebooks))) or not codebooks:
        raise ValueError(f"quantizer.layers: expected codebooks 0, 1, 2, ..., got {sorted(codebooks)}.")
    converted["quantizer.codebooks"] = torch.stack([codebooks[level] for level in range(len(codebooks))])
    return converted


def _rename(key: str) -> str:
    for pattern, replacement in _ORIGINAL_TO_HUGGING_FACE:
        key = pattern.sub(replacement, key)
    return key
