"""Drawing tokens on the device that the logits are on, so that nothing but the tokens travels.

The draw of `sampling.sample` without top-p, for rows that may each be drawn in their own way: the same hash of the same
places, in integers that wrap; the same sums in double precision, whose logarithms may differ in the last bit from the
CPU's. Every operation is on single entries, but for a sort that is stable, so that each row has one outcome, and the
largest of a row. So no draw depends on the rows beside it, nor on how many there are. (A sum along a row does on a GPU;
therefore top-p stays on the CPU.) Ties in the logits go to the lower index.

Everything is put in the device's queue behind the pass that computes the logits; the one wait is for the tokens.

Legend: R rows, V vocabulary, n entries kept.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stretto_shared.engine.sampling import GOLDEN, MIX_1, MIX_2, row_keys


def sample_on_device(
    logits: Tensor,
    *,
    temperatures: NDArray[np.float64],
    top_ks: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    stage: int,
    frames: NDArray[np.int64],
    codebooks: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Draw one token [R] for each row of the guided logits [R, V]; all else is [R], as in `Sampling` and `sample`."""
    num_entries = logits.shape[-1]
    is_greedy = temperatures == 0
    num_kept = np.where(is_greedy, 1, np.where(top_ks == 0, num_entries, np.minimum(top_ks, num_entries)))
    scales = np.where(is_greedy, 1.0, temperatures)
    table = np.stack([row_keys(seeds, stage, frames, codebooks).view(np.int64), scales.view(np.int64), num_kept])
    tokens = _drawn(logits, _sent(table, logits.device), int(num_kept.max()))
    return np.asarray(tokens.cpu().numpy(), dtype=np.int64)


@torch.inference_mode()
def _drawn(logits: Tensor, table: Tensor, num_looked_at: int) -> Tensor:
    """Tokens [R] for the rows' keys, temperatures and numbers of entries kept [3, R]."""
    keys, scales, num_kept = table[0, :, None], table[1, :, None].view(torch.float64), table[2, :, None]
    values, indices = torch.sort(logits.float(), dim=-1, descending=True, stable=True)
    values, indices = values[:, :num_looked_at], indices[:, :num_looked_at]
    words = _mix(keys ^ indices)
    uniform = (_shifted(words, 11).double() + 0.5) * 2.0**-53
    scores = values.double() / scales - (-uniform.log()).log()
    is_kept = torch.arange(num_looked_at, device=logits.device) < num_kept
    chosen = scores.masked_fill(~is_kept, -torch.inf).argmax(dim=1, keepdim=True)
    return indices.gather(1, chosen)[:, 0]


def _mix(words: Tensor) -> Tensor:
    """`splitmix64` of words whose 64 bits are read as signed."""
    words = words + _signed(GOLDEN)
    words = (words ^ _shifted(words, 30)) * _signed(MIX_1)
    words = (words ^ _shifted(words, 27)) * _signed(MIX_2)
    return words ^ _shifted(words, 31)


def _shifted(words: Tensor, num_bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift repeats the sign."""
    return (words >> num_bits) & ((1 << 64 - num_bits) - 1)


def _signed(word: np.uint64) -> int:
    return int(word.astype(np.int64))


def _sent(table: NDArray[np.int64], device: torch.device) -> Tensor:
    """The table on a device; from pinned memory, as the copy would wait for the pass that runs there otherwise."""
    sent = torch.from_numpy(table)
    return sent.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else sent.to(device)
