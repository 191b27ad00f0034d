"""w2v-BERT's masking and losses.

Legend: B batch, T frames, N masked frames of a row, G groups, V codes of a group, Q width of the quantised vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def draw_spans(random: np.random.Generator, batch: int, num_frames: int, num_spans: int, span: int) -> Tensor:
    """Bool [B, T]: in every row the same number of frames, in spans that start at random and may touch.

    Spans overlap; further single frames fill each row up to the fewest of what two thirds of the spans could cover, and
    surplus ones are unmasked from the row's end, so that the masked frames of a batch form a rectangle.
    """
    count = max(1, num_spans * span * 2 // 3)
    mask = np.zeros((batch, num_frames), bool)
    for row in mask:
        for start in random.integers(0, num_frames - span + 1, num_spans):
            row[start : start + span] = True
        surplus = int(row.sum()) - count
        if surplus > 0:
            row[np.flatnonzero(row)[-surplus:]] = False
        elif surplus < 0:
            row[random.choice(np.flatnonzero(~row), -surplus, replace=False)] = True
    return torch.from_numpy(mask)


def contrastive_loss(found: Tensor, sought: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE of each masked frame's context among the row's other masked frames, and the share of right choices.

    A distractor with the very codes of the frame sought is no distractor.

    Args:
        found: Context vectors [B, N, Q].
        sought: Quantised vectors [B, N, Q].
        ids: Codes [B, N, G].
        temperature: Divides the cosines.
    """
    scores = F.normalize(found, dim=-1) @ F.normalize(sought, dim=-1).mT / temperature  # [B, N, N]
    own = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    alike = (ids[:, :, None] == ids[:, None]).all(-1) & ~own
    scores = scores.masked_fill(alike, float("-inf"))
    right = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    loss = F.cross_entropy(scores.flatten(0, 1), right.flatten())
    return loss, (scores.argmax(-1) == right).float().mean()


def masked_prediction_loss(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of logits [B, N, G, V] and codes [B, N, G], and the share of right choices."""
    loss = F.cross_entropy(logits.flatten(0, 2), ids.flatten())
    return loss, (logits.argmax(-1) == ids).float().mean()
