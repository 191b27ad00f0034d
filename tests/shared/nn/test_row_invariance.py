"""A layer that lets rows depend on their neighbours is found out."""

from __future__ import annotations

import pytest
import torch
from stretto_shared.nn.row_invariance import fewest_invariant_rows, linear_layers
from torch import Tensor, nn


class Layer(nn.Module):
    """A product by its own weights, row by row, with what a subclass adds."""

    in_features, out_features = 12, 5

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(self.weight * row).sum(dim=-1) for row in x.flatten(0, -2)]).view(*x.shape[:-1], 5)


class OneScaleForAll(Layer):
    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().max() / 127
        return super().forward((x / scale).round()) * scale


class OtherBelow(Layer):
    def __init__(self, fewest: int) -> None:
        super().__init__()
        self.fewest = fewest

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (1e-3 if x.shape[0] < self.fewest else 0)


class Honest(Layer):
    is_row_invariant = False


def rows_of(*layers: nn.Module) -> int | None:
    return fewest_invariant_rows(layers, max_rows=11, dtype=torch.float32)


def test_layers_are_known_by_what_they_do() -> None:
    assert rows_of(Layer()) == 1
    assert rows_of(OneScaleForAll()) is None
    assert rows_of(Honest()) is None
    assert rows_of(Layer(), Honest()) is None
    assert rows_of(Layer(), nn.ReLU()) is None  # has no width, and cannot be tried


@pytest.mark.parametrize(("fewest", "expected"), [(2, 2), (3, 4), (8, 8), (9, None)])
def test_a_layer_that_holds_from_some_number_of_rows_on_is_filled_up_to_it(fewest: int, expected: int | None) -> None:
    assert rows_of(Layer(), OtherBelow(fewest)) == expected


def test_each_kind_and_shape_is_tried_once() -> None:
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 4)) for _ in range(3)))
    assert len(linear_layers(blocks)) == 2
