"""Recurrent layers in float32, whatever is around them.

Legend: N rows, T frames, D numbers of a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def recurred(lstm: nn.LSTM, rows: Tensor) -> Tensor:
    """[N, T, D] to [N, T, 2 * hidden].

    Autocast would make float16 of a recurrent layer on CUDA, also where bfloat16 is asked for; in it, gradients of a
    mean over a million cells are zero.
    """
    with torch.autocast(rows.device.type, enabled=False):
        known: Tensor = lstm(rows.float())[0]
    return known
