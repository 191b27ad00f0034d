"""MusicGen's language model: shapes, causality, steps against the parallel pass, conditions and their absence."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from stretto_acoustic.models.musicgen import PRESETS, MusicGenConfig, MusicGenLM
from torch import Tensor

B, K, T, L, P = 3, 4, 14, 5, 6


def model_of(melody_conditioning: Any, **changes: Any) -> MusicGenLM:
    torch.manual_seed(1)
    config = dataclasses.replace(
        PRESETS["tiny"], melody_conditioning=melody_conditioning, chroma_frames=8, max_frames=40, **changes
    )
    model = MusicGenLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes [B, K, T], text states [B, L, D] with masks of 5, 3 and 0 tokens, chroma [B, P] with one silent row."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 65, (B, K, T), generator=generator)
    text = torch.randn(B, L, 16, generator=generator)
    mask = (torch.arange(L) < torch.tensor([5, 3, 0])[:, None]).float()
    chroma = torch.randint(0, 12, (B, P), generator=generator)
    chroma[1], chroma[0, 2] = -1, -1
    return codes, text, mask, chroma


@torch.inference_mode()
def steps(model: MusicGenLM, codes: Tensor, *conditions: Tensor | None) -> Tensor:
    state = model.init_state(codes.shape[0], codes.shape[2], *conditions)
    logits = [model.step(codes[:, :, t], state) for t in range(codes.shape[2])]
    return torch.stack([each for each in logits if each is not None], dim=2)


@pytest.mark.parametrize("melody_conditioning", ["none", "prefix", "prefix_only"])
@torch.inference_mode()
def test_steps_equal_the_parallel_pass(melody_conditioning: str) -> None:
    model = model_of(melody_conditioning)
    codes, text, mask, chroma = inputs()
    melody = None if melody_conditioning == "none" else chroma
    parallel = model(codes, text, mask, melody)
    assert parallel.shape == (B, K, T, 64)
    torch.testing.assert_close(steps(model, codes, text, mask, melody), parallel, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("melody_conditioning", ["none", "prefix", "prefix_only"])
@torch.inference_mode()
def test_a_column_changes_nothing_before_it(melody_conditioning: str) -> None:
    model = model_of(melody_conditioning)
    codes, text, mask, chroma = inputs()
    melody = None if melody_conditioning == "none" else chroma
    before = model(codes, text, mask, melody)
    for column in (1, 7, T - 1):
        changed = codes.clone()
        changed[:, 2, column] = (changed[:, 2, column] + 1) % 64
        difference = (model(changed, text, mask, melody) - before).abs().amax(dim=(0, 1, 3))
        assert (difference[:column] < 1e-5).all()
        assert (difference[column:] > 1e-4).all()


@pytest.mark.parametrize("melody_conditioning", ["none", "prefix", "prefix_only"])
@torch.inference_mode()
def test_a_batch_of_three_equals_three_batches_of_one(melody_conditioning: str) -> None:
    model = model_of(melody_conditioning)
    codes, text, mask, chroma = inputs()
    melody = None if melody_conditioning == "none" else chroma
    whole = model(codes, text, mask, melody)
    for row in range(B):
        one = slice(row, row + 1)
        alone = model(codes[one], text[one], mask[one], None if melody is None else melody[one])
        torch.testing.assert_close(alone, whole[one], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("melody_conditioning", ["prefix", "prefix_only"])
@torch.inference_mode()
def test_every_condition_changes_the_logits(melody_conditioning: str) -> None:
    model = model_of(melody_conditioning)
    codes, text, _, chroma = inputs()
    base = model(codes, text, None, chroma)
    other_text, other_chroma = text.clone(), chroma.clone()
    other_text[:, 1] += 1
    other_chroma[0, 3] = (other_chroma[0, 3] + 1) % 12
    assert (model(codes, other_text, None, chroma) - base).abs().amax() > 1e-3
    difference = (model(codes, text, None, other_chroma) - base).abs().amax(dim=(1, 2, 3))
    assert difference[0] > 1e-3 and difference[1:].amax() < 1e-5


@torch.inference_mode()
def test_the_null_conditions_equal_absent_ones() -> None:
    model = model_of("prefix")
    codes, text, mask, chroma = inputs()
    torch.testing.assert_close(model(codes, text, torch.zeros(B, L)), model(codes))
    silent = torch.full_like(chroma, -1)
    torch.testing.assert_close(model(codes, text, mask, silent), model(codes, text, mask), atol=2e-5, rtol=1e-4)
    both = model(codes, text, mask, chroma)
    torch.testing.assert_close(both[1], model(codes, text, mask)[1], atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_padding_changes_nothing() -> None:
    model = model_of("none")
    codes, text, mask, _ = inputs()
    padded = torch.cat([text, torch.full((B, 3, 16), 9.0)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(B, 3)], dim=1)
    torch.testing.assert_close(model(codes, padded, padded_mask), model(codes, text, mask), atol=2e-5, rtol=1e-4)


def test_a_training_step_reaches_every_parameter() -> None:
    model = model_of("prefix", dropout=0.1).train()
    codes, text, mask, chroma = inputs()
    logits = model(codes[..., :-1], text, mask, chroma)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 2), codes[..., 1:].clamp(max=63).flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@torch.inference_mode()
def test_what_the_model_cannot_take_is_refused() -> None:
    model = model_of("none")
    codes, text, mask, chroma = inputs()
    with pytest.raises(ValueError, match="no melody conditioning"):
        model(codes, text, mask, chroma)
    with pytest.raises(ValueError, match="1 to 8 melody frames"):
        model_of("prefix")(codes, text, mask, chroma.repeat(1, 2))
    state = model.init_state(B, 1)
    model.step(codes[:, :, 0], state)
    with pytest.raises(ValueError, match="all are used"):
        model.step(codes[:, :, 1], state)
    with pytest.raises(ValueError, match="multiple of num_heads"):
        MusicGenConfig(dim=30, num_heads=4)


def test_the_published_geometries_have_the_published_sizes() -> None:
    # the published decoders: 419.6 M, 1837.6 M, 3255.4 M, without the text projection, which belongs to their wrapper
    for name, expected in {"small": 419.6, "medium": 1837.6, "large": 3255.4}.items():
        with torch.device("meta"):
            model = MusicGenLM(PRESETS[name])
        text_proj = sum(parameter.numel() for parameter in model.conditioner.parameters())
        assert (model.num_parameters() - text_proj) / 1e6 == pytest.approx(expected, abs=0.1)
