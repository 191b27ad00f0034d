"""A language model goes on when its codec's codes get other numbers."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from stretto_acoustic.models.musicgen import MusicGenConfig, MusicGenLM

sys.path.insert(0, str(Path(__file__).parents[2] / "services/acoustic/recipes"))

from other_codes_start import start_from_other_codes

CONFIG = MusicGenConfig(num_codebooks=2, cardinality=16, dim=32, num_layers=1, num_heads=2, ffn_dim=64, text_dim=8)


def test_codes_that_only_changed_their_numbers_keep_what_the_model_knew_of_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    known, fresh = MusicGenLM(CONFIG).eval(), MusicGenLM(CONFIG).eval()
    # Far apart, so that the nearest old code is the same code and takes nearly all.
    vectors = [50.0 * torch.eye(16)[torch.randperm(16)] + torch.randn(16, 16) for _ in range(2)]
    orders = [torch.randperm(16) for _ in range(2)]
    save_file(known.state_dict(), tmp_path / "lm.safetensors")
    for name, tables in (("old", vectors), ("new", [v[o] for v, o in zip(vectors, orders, strict=True)])):
        save_file(
            {f"quantizer.codebooks.{k}.embed": table.contiguous() for k, table in enumerate(tables)},
            tmp_path / f"{name}.safetensors",
        )
    start_from_other_codes(
        fresh, tmp_path / "lm.safetensors", tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    )
    old_codes = torch.randint(0, 16, (1, 2, 12))
    places = [order.argsort() for order in orders]
    new_codes = torch.stack([places[k][old_codes[:, k]] for k in range(2)], 1)
    with torch.no_grad():
        before, after = known(old_codes), fresh(new_codes)
    renumbered = torch.stack([before[:, k][..., orders[k]] for k in range(2)], 1)
    assert torch.allclose(after, renumbered, atol=0.1 * float(before.std()))
