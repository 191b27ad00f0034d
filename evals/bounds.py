"""What a decode step must read and a server must hold at least, by arithmetic on a language model's geometry.

A step reads every matrix of the blocks and of the heads once, in the format in which it is held, but not `cross_kv`,
which works once a piece. What it reads besides (caches, norms, a few rows of the embeddings) is left out, so the bound
is a little lower than the truth. A server holds those matrices and `cross_kv`, everything else of the language model in
float32, the attention caches of the pieces that run at once, and the parameters of codec and text encoder in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from stretto_acoustic.models.musicgen import MusicGenCondition, MusicGenConfig, MusicGenLM, MusicGenStepper
from stretto_shared.nn.lowbit import cache_bytes as integer_cache_bytes
from stretto_shared.nn.weight_format import INTEGER_FORMATS, cache_bits_of
from torch import nn

FLOAT_BYTES = 4
GROUP = 32  # weights of int4 that share a byte for their codebook
BYTES_PER_WEIGHT = {"as_dtype": 4.0, "fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5 + 1 / GROUP}
BYTES_PER_WEIGHT["int4_kv4"] = BYTES_PER_WEIGHT["int4"]
_ONCE_A_PIECE = ".cross_kv"


@dataclass(frozen=True)
class MatrixCount:
    """Numbers of a language model: of the matrices that every step reads, of `cross_kv`, and of all the rest."""

    step: int
    once_a_piece: int
    rest: int

    def step_bytes(self, weight_format: str) -> float:
        """Bytes that one step cannot but read."""
        return self.step * BYTES_PER_WEIGHT[weight_format]

    def held_bytes(self, weight_format: str) -> float:
        """Bytes of the whole language model."""
        return (self.step + self.once_a_piece) * BYTES_PER_WEIGHT[weight_format] + self.rest * FLOAT_BYTES


def count_weights(config: MusicGenConfig) -> MatrixCount:
    """Count the weights of a geometry, allocating none."""
    with torch.device("meta"):
        model = MusicGenLM(config)
    matrices = {
        name: module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.bias is None
    }
    once = sum(count for name, count in matrices.items() if name.endswith(_ONCE_A_PIECE))
    step = sum(matrices.values()) - once
    return MatrixCount(step, once, model.num_parameters() - step - once)


def cache_bytes(
    config: MusicGenConfig, weight_format: str, *, duration_s: float, num_text_tokens: int, num_pieces: int
) -> int:
    """Bytes of the attention caches of guided pieces that run at once, as the service itself counts them."""
    if weight_format in INTEGER_FORMATS:
        num_steps = round(duration_s * config.frame_rate_hz) + max(config.delays)
        shape = {
            "num_heads": config.num_heads,
            "head_dim": config.head_dim,
            "cache_bits": cache_bits_of(weight_format),
        }
        own = integer_cache_bytes(config.num_layers, 2, num_steps, **shape)
        return num_pieces * (own + integer_cache_bytes(config.num_layers, 1, num_text_tokens, **shape))
    with torch.device("meta"):
        stepper = MusicGenStepper(MusicGenLM(config))
    text = torch.zeros((num_text_tokens, config.text_dim)).numpy()
    num_steps = round(duration_s * config.frame_rate_hz) + max(config.delays)
    cost = stepper.cost(MusicGenCondition(text), num_steps=num_steps, guidance_scale=config.guidance_scale)
    return num_pieces * cost.kv_bytes


def step_bound_ms(step_bytes: float, bandwidth_gb_s: float) -> float:
    """Milliseconds that reading `step_bytes` takes."""
    if bandwidth_gb_s <= 0:
        raise ValueError(f"expected a bandwidth above 0 GB/s, got {bandwidth_gb_s:g}.")
    return step_bytes / bandwidth_gb_s / 1e6
