"""A bounded reach of self-attention: the same step by step as at once, and nothing beyond it is heard."""

import pytest
import torch
from stretto_acoustic.models.musicgen import MusicGenConfig, MusicGenLM

REACH = 6


def model(num_layers: int = 2) -> MusicGenLM:
    torch.manual_seed(0)
    config = MusicGenConfig(
        num_codebooks=2,
        cardinality=16,
        dim=32,
        num_layers=num_layers,
        num_heads=4,
        ffn_dim=64,
        text_dim=8,
        max_frames=60,
        attention_frames=REACH,
        melody_conditioning="prefix",
    )
    return MusicGenLM(config).eval()


@pytest.mark.parametrize("with_melody", [False, True])
def test_steps_equal_the_parallel_forward_beyond_the_reach(with_melody: bool) -> None:
    lm, codes = model(), torch.randint(0, 17, (2, 2, 20))
    text, mask = torch.randn(2, 5, 8), torch.tensor([[1.0] * 5, [0.0] * 5])
    chroma = torch.tensor([[0, 4, 7, 0], [-1] * 4]) if with_melody else None
    with torch.inference_mode():
        at_once = lm(codes, text, mask, chroma)
        state = lm.init_state(2, 20, text, mask, chroma)
        steps = torch.stack([lm.step(codes[:, :, t], state) for t in range(20)], dim=2)
    assert torch.allclose(at_once, steps, atol=1e-5)


def test_one_layer_hears_nothing_beyond_its_reach() -> None:
    lm, codes = model(num_layers=1), torch.randint(0, 16, (1, 2, 20))
    changed = codes.clone()
    changed[:, :, 5] = (changed[:, :, 5] + 1) % 16
    with torch.inference_mode():
        before, after = lm(codes), lm(changed)
    differs = (before != after).any(dim=3).any(dim=1)[0]
    assert differs[5 : 5 + REACH].all()
    assert not differs[:5].any() and not differs[5 + REACH :].any()


def test_a_crop_knows_where_in_the_piece_it_stands() -> None:
    lm, codes = model(), torch.randint(0, 16, (1, 2, 4))
    with torch.inference_mode():
        assert not torch.allclose(lm(codes), lm(codes, first_frame=20))
