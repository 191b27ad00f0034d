"""Attention over what is heard of a slot: torch's own under a mask, and nothing of what is not heard."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [16, 64])
def test_it_is_torch_s_attention_under_a_mask_and_reads_nothing_else(width: int, dtype: torch.dtype) -> None:
    from stretto_acoustic.models.musicgen.slot_attention import attend

    torch.manual_seed(0)
    num_rows, num_heads, num_entries = 5, 3, 304
    first = torch.tensor([0, 40, 100, 303, 150], device="cuda")
    last = torch.tensor([10, 200, 289, 303, 150], device="cuda")
    num_prefix = torch.tensor([0, 7, 0, 0, 130], device="cuda")
    entries = torch.arange(num_entries, device="cuda")
    heard = ((entries >= first[:, None]) & (entries <= last[:, None])) | (entries < num_prefix[:, None])
    query = torch.randn(num_rows, 1, 3, num_heads, width, device="cuda", dtype=dtype).permute(2, 0, 3, 1, 4)[1]
    keys, values = torch.randn(2, num_rows + 2, num_heads, num_entries, width, device="cuda", dtype=dtype)[:, 1:-1]
    mask = heard[:, None, None]
    expected = F.scaled_dot_product_attention(query.double(), keys.double(), values.double(), attn_mask=mask)
    unheard = ~heard[:, None, :, None]
    poisoned = [each.masked_fill(unheard, torch.nan) for each in (keys, values)]
    got = attend(query, *poisoned, first, last, num_prefix)
    accuracy = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(got.double(), expected, rtol=accuracy, atol=accuracy)
    alone = attend(query[1:2], *(each[1:2] for each in poisoned), first[1:2], last[1:2], num_prefix[1:2])
    torch.testing.assert_close(alone, got[1:2], rtol=0, atol=0)
