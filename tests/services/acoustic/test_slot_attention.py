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
@pytest.mark.parametrize("writes", [False, True])
def test_it_is_torch_s_attention_under_a_mask_and_reads_and_writes_nothing_else(
    writes: bool, width: int, dtype: torch.dtype
) -> None:
    from stretto_acoustic.models.musicgen.slot_attention import attend

    torch.manual_seed(0)
    num_rows, num_heads, num_entries = 5, 3, 304
    first = torch.tensor([0, 40, 100, 303, 150], device="cuda")
    last = torch.tensor([10, 200, 289, 303, 150], device="cuda")
    num_prefix = torch.tensor([0, 7, 0, 0, 130], device="cuda")
    entries = torch.arange(num_entries, device="cuda")
    heard = ((entries >= first[:, None]) & (entries <= last[:, None])) | (entries < num_prefix[:, None])
    packed = torch.randn(num_rows, 1, 3, num_heads, width, device="cuda", dtype=dtype)
    query, new_key, new_value = packed.permute(2, 0, 3, 1, 4)
    keys, values = torch.randn(2, num_rows + 2, num_heads, num_entries, width, device="cuda", dtype=dtype)[:, 1:-1]
    rows = torch.arange(num_rows, device="cuda")
    if writes:
        keys[rows, :, last], values[rows, :, last] = new_key[:, :, 0], new_value[:, :, 0]
    mask = heard[:, None, None]
    expected = F.scaled_dot_product_attention(query.double(), keys.double(), values.double(), attn_mask=mask)
    unheard = ~heard[:, None, :, None]
    poisoned = [each.masked_fill(unheard, torch.nan) for each in (keys, values)]
    before = [each.clone() for each in poisoned]
    if writes:
        for each in before:
            each[rows, :, last] = torch.nan
    caches, new = [each.clone() for each in before], (new_key, new_value) if writes else None
    got = attend(query, *caches, first, last, num_prefix, new)
    accuracy = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(got.double(), expected, rtol=accuracy, atol=accuracy)
    for cache, whole in zip(caches, poisoned, strict=True):
        torch.testing.assert_close(cache, whole, rtol=0, atol=0, equal_nan=True)
    one = slice(1, 2)
    alone_new = None if new is None else (new[0][one], new[1][one])
    alone = attend(query[one], *(each[one] for each in before), first[one], last[one], num_prefix[one], alone_new)
    torch.testing.assert_close(alone, got[one], rtol=0, atol=0)


def test_the_kernels_run_here() -> None:
    from stretto_acoustic.models.musicgen.slot_attention import runs_on

    assert runs_on(torch.device("cuda"), torch.bfloat16, 64)


def test_a_new_key_that_is_laid_out_unlike_the_query_is_refused() -> None:
    from stretto_acoustic.models.musicgen.slot_attention import attend

    query = torch.zeros(2, 3, 1, 16, device="cuda")
    cache, place = torch.zeros(2, 3, 32, 16, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda")
    other = torch.zeros(2, 3, 1, 32, device="cuda")[..., ::2]
    with pytest.raises(ValueError, match="laid out like the query"):
        attend(query, cache, cache, place, place, place, (other, other))
    with pytest.raises(ValueError, match="in one piece"):
        attend(query, cache.transpose(0, 1), cache, place, place, place)
