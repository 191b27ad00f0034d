"""Shifted sums and LSTMs over lattices in bfloat16: what torch gives, and every place its own bytes."""

from __future__ import annotations

import pytest
import torch
from stretto_shared.nn.lowbit import NativeKernel
from stretto_shared.nn.lowbit.lattice import STRETCH, Lattice, Layer, ShiftedSum, Strands, run_layers
from torch import Tensor, nn
from torch.nn import functional as F

NEAR = [(frames, columns) for frames in (-1, 0, 1) for columns in (-1, 0, 1)]
FAR = [(0, -12), (0, 0), (0, 12)]
LATER = [(frames, 0) for frames in (-4, -2, 0, 2, 4)]


@pytest.fixture
def kernel(either_bands_kernel: NativeKernel) -> NativeKernel:
    return either_bands_kernel


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lattice_of(values: Tensor, reach: int = 13) -> Lattice:
    lattice = Lattice(tuple(values.shape), below=reach, above=reach)  # type: ignore[arg-type]
    lattice.values.copy_(values)
    return lattice


def summed(x: Tensor, weight: Tensor, bias: Tensor, shifts: list[tuple[int, int]], columns: int, stride: int) -> Tensor:
    """By its definition, in float64: x [B, T, P, C], weight [N, S, C]."""
    padded = F.pad(x.double(), (0, 0, 20, 20, 10, 10))
    total = bias.double().expand(*x.shape[:2], columns, -1).clone()
    for index, (frames, across) in enumerate(shifts):
        copy = padded[:, 10 + frames : 10 + frames + x.shape[1], 20 + across :: stride][:, :, :columns]
        total += copy @ weight[:, index].double().t()
    return total


# clips, frames, columns, inputs, outputs, shifts, stride, columns out
SHAPES = [
    (2, 7, 88, 48, 48, NEAR, 1, 88),
    (1, 12, 88, 48, 16, FAR, 1, 88),
    (2, 11, 33, 32, 32, LATER, 1, 33),
    (1, 5, 60, 16, 32, [(0, 0), (0, 1), (0, 2)], 3, 20),
    (2, 3, 49, 2, 16, [(-1, 0), (0, -2), (0, -1), (0, 0)], 1, 49),
    (1, 2, 16, 40, 7, [(0, 0)], 1, 16),
    (1, 3, 21, 5, 60, [(0, -1), (0, 0), (0, 1), (0, 3)], 1, 21),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_skips_and_relu_are_those_of_the_definition(kernel, shape):
    clips, frames, columns, inputs, outputs, shifts, stride, out_columns = shape
    weight = (normal(outputs, len(shifts), inputs, seed=1) / (len(shifts) * inputs) ** 0.5).bfloat16().float()
    bias, x = normal(out_columns, outputs, seed=2), normal(clips, frames, columns, inputs).bfloat16()
    exact = summed(x, weight, bias, shifts, out_columns, stride)
    sums = ShiftedSum(weight, bias, shifts, stride=stride)

    plain = torch.full((clips, frames, out_columns, sums.width), torch.nan)
    run_layers(kernel, [Layer(sums, lattice_of(x), plain)])
    torch.testing.assert_close(plain[..., :outputs].double(), exact, atol=2e-5, rtol=0)
    assert (plain[..., outputs:] == 0).all()

    skip, out = lattice_of(normal(*plain.shape, seed=3).bfloat16()), Lattice(tuple(plain.shape), above=1)
    wanted = (exact + skip.values[..., :outputs].double()).relu()
    run_layers(kernel, [Layer(ShiftedSum(weight, bias, shifts, stride=stride, relu=True), lattice_of(x), out, skip)])
    torch.testing.assert_close(out.values[..., :outputs].double(), wanted, atol=2e-3, rtol=2**-8)
    assert (wanted == 0).any() and (wanted > 0).any()


def test_one_bias_serves_all_columns(kernel):
    weight, x, bias = normal(16, 1, 32), normal(1, 3, 40, 32).bfloat16(), normal(16, seed=4)
    each, once = torch.empty(2, 1, 3, 40, 16)
    run_layers(kernel, [Layer(ShiftedSum(weight, bias.expand(40, -1), [(0, 0)]), lattice_of(x), each)])
    run_layers(kernel, [Layer(ShiftedSum(weight, bias, [(0, 0)]), lattice_of(x), once)])
    assert torch.equal(each, once) and once.std() > 0.1


@pytest.mark.parametrize("frames", [1, 7, 30])
def test_a_chain_that_keeps_few_frames_gives_what_each_layer_gives_alone(kernel, frames):
    shape, shifts = (2, frames, 88, 48), [NEAR, FAR, LATER]
    layers = [
        ShiftedSum(normal(48, len(s), 48, seed=i) / 20, torch.zeros(48), s, relu=True) for i, s in enumerate(shifts)
    ]
    x = normal(*shape, seed=9).bfloat16()
    whole = [lattice_of(x), *(Lattice(shape, below=12, above=13) for _ in layers)]
    for sums, before, after in zip(layers, whole, whole[1:], strict=False):
        run_layers(kernel, [Layer(sums, before, after, before)])

    reaches = [max(frames for frames, _ in s) for s in shifts]
    short = [
        Lattice(shape, below=12, above=13, kept=STRETCH + 2 * reach) if i else whole[0]
        for i, reach in enumerate(reaches)
    ]
    last = Lattice(shape, above=1)
    places = [*short, last]
    chain = [
        Layer(sums, places[i], places[i + 1], places[i], lag=sum(reaches[1 : i + 1])) for i, sums in enumerate(layers)
    ]
    run_layers(kernel, chain)
    assert torch.equal(last.values, whole[-1].values)
    assert last.values.float().std() > 0.01


def test_a_clip_has_the_bytes_that_it_has_alone(kernel):
    x = normal(4, 9, 88, 48) * torch.tensor([1e-3, 1.0, 30.0, 0.1])[:, None, None, None]
    sums, strands = ShiftedSum(normal(48, 9, 48) / 20, normal(48), NEAR), Strands(nn.LSTM(48, 32, bidirectional=True))

    def heard(clips: Tensor) -> tuple[Tensor, Tensor]:
        lattice, out = lattice_of(clips.bfloat16()), Lattice((len(clips), 9, 88, 48), above=1)
        known = Lattice((len(clips), 9, 88, 64))
        run_layers(kernel, [Layer(sums, lattice, out)])
        strands.run(kernel, out, known)
        return out.values, known.values

    together = heard(x)
    for clip in range(4):
        for both, alone in zip(together, heard(x[clip : clip + 1]), strict=True):
            assert torch.equal(both[clip], alone[0])


@pytest.mark.parametrize("columns", [17, 40, 47])
def test_a_place_has_its_bytes_among_any_columns_and_outputs(kernel, columns):
    x, weight, bias = normal(1, 6, 60, 48), normal(80, 9, 48, seed=1) / 20, normal(80, seed=2)
    strands = Strands(nn.LSTM(48, 40, bidirectional=True))

    def heard(first: int, count: int, outputs: slice) -> tuple[Tensor, Tensor]:
        lattice = lattice_of(x.bfloat16())
        lattice.shape = (1, 6, count, 48)
        lattice.values = lattice.values[:, :, first : first + count]
        sums = ShiftedSum(weight[outputs], bias[outputs], NEAR)
        plain, known = torch.empty(1, 6, count, sums.width), Lattice((1, 6, count, 128))
        run_layers(kernel, [Layer(sums, lattice, plain)])
        strands.run(kernel, lattice, known)
        return plain, known.values

    plain, known = heard(0, 60, slice(80))
    for first in (0, 60 - columns):
        for outputs in (slice(0, 80), slice(0, 64), slice(16, 48), slice(32, 80), slice(64, 80)):
            some, some_known = heard(first, columns, outputs)
            assert torch.equal(some, plain[:, :, first : first + columns, outputs])
            assert torch.equal(some_known, known[:, :, first : first + columns])


@pytest.mark.parametrize(("inputs", "units", "columns"), [(48, 32, 88), (26, 24, 88), (64, 40, 33), (48, 64, 17)])
@torch.inference_mode()
def test_strands_are_an_lstm_over_each_column(kernel, inputs, units, columns):
    torch.manual_seed(0)
    lstm = nn.LSTM(inputs, units, batch_first=True, bidirectional=True)
    for parameter in lstm.parameters():
        parameter.copy_(parameter.bfloat16())
    x = (2 * normal(2, 40, columns, inputs)).bfloat16()
    rows = x.float().transpose(1, 2).reshape(2 * columns, 40, inputs)
    exact = lstm(rows)[0].reshape(2, columns, 40, 2, units).transpose(1, 2)

    strands = Strands(lstm)
    given = Lattice((2, 40, columns, strands.padded_inputs))
    given.values[..., :inputs] = x
    known = Lattice((2, 40, columns, 2 * strands.width))
    strands.run(kernel, given, known, range(1))
    assert (known.values[..., strands.width :] == 0).all()  # the other direction is another call's
    strands.run(kernel, given, known, range(1, 2))
    heard = known.values.unflatten(-1, (2, strands.width))
    assert (heard[..., units:] == 0).all()
    torch.testing.assert_close(heard[..., :units].float(), exact, atol=0.012, rtol=0)
    assert exact.std() > 0.1


@torch.inference_mode()
def test_gates_that_are_wide_open_or_shut_are_so(kernel):
    lstm = nn.LSTM(32, 32, bidirectional=True)
    for name, parameter in lstm.named_parameters():
        parameter.zero_()
        if name.startswith("bias_ih"):
            parameter.view(4, 32)[:] = torch.tensor([200.0, -200.0, 200.0, 200.0])[:, None]  # in, keep, new, out
    known = Lattice((1, 3, 20, 64))
    Strands(lstm).run(kernel, Lattice((1, 3, 20, 32)), known)
    torch.testing.assert_close(known.values.float(), torch.full((1, 3, 20, 64), 0.7616), atol=4e-3, rtol=0)  # tanh(1)


def test_a_shift_beyond_what_is_kept_is_refused(kernel):
    sums, x = ShiftedSum(normal(16, 1, 32), torch.zeros(16), [(0, 3)]), Lattice((1, 2, 20, 32), above=2)
    with pytest.raises(ValueError, match="expected a shift of -0 to 2 columns, got 3"):
        run_layers(kernel, [Layer(sums, x, torch.empty(1, 2, 20, 16))])


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.empty(1, 2, 20, 32), "expected 32 inputs and 16 outputs"),
        (torch.empty(1, 3, 20, 16), "expected as many clips and frames"),
        (torch.empty(1, 2, 15, 16), "expected 32 inputs and 16 outputs"),
        (torch.empty(1, 2, 18, 16), "expected 20 columns, got 18"),
    ],
)
def test_what_does_not_fit_is_refused(kernel, out, message):
    sums = ShiftedSum(normal(16, 1, 32), torch.zeros(20, 16), [(0, 0)])
    with pytest.raises(ValueError, match=message):
        run_layers(kernel, [Layer(sums, Lattice((1, 2, 20, 32)), out)])
