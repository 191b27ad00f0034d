"""EnCodec chunk by chunk: the samples of one whole decode, nothing computed twice, nothing kept but what is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stretto_codec import loading
from stretto_codec.loading import ARCHITECTURES, make_loaded
from stretto_codec.models.encodec import GEOMETRIES, Encodec, EncodecConfig
from stretto_codec.models.encodec.layouts import convert_state
from stretto_codec.models.encodec.streamed_layers import elu
from stretto_codec.models.encodec.streaming import EncodecDecoder, encodec_grid
from stretto_codec.models.packed_matrix import PackedMatrix
from stretto_codec.models.streaming import ClipDecoder, DecodeGrid, decode_on_grid
from torch.nn.utils.parametrizations import weight_norm

TINY = {
    name: replace(GEOMETRIES[name], num_filters=4, hidden_size=16, cardinality=32, num_codebooks=4)
    for name in ("encodec_24khz", "encodec_32khz")
}
LENGTHS = [1, 2, 3, 4, 5, 6, 7, 8, 10, 14, 15, 16, 17, 20, 31, 45, 64]


def make(config: EncodecConfig, seed: int = 0) -> Encodec:
    torch.manual_seed(seed)
    return Encodec(config).eval()


def random_codes(config: EncodecConfig, num_frames: int) -> torch.Tensor:
    shape = (1, config.num_codebooks, num_frames)
    return torch.randint(0, config.cardinality, shape, generator=torch.Generator().manual_seed(1))


def count_rows(monkeypatch: pytest.MonkeyPatch) -> dict[PackedMatrix, int]:
    """Rows that each product computes from now on."""
    counted: dict[PackedMatrix, int] = {}
    product = PackedMatrix._product

    def watched(matrix: PackedMatrix, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        counted[matrix] = counted.get(matrix, 0) + x.shape[0] * x.shape[1]
        return product(matrix, x, *rest)

    monkeypatch.setattr(PackedMatrix, "_product", watched)
    return counted


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("num_frames", LENGTHS)
@torch.inference_mode()
def test_streamed_decode_equals_offline_decode(name: str, num_frames: int) -> None:
    config = TINY[name]
    model = make(config)
    codes = random_codes(config, num_frames)
    offline = model.decode(codes)
    streamed = decode_on_grid(ClipDecoder(EncodecDecoder(model)), encodec_grid(config), codes)
    assert streamed.shape == offline.shape == (1, config.num_channels, num_frames * config.hop_length)
    assert offline.abs().max() > 1e-3
    torch.testing.assert_close(streamed, offline, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"num_residual_layers": 2}, {"conv_shortcut": True, "pad_mode": "constant"}])
@pytest.mark.parametrize("chunk_frames", [1, 3, 11])
@pytest.mark.parametrize("causal", [True, False])
@torch.inference_mode()
def test_streamed_decode_is_exact_on_other_grids_and_geometries(
    causal: bool, chunk_frames: int, changes: dict[str, Any]
) -> None:
    config = replace(TINY["encodec_24khz"], causal=causal, ratios=(4, 3), conv_shortcut=False)
    config = replace(config, **changes)
    model = make(config)
    for num_frames in (2, 5, 50):
        codes = random_codes(config, num_frames)
        streamed = decode_on_grid(ClipDecoder(EncodecDecoder(model)), DecodeGrid(chunk_frames), codes)
        torch.testing.assert_close(streamed, model.decode(codes), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_no_row_is_computed_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TINY[name]
    decoder, codes = EncodecDecoder(make(config)), random_codes(config, 45)
    counted = count_rows(monkeypatch)
    decode_on_grid(ClipDecoder(decoder), DecodeGrid(45), codes)
    at_once = dict(counted)
    counted.clear()
    decode_on_grid(ClipDecoder(decoder), DecodeGrid(5, (7,)), codes)
    assert counted.keys() == at_once.keys() and len(counted) > 10
    # The last convolution multiplies the rows that it keeps once more, with a matrix of as many columns as it has taps.
    again = {matrix: counted[matrix] - rows for matrix, rows in at_once.items() if counted[matrix] != rows}
    assert [(m.num_outputs, rows) for m, rows in again.items()] == [(7, 8 * 6)]


@pytest.mark.parametrize(("name", "lag"), [("encodec_24khz", 0), ("encodec_32khz", 2402)])
@torch.inference_mode()
def test_the_first_samples_come_as_early_as_the_docstring_says(name: str, lag: int) -> None:
    config = TINY[name]
    decoder = EncodecDecoder(make(config))
    assert decoder.lag == lag
    clip, codes = ClipDecoder(decoder), random_codes(config, 30)
    assert clip.step(codes[..., :10]).shape[-1] == 10 * config.hop_length - lag
    assert clip.step(codes[..., 10:15]).shape[-1] == 5 * config.hop_length
    rest = clip.finish()
    assert (0 if rest is None else rest.shape[-1]) == lag


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_the_state_is_small_whatever_the_chunks(name: str) -> None:
    config = TINY[name]
    sizes = set()
    for num_frames in (20, 80):
        clip = ClipDecoder(EncodecDecoder(make(config)))
        clip.step(random_codes(config, num_frames))
        clip.step(random_codes(config, num_frames))
        sizes.add(sum(tensor.untyped_storage().nbytes() for tensor in tensors_of(clip._state)))
    assert len(sizes) == 1 and sizes.pop() < 20_000


def tensors_of(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    values = state if isinstance(state, list) else vars(state).values() if hasattr(state, "__dict__") else []
    return [tensor for value in values for tensor in tensors_of(value)]


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_bfloat16_stays_near_float32_and_is_not_the_same(name: str) -> None:
    config = TINY[name]
    model, codes = make(config), random_codes(config, 60)
    exact = model.decode(codes)
    rounded = decode_on_grid(ClipDecoder(EncodecDecoder(model, torch.bfloat16)), encodec_grid(config), codes)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    signal_to_noise_db = 10 * torch.log10(exact.square().sum() / (rounded - exact).square().sum())
    assert signal_to_noise_db > 30


@pytest.mark.parametrize("num_steps", [1, 5, 13, 64])
@torch.inference_mode()
def test_values_of_a_clip_do_not_depend_on_where_they_lie_in_the_batch(num_steps: int) -> None:
    x = 2 * torch.randn(64, num_steps, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(elu(x), torch.cat([elu(clip) for clip in x.chunk(64)]))
    torch.testing.assert_close(elu(x), torch.nn.functional.elu(x))


@torch.inference_mode()
def test_a_trained_weight_norm_is_folded_before_it_is_packed() -> None:
    model = make(TINY["encodec_24khz"])
    normed = make(TINY["encodec_24khz"])
    for module in list(normed.modules()):
        if isinstance(module, (torch.nn.Conv1d, torch.nn.ConvTranspose1d)):
            weight_norm(module)
            module.parametrizations.weight.original0.mul_(1.5)
    state = normed.state_dict()
    published = {key: value for key, value in state.items() if key != "quantizer.codebooks"}
    for level, codebook in enumerate(state["quantizer.codebooks"]):
        published[f"quantizer.layers.{level}.codebook.embed"] = codebook
    model.load_state_dict(convert_state(published))
    assert not any("parametriz" in name or "weight_g" in name for name, _ in model.named_parameters())
    codes = random_codes(model.config, 20)
    streamed = decode_on_grid(ClipDecoder(EncodecDecoder(model)), encodec_grid(model.config), codes)
    torch.testing.assert_close(streamed, normed.decode(codes), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.inference_mode()
def test_a_codec_that_only_streams_decodes_as_before_without_its_whole_decoder(dtype: str) -> None:
    config = TINY["encodec_32khz"]
    codes = random_codes(config, 30)
    kept, light = (
        make_loaded(
            "tiny",
            make(config),
            ARCHITECTURES["Encodec"],
            config,
            digest_sha256="0" * 64,
            dtype=dtype,
            only_streams=only,
        )
        for only in (False, True)
    )
    assert (
        light.info == kept.info
        and sum(each.numel() for each in light.module.parameters()) < light.info.parameter_count / 2
    )
    assert torch.equal(
        decode_on_grid(light.open_decoder(), light.grid, codes), decode_on_grid(kept.open_decoder(), kept.grid, codes)
    )
    assert torch.equal(light.encode(torch.ones(1, 1, 6400))[0], kept.encode(torch.ones(1, 1, 6400))[0])


def test_only_the_pages_of_a_checkpoint_that_its_module_does_not_hold_are_given_back(
    weights_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[torch.Tensor] = []
    monkeypatch.setattr(loading, "page_out", given_back.extend)
    held = loading.load("framecodec", "default", weights_dir=weights_dir, only_streams=True).module.state_dict()
    assert held and not {each.data_ptr() for each in given_back} & {each.data_ptr() for each in held.values()}
