"""Drawing tokens: guidance, top-k, top-p, temperature, and noise that is a pure function of where it is used.

The noise of one entry of the vocabulary is the 64-bit hash `splitmix64` (Steele et al., "Fast splittable pseudorandom
number generators", OOPSLA 2014) chained over (seed, stage, frame, codebook, index), read as a uniform in (0, 1). A
token is drawn by the Gumbel-max trick: the argmax of `logit / temperature - log(-log(uniform))` over the entries that
top-k and top-p leave. So a token depends on the seed, on its place and on its logits; never on what was drawn before
it, on other requests, or on a generator that somebody shares. Temperature 0 takes the argmax and needs no noise.

Order, as in `transformers`: guidance, temperature, top-k, top-p, draw. Of equal logits at top-k's limit those of lower
index stay. `native_sampling` draws the same by the native kernel, `device_sampling` on a GPU.

Legend: R rows (usually the K codebooks of one step), V vocabulary, n entries kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stretto_shared.features import SamplingOptions

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
_WORD_MASK = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class Sampling:
    """How to draw, with nothing left open; ranges as in `stretto.common.v1.SamplingOptions`."""

    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 1.0
    guidance_scale: float = 3.0

    def filled_from(self, options: SamplingOptions) -> Sampling:
        """Return these values, replaced by those that `options` sets."""
        return Sampling(
            self.temperature if options.temperature is None else options.temperature,
            self.top_k if options.top_k is None else options.top_k,
            self.top_p if options.top_p is None else options.top_p,
            self.guidance_scale if options.guidance_scale is None else options.guidance_scale,
        )

    def as_options(self) -> SamplingOptions:
        """Return the same values as they travel."""
        return SamplingOptions(self.temperature, self.top_k, self.top_p, self.guidance_scale)


def stage_key(stage: str) -> int:
    """Turn the name of a stage of a cascade into the number that keeps its noise apart from other stages'."""
    return int.from_bytes(hashlib.blake2b(stage.encode(), digest_size=8).digest(), "little")


def uniform_noise(
    seed: int | NDArray[np.uint64],
    stage: int,
    frames: NDArray[np.int64],
    codebooks: NDArray[np.int64],
    indices: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return uniform numbers in (0, 1) for entries `indices` [R, n] of rows at `frames` [R] and `codebooks` [R].

    The seed is one for all rows, or one for each [R].
    """
    with np.errstate(over="ignore"):
        words = _mix(row_keys(seed, stage, frames, codebooks)[:, None] ^ indices.astype(np.uint64))
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def row_keys(
    seed: int | NDArray[np.uint64], stage: int, frames: NDArray[np.int64], codebooks: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """The hash [R] of where rows are used, all but the entry; arguments as in `uniform_noise`."""
    with np.errstate(over="ignore"):  # wrapping is what the hash is made of
        seeds = np.array([seed & _WORD_MASK], dtype=np.uint64) if isinstance(seed, int) else seed
        key = _mix(seeds)
        key = _mix(key ^ np.uint64(stage & _WORD_MASK))
        return _mix(_mix(key ^ frames.astype(np.uint64)) ^ codebooks.astype(np.uint64))


def sample(
    logits: Tensor,
    sampling: Sampling,
    *,
    seed: int | NDArray[np.uint64],
    stage: int,
    frames: NDArray[np.int64],
    codebooks: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Draw one token [R] for each row of the guided logits [R, V]; `guidance_scale` is not used here.

    Nothing but a row's own logits, seed and place decides what is drawn for it, so rows of several pieces may be drawn
    together; the seed is one for all rows, or one for each [R].
    """
    if sampling.temperature == 0:
        return np.asarray(logits.argmax(dim=-1).cpu().numpy(), dtype=np.int64)
    num_kept = logits.shape[-1] if sampling.top_k == 0 else min(sampling.top_k, logits.shape[-1])
    values, kept = _largest(logits.float(), num_kept)
    scores = values.numpy().astype(np.float64) / sampling.temperature
    indices = np.asarray(kept.numpy(), dtype=np.int64)
    if sampling.top_p < 1:
        weights = np.exp(scores - scores[:, :1])
        reached_before = (np.cumsum(weights, axis=1) - weights) / weights.sum(axis=1, keepdims=True)
        scores = np.where(reached_before < sampling.top_p, scores, -np.inf)
    gumbel = -np.log(-np.log(uniform_noise(seed, stage, frames, codebooks, indices)))
    chosen = (scores + gumbel).argmax(axis=1)
    return np.asarray(np.take_along_axis(indices, chosen[:, None], axis=1)[:, 0], dtype=np.int64)


def _largest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest entries [R, n] on the CPU, and where they are; the largest first, of equal ones the first."""
    if logits.device.type != "cpu":
        values, indices = _first_of_sorted(logits, count)  # one outcome, whoever is beside it
        return values.cpu(), indices.cpu()
    values, indices = torch.topk(logits, count, dim=-1)
    is_tied = (logits >= values[:, -1:]).sum(dim=-1) > count  # torch takes any of those that are equal
    if is_tied.any():
        values[is_tied], indices[is_tied] = _first_of_sorted(logits[is_tied], count)
    return values, indices


def _first_of_sorted(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    values, indices = torch.sort(logits, dim=-1, descending=True, stable=True)
    return values[:, :count], indices[:, :count]


def guide(conditional: Tensor, unconditional: Tensor, guidance_scale: float | Tensor) -> Tensor:
    """Classifier-free guidance of logits: 0 is the unconditional, 1 the conditional, more goes beyond it."""
    return unconditional + guidance_scale * (conditional - unconditional)


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = words + GOLDEN
    words = (words ^ (words >> np.uint64(30))) * MIX_1
    words = (words ^ (words >> np.uint64(27))) * MIX_2
    return words ^ (words >> np.uint64(31))
