"""The residual vector quantizer: lossless to its own codes, better with every codebook, alive in every code."""

import pytest
import torch
from stretto_shared.nn.rvq import ResidualVectorQuantizer, without_learning_state


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


def noise_quantizer(*, equal_norm: bool) -> tuple[ResidualVectorQuantizer, torch.Tensor]:
    """A quantizer of vectors without a preferred direction whose lengths differ, as residuals are."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    quantizer = ResidualVectorQuantizer(64, num_codebooks=2, cardinality=64)
    for codebook in quantizer.codebooks:
        codebook.equal_norm = equal_norm
    lengths = torch.exp(0.5 * torch.randn(8, 250, 1, generator=generator))
    latents = torch.randn(8, 250, 64, generator=generator) * lengths
    quantizer.train()
    quantizer.initialise(latents)
    for _ in range(10):
        quantizer(latents)
    return quantizer.eval(), torch.randn(8, 250, 64, generator=generator)


def effective_codes(codes: torch.Tensor) -> float:
    shares = torch.bincount(codes.flatten(), minlength=64) / codes.numel()
    return float(torch.exp(-(shares * shares.clamp(min=1e-9).log()).sum()))


def test_codes_of_one_norm_have_one_norm_and_are_all_in_use_on_other_vectors() -> None:
    quantizer, unseen = noise_quantizer(equal_norm=True)
    norms = quantizer.codebooks[1].embed.norm(dim=1)
    assert torch.allclose(norms, norms[:1].expand_as(norms), rtol=1e-4)
    plain, _ = noise_quantizer(equal_norm=False)
    for k in range(2):
        assert effective_codes(quantizer.encode(unseen)[:, k]) > 50
    assert effective_codes(plain.encode(unseen)[:, 1]) < 40


def test_codes_of_one_norm_lower_the_error_of_other_vectors() -> None:
    quantizer, unseen = noise_quantizer(equal_norm=True)
    with torch.no_grad():
        codes = quantizer.encode(unseen)
        left = [float((unseen - quantizer.decode(codes[:, :k])).square().mean()) for k in (1, 2)]
    assert float(unseen.square().mean()) > left[0] > left[1]


def test_codes_that_were_placed_on_many_vectors_follow_latents_that_move() -> None:
    torch.manual_seed(2)
    latents = torch.randn(4, 1000, 8)

    def error_after_a_move(*, forgetful: bool) -> float:
        quantizer = ResidualVectorQuantizer(8, num_codebooks=1, cardinality=16).train()
        quantizer.initialise(latents)
        if forgetful:
            quantizer.codebooks[0].forget(100)
        for _ in range(60):
            quantizer(latents[:1, :100] + 2.0)
        moved = latents + 2.0
        return float((quantizer.eval()(moved).latents - moved).square().mean())

    assert error_after_a_move(forgetful=True) < 0.7 * error_after_a_move(forgetful=False)


def test_a_servable_state_holds_the_codes_alone_and_codes_the_same() -> None:
    quantizer, latents = trained_quantizer()
    state = without_learning_state({"other.initialised": torch.ones(1), **quantizer.state_dict()})
    assert state.pop("other.initialised") is not None  # of no codebook: it stays
    assert sorted(name.rsplit(".", 1)[1] for name in state if "codebook" in name or "embed" in name) == ["embed"] * 3
    again = ResidualVectorQuantizer(16, num_codebooks=3, cardinality=32)
    again.load_state_dict(state)
    assert torch.equal(again.eval().encode(latents), quantizer.encode(latents))
    # and learning goes on from there: a first batch does not place the codes anew
    again.train()(latents)
    assert float((again.eval().decode(again.encode(latents)) - latents).square().mean()) < 0.3


def test_a_state_with_some_of_the_learning_buffers_is_refused() -> None:
    quantizer, _ = trained_quantizer()
    state = {name: value for name, value in quantizer.state_dict().items() if not name.endswith("embed_sum")}
    with pytest.raises(RuntimeError, match="embed_sum"):
        ResidualVectorQuantizer(16, num_codebooks=3, cardinality=32).load_state_dict(state)
