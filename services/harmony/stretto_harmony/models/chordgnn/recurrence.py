"""A trained bidirectional GRU over a few rows at once, each row's bytes its own.

Both directions of a layer are one product a step, and so are the rows: what a step costs is mostly its calls. A pass
always has the same number of rows, filled up with zeros, and whatever else would depend on the other rows' lengths is
done for each by itself. That a row's bytes then follow from nothing but the row is tried when it is made; where the
processor's products do not keep it, each row has passes of its own.

Legend: R rows of a pass, T steps of the longest, H width of a direction, D features. Knows no graphs; learns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MAX_ROWS = 4
_NUM_TRIALS = 3


@dataclass(frozen=True, eq=False)
class _Layer:
    """One layer's weights, forward and backward.

    Args:
        read: From a step's input to the gates of both directions [D, 6 H]: reset, update, new, and again.
        bias: What is added to it [6 H].
        carry: From the step before [2, H, 3 H].
        carried_bias: What is added to the new gate's part of `carry` [2, 1, H].
    """

    read: Tensor
    bias: Tensor
    carry: Tensor
    carried_bias: Tensor


class RowRecurrence:
    """What a bidirectional `nn.GRU` computes, for up to `num_rows` sequences in one pass.

    Invariant: a row's bytes do not depend on which others are in its pass, nor on its place
    (`tests/services/harmony/chordgnn/test_recurrence.py`).

    Args:
        gru: Trained, bidirectional, with biases; it is read once.
        max_rows: The most rows of a pass; a score that is heard in several moves has as many rows.
    """

    def __init__(self, gru: nn.GRU, max_rows: int = MAX_ROWS) -> None:
        if not (gru.bidirectional and gru.bias):
            raise ValueError("expected a bidirectional GRU with biases, got another. Train one.")
        self._width = gru.hidden_size
        self._layers = [_layer(gru, index) for index in range(gru.num_layers)]
        self.num_rows = max_rows if all(_rows_are_their_own(layer.carry, max_rows) for layer in self._layers) else 1

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Each of the rows [T', D] as [T', 2 H]; passes of `num_rows` of them, in their order."""
        found: list[Tensor] = []
        for first in range(0, len(rows), self.num_rows):
            some = list(rows[first : first + self.num_rows])
            for layer in self._layers:
                some = self._through(layer, some)
            found += some
        return found

    def _through(self, layer: _Layer, rows: Sequence[Tensor]) -> list[Tensor]:
        num_steps, width = max(map(len, rows)), self._width
        gates = rows[0].new_zeros(num_steps, 2, self.num_rows, 3 * width)
        new = rows[0].new_zeros(num_steps, 2, self.num_rows, width)
        gates[..., 2 * width :] = layer.carried_bias
        for place, row in enumerate(rows):
            read = torch.addmm(layer.bias, row, layer.read).view(len(row), 2, 3 * width)
            for direction, own in enumerate((read[:, 0], read[:, 1].flip(0))):
                gates[: len(row), direction, place, : 2 * width] = own[:, : 2 * width]
                new[: len(row), direction, place] = own[:, 2 * width :]
        steps = _carried(gates, new, layer.carry)
        return [
            torch.cat([steps[: len(row), 0, place], steps[: len(row), 1, place].flip(0)], dim=1)
            for place, row in enumerate(rows)
        ]


def _carried(gates: Tensor, new: Tensor, carry: Tensor) -> Tensor:
    """The steps [T, 2, R, H] of all rows, from what their inputs add to the gates [T, 2, R, 3 H] and [T, 2, R, H].

    `new` is overwritten. Calls write where they are told to: at this size, making a tensor costs as much as filling it.
    """
    before, steps, now = torch.zeros_like(new[0]), torch.empty_like(new), torch.empty_like(gates[0])
    reset, update, candidate = now.chunk(3, dim=2)
    opened = now[..., : 2 * new.shape[3]]
    for read, own, step in zip(gates.unbind(), new.unbind(), steps.unbind(), strict=True):
        torch.baddbmm(read, before, carry, out=now)
        opened.sigmoid_()
        own.addcmul_(reset, candidate).tanh_()
        torch.lerp(own, before, update, out=step)
        before = step
    return steps


def _layer(gru: nn.GRU, index: int) -> _Layer:
    width = gru.hidden_size
    ways = [
        [getattr(gru, f"{name}_l{index}{way}").detach() for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        for way in ("", "_reverse")
    ]
    biases = [read.clone() for _, _, read, _ in ways]
    for bias, (_, _, _, carried) in zip(biases, ways, strict=True):
        bias[: 2 * width] += carried[: 2 * width]
    return _Layer(
        read=torch.cat([read for read, _, _, _ in ways]).T.contiguous(),
        bias=torch.cat(biases),
        carry=torch.stack([carry.T for _, carry, _, _ in ways]).contiguous(),
        carried_bias=torch.stack([carried[None, 2 * width :] for _, _, _, carried in ways]),
    )


@torch.inference_mode()
def _rows_are_their_own(carry: Tensor, num_rows: int) -> bool:
    """Whether each of some rows has the same bytes at every place of a product, beside others and beside zeros."""
    random = torch.Generator().manual_seed(0)
    for _ in range(_NUM_TRIALS):
        rows = torch.randn(2, num_rows, carry.shape[1], generator=random)
        read = torch.randn(2, num_rows, carry.shape[2], generator=random)
        together = torch.baddbmm(read, rows, carry)
        for place in range(num_rows):
            for other in range(num_rows):
                alone, alone_read = torch.zeros_like(rows), torch.zeros_like(read)
                alone[:, other], alone_read[:, other] = rows[:, place], read[:, place]
                if not torch.equal(torch.baddbmm(alone_read, alone, carry)[:, other], together[:, place]):
                    return False
    return True
