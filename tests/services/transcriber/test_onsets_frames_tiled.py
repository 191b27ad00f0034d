"""The harmonic network by the native kernel, in bfloat16: what it gives, alone and in company, and when it is used."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stretto_transcriber
import torch
from stretto_shared import weights
from stretto_shared.nn.lowbit import NativeKernel
from stretto_shared.nn.lowbit.lattice import ARITHMETIC
from stretto_transcriber import loading
from stretto_transcriber.models.onsets_frames import OnsetsFrames, OnsetsFramesConfig, maestro_config
from stretto_transcriber.models.onsets_frames.releases import (
    NUM_ENDS_STEPS,
    NUM_INPUTS,
    NUM_STEPS,
    ReleaseNetwork,
    ReleaseReader,
)
from stretto_transcriber.models.onsets_frames.tiled_releases import TiledReleases

FOLDER = Path(stretto_transcriber.__path__[0]).parent / "weights"
CONFIG = OnsetsFramesConfig(
    stem_channels=16, fold_channels=32, branch_channels=48, lstm_size=32, combined_lstm_size=24, window_frames=50,
    context_frames=10, has_key_head=True,
)  # fmt: skip
HEADS = ("onset", "offset", "frame", "velocity", "key")


@pytest.fixture
def kernel(either_bands_kernel: NativeKernel) -> NativeKernel:
    return either_bands_kernel


def lively(config: OnsetsFramesConfig) -> OnsetsFrames:
    """Untrained, but every weight has its say: norms that scale and shift, a register, heads that are not rare."""
    torch.manual_seed(0)
    model = OnsetsFrames(config).eval().requires_grad_(False)
    for name, tensor in model.state_dict().items():
        if "register" in name or name.endswith("head.bias"):
            tensor.normal_(std=0.5)
        elif name.endswith("running_mean"):
            tensor.normal_(std=0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.3, 1.0)
        elif name.endswith("head.weight"):
            tensor.normal_(std=1.0)
    return model


def sound(config: OnsetsFramesConfig, count: int = 1) -> torch.Tensor:
    size = (config.window_frames + 2 * config.context_frames) * config.hop_length
    levels = torch.logspace(-2, 0, count)[:, None]
    return torch.randn(count, size, generator=torch.Generator().manual_seed(1)) * levels


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"has_key_head": False},
        {"has_offset_head": False, "has_key_head": False},
        {"branch_channels": 64, "lstm_size": 48, "combined_lstm_size": 40, "fold_channels": 16, "stem_channels": 32},
    ],
)
@torch.inference_mode()
def test_tiles_give_what_the_network_gives(kernel: NativeKernel, changes: dict[str, Any]) -> None:
    model = lively(dataclasses.replace(CONFIG, **changes))
    audio = sound(model.config)
    exact = model.window_heads(audio)
    assert model.use_kernel(kernel)
    heard = model.window_heads(audio)

    for name in HEADS:
        wanted, got = getattr(exact, name), getattr(heard, name)
        assert (wanted is None) == (got is None)
        if wanted is not None:
            assert wanted.std() > 0.02
            torch.testing.assert_close(got, wanted, atol=0.06, rtol=0)
            assert (got - wanted).abs().mean() < 0.006


@torch.inference_mode()
def test_company_changes_no_byte(kernel: NativeKernel) -> None:
    model = lively(CONFIG)
    assert model.use_kernel(kernel)
    audio = sound(CONFIG, 3)
    together = model.window_heads(audio).stacked()
    for row, wanted in zip(audio, together, strict=True):
        assert torch.equal(model.window_heads(row[None]).stacked()[0], wanted)
    assert torch.equal(model.window_heads(audio.flip(0)).stacked().flip(0), together)


@pytest.mark.parametrize(
    "config", [dataclasses.replace(CONFIG, branch_channels=40, release_channels=8), maestro_config()]
)
def test_what_has_no_whole_tiles_hears_as_before(kernel: NativeKernel, config: OnsetsFramesConfig) -> None:
    small = dataclasses.replace(config, conv_channels=4, fc_size=8, combined_lstm_size=4, lstm_size=4)
    model, audio = lively(small), sound(small)
    exact = model.window_heads(audio).stacked()
    assert not model.use_kernel(kernel)
    assert not isinstance(model.release_reader, TiledReleases)
    assert torch.equal(model.window_heads(audio).stacked(), exact)


@torch.inference_mode()
def test_the_committed_network_hears_by_the_kernel_what_it_hears(bands_kernel: NativeKernel, tmp_path: Path) -> None:
    plain = loading.load_transcriber("onsets_frames", "default", weights_dir=FOLDER)
    tiled = loading.load_transcriber(
        "onsets_frames", "default", weights_dir=FOLDER, native_kernel_dir=tmp_path, max_joined=2
    )
    config = plain.listener.config
    size = (config.window_frames + 2 * config.context_frames) * config.hop_length
    times_s = torch.arange(size) / config.sample_rate_hz
    struck = sum(
        torch.sin(2 * torch.pi * hz * times_s) * torch.exp(-2 * (times_s % each_s))
        for hz, each_s in ((220, 0.7), (330, 0.5))
    )
    samples = (0.2 * torch.as_tensor(struck)).numpy()[None]
    exact, heard = plain.hear(samples), tiled.hear(samples)

    assert tiled.max_joined == 2
    arithmetic = bands_kernel.rounded_as(ARITHMETIC)
    named = f"{plain.info.digest_sha256} bfloat16 {arithmetic}"  # a receipt tells both apart, and later arithmetic too
    assert tiled.info.digest_sha256 == hashlib.sha256(named.encode()).hexdigest()
    assert (plain.info.source, tiled.info.source) == ("default", "default#bfloat16")
    assert (exact != heard).any()  # in bfloat16 indeed
    assert exact.max() > 0.9
    assert abs(exact - heard).max() < 0.05 and abs(exact - heard).mean() < 5e-4


@pytest.mark.parametrize("channels", [8, 40])
@torch.inference_mode()
def test_tiles_tell_when_notes_end_as_the_network_does(kernel: NativeKernel, channels: int) -> None:
    torch.manual_seed(0)
    network = ReleaseNetwork(channels)
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, std=0.1 if "convs" in name or "mixes" in name else 0.2)
    torch.nn.init.constant_(network.head.bias, -3.0)
    given = np.random.default_rng(0).random((70, NUM_STEPS, NUM_INPUTS)).astype(np.float32)
    exact, tiled = ReleaseReader(network).lasting(given), TiledReleases(network, kernel)
    heard = tiled.lasting(given)

    assert heard.shape == exact.shape and exact[:, 30].std() > 0.02
    assert np.abs(heard - exact).max() < 0.03 and np.abs(heard - exact).mean() < 0.003
    for index in (0, 9, 69):
        assert tiled.lasting(given[index : index + 1]).tobytes() == heard[index].tobytes()
    assert tiled.lasting(given[:0]).shape == (0, NUM_ENDS_STEPS, 2)


def test_decoders_of_a_model_by_tiles_are_told_by_tiles(kernel: NativeKernel) -> None:
    model = lively(dataclasses.replace(CONFIG, release_channels=8))
    assert isinstance(model.release_reader, ReleaseReader)
    assert model.use_kernel(kernel)
    assert isinstance(model.release_reader, TiledReleases)


def test_a_machine_without_the_kernel_serves_in_float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "load_bands", lambda folder: None)
    with_folder = loading.load_transcriber("onsets_frames", "default", weights_dir=FOLDER, native_kernel_dir=tmp_path)
    without = loading.load_transcriber("onsets_frames", "default", weights_dir=FOLDER)
    samples = sound(OnsetsFramesConfig()).numpy()
    assert with_folder.info == without.info
    assert (
        with_folder.info.digest_sha256
        == weights.resolve("default", name="onsets_frames", default_dir=FOLDER).digest_sha256
    )
    assert (with_folder.hear(samples) == without.hear(samples)).all()
