"""The residual vector quantizer: lossless to its own codes, better with every codebook, alive in every code."""

import torch
from stretto_shared.nn.rvq import ResidualVectorQuantizer


def trained_quantizer(num_steps: int = 60) -> tuple[ResidualVectorQuantizer, torch.Tensor]:
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(16, num_codebooks=3, cardinality=32)
    centres = torch.randn(200, 16)
    latents = centres[torch.randint(200, (8, 100))] + 0.1 * torch.randn(8, 100, 16)
    quantizer.train()
    quantizer.initialise(latents)
    for _ in range(num_steps):
        quantizer(latents)
    return quantizer.eval(), latents


def test_decoded_codes_equal_the_quantised_latents() -> None:
    quantizer, latents = trained_quantizer()
    with torch.no_grad():
        quantized = quantizer(latents)
        codes = quantizer.encode(latents)
        assert torch.equal(codes, quantized.codes)
        assert torch.allclose(quantizer.decode(codes), quantized.latents, atol=1e-5)


def test_every_codebook_lowers_the_error() -> None:
    quantizer, latents = trained_quantizer()
    with torch.no_grad():
        codes = quantizer.encode(latents)
        errors = [float((quantizer.decode(codes[:, :k]) - latents).square().mean()) for k in (1, 2, 3)]
    assert errors[0] > 1.2 * errors[1] > 1.2 * 1.2 * errors[2]


def test_codes_lie_in_range_and_most_are_in_use() -> None:
    quantizer, latents = trained_quantizer()
    codes = quantizer.encode(latents)
    assert codes.shape == (8, 3, 100)
    assert 0 <= int(codes.min()) and int(codes.max()) < 32
    assert all(len(codes[:, k].unique()) > 0.7 * 32 for k in range(3))


def test_a_dropped_codebook_contributes_nothing() -> None:
    quantizer, latents = trained_quantizer()
    with torch.no_grad():
        kept = quantizer(latents, torch.tensor([1] * 4 + [3] * 4))
        first_only = quantizer.decode(quantizer.encode(latents)[:, :1])
        everything = quantizer.decode(quantizer.encode(latents))
    assert torch.allclose(kept.latents[:4], first_only[:4], atol=1e-5)
    assert torch.allclose(kept.latents[4:], everything[4:], atol=1e-5)


def test_the_gradient_passes_straight_through() -> None:
    quantizer, latents = trained_quantizer()
    latents = latents.clone().requires_grad_()
    quantizer(latents).latents.sum().backward()
    assert latents.grad is not None
    assert torch.allclose(latents.grad, torch.ones_like(latents.grad))


def test_an_idle_code_is_redrawn_from_the_batch() -> None:
    quantizer, latents = trained_quantizer(num_steps=0)
    book = quantizer.codebooks[0]
    book.embed[5] = 1e3
    book.embed_sum[5] = 0
    book.cluster_size[5] = 0
    quantizer.train()
    quantizer(latents)
    assert float(book.embed[5].abs().max()) < 10


def test_rows_do_not_depend_on_the_batch_around_them() -> None:
    quantizer, latents = trained_quantizer()
    with torch.no_grad():
        together = quantizer.encode(latents)
        alone = torch.cat([quantizer.encode(row[None]) for row in latents])
    assert torch.equal(together, alone)
