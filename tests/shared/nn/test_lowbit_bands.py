"""Convolutions and cells in bfloat16 by the native kernel: what torch gives, and every clip its own bytes."""

from __future__ import annotations

import pytest
import torch
from stretto_shared.nn.lowbit import BandCells, BandConvolution, NativeKernel, PreciseConvolution, join_elu
from torch import Tensor
from torch.nn import functional as F


@pytest.fixture
def kernel(either_bands_kernel: NativeKernel) -> NativeKernel:
    return either_bands_kernel


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def convolve(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """In float64; x [B, T, C], weight [N, S, C]."""
    rows, taps = x.double().transpose(1, 2), weight.double().permute(0, 2, 1)
    return F.conv1d(rows, taps, bias.double(), dilation=dilation).transpose(1, 2)


# clips, steps, inputs, outputs, taps, dilation; three have 16 rows or fewer, the last two more than 1 MB of weights,
# and the very last more rows than pass at once
SHAPES = [
    (2, 7, 64, 144, 3, 2),
    (4, 4, 96, 64, 1, 1),
    (1, 1, 32, 16, 1, 1),
    (3, 40, 64, 48, 3, 2),
    (2, 95, 32, 32, 1, 1),
    (5, 7, 96, 16, 2, 1),
    (3, 21, 512, 1040, 2, 1),
    (2, 300, 512, 1040, 2, 1),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_skips_and_elu_are_those_of_the_definition(
    kernel: NativeKernel, shape: tuple[int, int, int, int, int, int]
) -> None:
    num_clips, num_steps, num_inputs, num_outputs, num_taps, dilation = shape
    weight = normal(num_outputs, num_taps, num_inputs, seed=1) / (num_taps * num_inputs) ** 0.5
    bias, x = normal(num_outputs, seed=2), normal(num_clips, num_steps, num_inputs).bfloat16()
    band = BandConvolution(weight, bias, kernel, dilation=dilation)
    exact = convolve(x, weight.bfloat16(), bias, dilation)
    torch.testing.assert_close(band(x, is_plain=True).double(), exact, atol=2e-5, rtol=0)
    skip = normal(*exact.shape, seed=3).bfloat16()
    torch.testing.assert_close(band(x, skip=skip).double(), exact + skip.double(), atol=2e-3, rtol=2**-8)
    torch.testing.assert_close(band(x, elu=True).double(), F.elu(exact), atol=2e-3, rtol=2**-8)
    both = F.elu(exact + skip.double())
    torch.testing.assert_close(band(x, skip=skip, elu=True).double(), both, atol=2e-3, rtol=2**-8)
    assert torch.equal(band(x).float(), band(x, is_plain=True).bfloat16().float())


@pytest.mark.parametrize("num_inputs", [64, 1024])
def test_a_clip_has_its_bytes_in_any_company_and_however_it_is_cut(kernel: NativeKernel, num_inputs: int) -> None:
    band = BandConvolution(normal(1040, 2, num_inputs, seed=1), normal(1040, seed=2), kernel)
    x = normal(5, 50, num_inputs).bfloat16()
    alone = [band(clip) for clip in x.split(1)]
    for order in ([0, 1, 2, 3, 4], [4, 2], [3, 0, 1]):
        assert torch.equal(band(x[order]), torch.cat([alone[clip] for clip in order]))
    cuts = [0, 1, 4, 33, 49]
    parts = [band(x[:1, start : stop + 1]) for start, stop in zip(cuts, cuts[1:], strict=False)]
    assert torch.equal(torch.cat(parts, 1), alone[0])


# outputs such that 8, 4, 2 and 1 blocks of 16 are summed at once
@pytest.mark.parametrize("num_outputs", [16, 48, 80, 240])
@pytest.mark.parametrize("kind", ["rounded", "precise"])
def test_a_row_has_its_bytes_however_many_are_summed_at_once(kernel: NativeKernel, kind: str, num_outputs: int) -> None:
    weight, bias = normal(num_outputs, 2, 96, seed=1), normal(num_outputs, seed=2)
    band = (BandConvolution if kind == "rounded" else PreciseConvolution)(weight, bias, kernel)
    x = normal(9, 8, 96) if kind == "precise" else normal(9, 8, 96).bfloat16()
    rows = torch.stack([torch.cat([band(clip[None, t : t + 2])[0] for t in range(7)]) for clip in x])
    for num_clips in range(1, 10):
        for num_steps in range(1, 8):
            assert torch.equal(band(x[:num_clips, : num_steps + 1]), rows[:num_clips, :num_steps])


@pytest.mark.parametrize("num_outputs", [1, 2, 3])
def test_a_row_of_split_weights_has_its_bytes_however_many_are_summed_at_once(
    kernel: NativeKernel, num_outputs: int
) -> None:
    band = BandConvolution(normal(num_outputs, 3, 64, seed=1), normal(num_outputs, seed=2), kernel, is_split=True)
    x = normal(1, 60, 64).bfloat16()
    rows = torch.cat([band(x[:, t : t + 3]) for t in range(58)], 1)
    for num_steps in (1, 2, 7, 8, 9, 17, 49, 58):
        assert torch.equal(band(x[:, : num_steps + 2]), rows[:, :num_steps])


@pytest.mark.parametrize("num_early", [0, 1, 9, 40])
def test_rows_to_add_may_lie_in_two_places(kernel: NativeKernel, num_early: int) -> None:
    band = BandConvolution(normal(48, 1, 32, seed=1), None, kernel)
    x, skip = normal(3, 40, 32).bfloat16(), normal(3, 45, 48, seed=3).bfloat16()
    early, late = skip[:, :num_early], skip[:, num_early:]
    assert torch.equal(band(x, skip=late, early=early), band(x, skip=skip[:, :40]))
    with pytest.raises(ValueError, match="expected 40 rows or more to add, got 39"):
        band(x, skip=skip[:, num_early:39], early=early) if num_early < 40 else band(x, skip=skip[:, :39])
    with pytest.raises(ValueError, match="early: expected none without skip"):
        band(x, early=skip)


def test_rows_that_do_not_lie_one_after_the_other_are_read_as_they_are_meant(kernel: NativeKernel) -> None:
    band = BandConvolution(normal(16, 1, 32, seed=1), None, kernel)
    x = normal(3, 32, 20).bfloat16()
    assert torch.equal(band(x.transpose(1, 2)), band(x.transpose(1, 2).contiguous()))
    assert torch.equal(band(x.transpose(1, 2).contiguous()[:, 5:]), band(x.transpose(1, 2))[:, 5:])


def test_elu_is_torchs_to_the_last_digit_but_one_of_bfloat16_behind_the_past(kernel: NativeKernel) -> None:
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = bits[bits.isfinite()].reshape(2, -1, 16)
    past = normal(2, 3, 16).bfloat16()
    joined = join_elu(kernel, past, x)
    assert torch.equal(joined[:, :3], past)
    torch.testing.assert_close(joined[:, 3:].float(), F.elu(x.float()), atol=1e-37, rtol=2**-8)


def test_precise_sums_are_those_of_float32(kernel: NativeKernel) -> None:
    weight, bias, x = normal(48, 3, 64, seed=1) / 14, normal(48, seed=2), normal(2, 40, 64)
    exact = convolve(x, weight, bias, 2)
    error = (PreciseConvolution(weight, bias, kernel, dilation=2)(x).double() - exact).abs().max()
    assert error < 1e-4 < (BandConvolution(weight, bias, kernel, dilation=2)(x.bfloat16()).double() - exact).abs().max()


@pytest.mark.parametrize("num_outputs", [1, 2, 3])
def test_split_weights_are_those_of_float32(kernel: NativeKernel, num_outputs: int) -> None:
    weight, bias = normal(num_outputs, 7, 64, seed=1) / 21, normal(num_outputs, seed=2)
    x = normal(2, 40, 64).bfloat16()
    found = BandConvolution(weight, bias, kernel, is_split=True)(x)
    assert found.shape == (2, 34, num_outputs)
    torch.testing.assert_close(found.double(), convolve(x, weight, bias, 1), atol=5e-5, rtol=0)


def test_cells_are_those_of_an_lstm_and_go_on_from_their_state(kernel: NativeKernel) -> None:
    width, recurrent, gates = 64, normal(256, 64, seed=1) / 8, 2 * normal(3, 9, 256)
    hidden, cell = normal(3, width, seed=2) / 2, normal(3, width, seed=3)
    cells, kept = BandCells(recurrent, kernel), (hidden.clone(), cell.clone())
    out, last_hidden, last_cell = cells(gates, hidden, cell)
    assert torch.equal(hidden, kept[0]) and torch.equal(cell, kept[1])
    expected = []
    for inward in gates.unbind(1):
        enter, keep, leave, new = (inward + hidden.bfloat16().float() @ recurrent.bfloat16().float().T).chunk(4, 1)
        cell = keep.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        expected.append(hidden)
    torch.testing.assert_close(out, torch.stack(expected, 1), atol=5e-3, rtol=0)
    torch.testing.assert_close(last_cell, cell, atol=5e-3, rtol=0)
    assert torch.equal(last_hidden, out[:, -1])
    first = cells(gates[1:2, :4], *(each[1:2] for each in kept))
    assert torch.equal(torch.cat([first[0], cells(gates[1:2, 4:], *first[1:])[0]], 1), out[1:2])


def test_what_was_made_for_tiles_is_as_precise_without_them(kernel: NativeKernel) -> None:
    weight, bias, x = normal(48, 3, 64, seed=1) / 14, normal(48, seed=2), normal(2, 40, 64)
    rounded = weight.bfloat16().float()
    both = torch.cat([rounded, weight - rounded], 2)
    band = BandConvolution(both, bias, kernel, again=64)
    parts = torch.cat([x.bfloat16(), (x - x.bfloat16()).bfloat16(), x.bfloat16()], 2)
    found = band(parts, is_plain=True)
    torch.testing.assert_close(found.double(), convolve(x, weight, bias, 1), atol=1e-4, rtol=0)


def test_sizes_and_formats_that_tiles_do_not_have_are_refused(kernel: NativeKernel) -> None:
    with pytest.raises(ValueError, match="inputs by 32 and outputs by 16, got 48 and 16"):
        BandConvolution(normal(16, 1, 48), None, kernel)
    with pytest.raises(ValueError, match="expected rows in bfloat16"):
        BandConvolution(normal(16, 1, 32), None, kernel)(normal(1, 4, 32))
    with pytest.raises(ValueError, match="elu: expected results in bfloat16"):
        BandConvolution(normal(16, 1, 32), None, kernel)(normal(1, 4, 32).bfloat16(), elu=True, is_plain=True)
    with pytest.raises(ValueError, match="inputs by 16 and outputs by 16, got 40 and 16"):
        BandConvolution(normal(16, 1, 40), None, kernel, is_float=True)
    with pytest.raises(ValueError, match="expected rows in float32"):
        BandConvolution(normal(16, 1, 32), None, kernel, is_float=True)(normal(1, 4, 32).bfloat16())
