"""Causal ConvNeXt: hears only the past, and streams to the same result."""

import torch
from stretto_shared.nn.convnext import CausalDepthwise, ConvNeXtStack


def stack() -> ConvNeXtStack:
    torch.manual_seed(0)
    return ConvNeXtStack(24, num_blocks=3, width=5).eval()


def test_depthwise_equals_the_grouped_convolution() -> None:
    torch.manual_seed(0)
    layer = CausalDepthwise(6, 5)
    layer.bias.data.normal_()
    frames = torch.randn(2, 9, 6)
    padded = torch.nn.functional.pad(frames.transpose(1, 2), (4, 0))
    expected = torch.nn.functional.conv1d(padded, layer.weight.t()[:, None], layer.bias, groups=6).transpose(1, 2)
    assert torch.allclose(layer(frames), expected, atol=1e-6)


def test_streamed_equals_offline() -> None:
    model, frames = stack(), torch.randn(2, 20, 24)
    with torch.inference_mode():
        offline = model(frames)
        state, parts = model.init_state(2), []
        for start, stop in ((0, 1), (1, 4), (4, 17), (17, 20)):
            part, state = model.step(frames[:, start:stop], state)
            parts.append(part)
    assert torch.allclose(torch.cat(parts, 1), offline, atol=1e-5)


def test_a_step_leaves_the_state_it_was_given_as_it_was() -> None:
    model, frames = stack(), torch.randn(1, 4, 24)
    with torch.inference_mode():
        state = model.init_state(1)
        first, _ = model.step(frames, state)
        again, _ = model.step(frames, state)
    assert torch.equal(first, again)


def test_the_present_does_not_hear_the_future() -> None:
    model, frames = stack(), torch.randn(1, 20, 24)
    changed = frames.clone()
    changed[:, 12:] += 1.0
    with torch.inference_mode():
        before, after = model(frames), model(changed)
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])
