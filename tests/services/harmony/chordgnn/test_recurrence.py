"""The recurrence that hears: it computes what `nn.GRU` does, and a row's bytes are its own."""

from __future__ import annotations

import itertools

import pytest
import torch
from stretto_harmony.models.chordgnn import recurrence
from stretto_harmony.models.chordgnn.recurrence import MAX_ROWS, RowRecurrence
from torch import Tensor, nn

LENGTHS = (31, 1, 77, 12, 50, 8)


def gru(width: int = 128, num_layers: int = 2) -> nn.GRU:
    torch.manual_seed(3)
    return nn.GRU(16, width, num_layers, bidirectional=True, batch_first=True).eval()


def rows() -> list[Tensor]:
    torch.manual_seed(4)
    return [torch.randn(length, 16) for length in LENGTHS]


@pytest.mark.parametrize(("width", "num_layers"), [(128, 2), (6, 3), (5, 1)])
def test_it_computes_what_torch_does(width: int, num_layers: int) -> None:
    trained = gru(width, num_layers)
    with torch.inference_mode():
        for row, found in zip(rows(), RowRecurrence(trained)(rows()), strict=True):
            torch.testing.assert_close(found, trained(row[None])[0][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [128, 6])
def test_the_bytes_of_a_row_are_its_own_in_any_company_and_place(width: int) -> None:
    carried = RowRecurrence(gru(width))
    some = rows()
    alone = [carried([row])[0] for row in some]
    for order in itertools.islice(itertools.permutations(range(len(some))), 0, None, 91):
        for place, found in zip(order, carried([some[place] for place in order]), strict=True):
            assert torch.equal(found, alone[place])


def test_where_products_do_not_keep_rows_apart_each_has_passes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RowRecurrence(gru()).num_rows in (1, MAX_ROWS)
    honest = torch.baddbmm

    def by_place(read: Tensor, before: Tensor, carry: Tensor, **out: Tensor) -> Tensor:
        product = honest(read, before, carry, **out)
        product[:, 1:] *= 1 + 2**-20
        return product

    def by_company(read: Tensor, before: Tensor, carry: Tensor, **out: Tensor) -> Tensor:
        product = honest(read, before, carry, **out)
        product += 2**-18 * before.sum()
        return product

    for wrong in (by_place, by_company):
        monkeypatch.setattr(recurrence.torch, "baddbmm", wrong)
        carried = RowRecurrence(gru())
        assert carried.num_rows == 1
        together, some = carried(rows()), rows()
        assert all(torch.equal(carried([row])[0], found) for row, found in zip(some, together, strict=True))


def test_a_recurrence_that_is_not_of_its_kind_is_refused() -> None:
    for wrong in (nn.GRU(4, 4), nn.GRU(4, 4, bidirectional=True, bias=False)):
        with pytest.raises(ValueError, match="bidirectional GRU with biases"):
            RowRecurrence(wrong)
