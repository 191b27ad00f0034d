"""Modules without values: of the right shapes, and without what torch would import to draw values for them."""

from __future__ import annotations

import subprocess
import sys

import torch
from stretto_shared.nn.unfilled import unfilled
from torch import nn

MAKES = """
import sys
import torch
from stretto_shared.nn.unfilled import unfilled
from torch import nn
with {where}:
    nn.Embedding(3, 4)
    nn.init.trunc_normal_(nn.Linear(4, 4).weight, std=0.1)
    torch.empty(3).normal_()
    torch.arange(1, 9, 2, dtype=torch.float32).exp()
print("torch._dynamo" in sys.modules)
"""


def test_modules_have_shapes_and_no_memory_and_are_filled_as_ever() -> None:
    with unfilled():
        module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Embedding(7, 3))
        filled, counted = torch.ones(2), torch.arange(3, 8)
    assert counted.tolist() == [3, 4, 5, 6, 7]
    assert all(each.is_meta for each in module.parameters()) and filled.is_meta
    drawn = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Embedding(7, 3))
    module.load_state_dict(drawn.state_dict(), assign=True)
    assert torch.equal(module[0](torch.ones(4)), drawn[0](torch.ones(4)))
    assert float(nn.Embedding(50, 50).weight.detach().std()) > 0.5, "outside values are drawn"


def test_nothing_is_imported_to_draw_what_nobody_reads() -> None:
    found = [
        subprocess.run([sys.executable, "-c", MAKES.format(where=where)], capture_output=True, text=True, check=True)
        for where in ("unfilled()", "torch.device('meta')")
    ]
    assert [each.stdout.strip() for each in found] == ["False", "True"], "once both are False, torch has mended it"
