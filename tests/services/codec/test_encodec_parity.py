"""EnCodec against the published implementations, with the same random weights: equal codes, equal audio.

`encodec` imports torchaudio for file conversion and its discriminator only; torchaudio does not import beside the CPU
build of torch, so a stand-in takes its place for the import.
"""

from __future__ import annotations

import importlib
import io
import sys
import types
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stretto_codec import convert_encodec
from stretto_codec.loading import load
from stretto_codec.models.encodec import GEOMETRIES, Encodec, ecdc
from stretto_codec.models.encodec.config import from_hugging_face
from stretto_codec.models.encodec.layouts import convert_state
from torch import nn

HUGGING_FACE_OPTIONS: dict[str, dict[str, Any]] = {
    "encodec_24khz": {},
    "encodec_32khz": {
        "sampling_rate": 32_000,
        "codebook_size": 2048,
        "num_filters": 64,
        "upsampling_ratios": [8, 5, 4, 4],
        "target_bandwidths": [2.2],
        "use_causal_conv": False,
        "use_conv_shortcut": False,
    },
    "encodec_48khz": {
        "sampling_rate": 48_000,
        "audio_channels": 2,
        "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
        "norm_type": "time_group_norm",
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
        "use_causal_conv": False,
    },
}
NARROW = {"num_filters": 8, "hidden_size": 32}


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Random weights everywhere, gains and codebooks too, so that no mistake hides behind a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in module.state_dict().items():
        if key.endswith("embed"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
        elif key.endswith(("weight_g", "original0", "norm.weight")):
            tensor.mul_(0.8 + 0.4 * torch.rand(tensor.shape, generator=generator))
        elif key.endswith("norm.bias"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)


def noise(num_channels: int, num_samples: int) -> torch.Tensor:
    return torch.randn(1, num_channels, num_samples, generator=torch.Generator().manual_seed(5)) * 0.2


def hugging_face_model(name: str, **options: Any) -> Any:
    from transformers import EncodecConfig as ReferenceConfig
    from transformers import EncodecModel as Reference

    torch.manual_seed(0)
    reference = Reference(ReferenceConfig(**(HUGGING_FACE_OPTIONS[name] | options))).eval()
    randomise(reference)
    return reference


@pytest.mark.parametrize("num_samples", [700, 52_000])
@pytest.mark.parametrize("name", GEOMETRIES)
@torch.inference_mode()
def test_codes_and_audio_equal_those_of_transformers(name: str, num_samples: int) -> None:
    reference = hugging_face_model(name, **NARROW)
    config = from_hugging_face(reference.config.to_dict())
    model = Encodec(config).eval()
    model.load_state_dict(convert_state(reference.state_dict()))
    audio = noise(config.num_channels, num_samples)

    expected = reference.encode(audio, bandwidth=reference.config.target_bandwidths[-1])
    segments = list(expected.audio_codes)  # [N] of [B, K, T]
    if expected.last_frame_pad_length:
        segments[-1] = segments[-1][..., : -expected.last_frame_pad_length]
    codes, scales = model.encode_scaled(audio)
    assert torch.equal(codes, torch.cat(segments, dim=-1))
    if config.normalize:
        torch.testing.assert_close(scales, torch.cat(expected.audio_scales, dim=1))

    decoded = reference.decode(
        expected.audio_codes, expected.audio_scales, last_frame_pad_length=expected.last_frame_pad_length
    ).audio_values
    ours = model.decode(codes, scales if config.normalize else None)
    assert ours.shape == decoded.shape and decoded.abs().max() > 1e-3
    torch.testing.assert_close(ours, decoded, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_true_geometries_take_the_published_tensors(name: str) -> None:
    """Shapes and names of the full sizes, without running them."""
    from transformers import EncodecConfig as ReferenceConfig
    from transformers import EncodecModel as Reference

    with torch.device("meta"):
        reference = Reference(ReferenceConfig(**HUGGING_FACE_OPTIONS[name]))
        expected = {key: tensor.shape for key, tensor in convert_state(reference.state_dict()).items()}
        ours = {key: tensor.shape for key, tensor in Encodec(GEOMETRIES[name]).state_dict().items()}
    assert ours == expected


def test_a_hugging_face_folder_is_served_as_it_is(tmp_path: Path) -> None:
    reference = hugging_face_model("encodec_24khz", **NARROW)
    reference.save_pretrained(tmp_path / "published")
    codec = load("encodec_24khz", f"file://{tmp_path}/published", weights_dir=tmp_path)
    audio = noise(1, 5000)
    with torch.inference_mode():
        expected = reference.encode(audio, bandwidth=24.0).audio_codes[0]
        assert torch.equal(codec.encode(audio)[0], expected)
    assert codec.info.num_codebooks == 32 and codec.info.frame_rate_hz == 75


def test_both_spellings_of_weight_norm_are_folded_alike() -> None:
    reference = hugging_face_model("encodec_24khz", **NARROW)
    state = reference.state_dict()
    spelled = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for key, tensor in state.items()
    }
    assert any(key.endswith("weight_g") for key in spelled) and spelled.keys() != state.keys()
    converted, again = convert_state(state), convert_state(spelled)
    assert converted.keys() == again.keys()
    assert all(torch.equal(converted[key], again[key]) for key in converted)
    del spelled["encoder.layers.0.conv.weight_v"]
    with pytest.raises(ValueError, match="weight_v"):
        convert_state(spelled)


@pytest.fixture
def encodec_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The `encodec` package with a stand-in for torchaudio, gone again afterwards."""
    for name in ("torchaudio", "torchaudio.transforms"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    before = set(sys.modules)
    import encodec

    yield encodec
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "encodec":
            del sys.modules[name]


def original_model(package: Any, name: str) -> Any:
    torch.manual_seed(0)
    builders = {
        "encodec_24khz": package.EncodecModel.encodec_model_24khz,
        "encodec_48khz": package.EncodecModel.encodec_model_48khz,
    }
    original = builders[name](pretrained=False)
    randomise(original)
    original.name = name
    return original


def converted_codec(original: Any, name: str, folder: Path) -> Any:
    """The original's checkpoint, through the offline converter and the server's loader."""
    torch.save(original.state_dict(), folder / "original.th")
    convert_encodec.main([str(folder / "original.th"), str(folder / name), "--name", name])
    return load(name, "default", weights_dir=folder)


@pytest.mark.parametrize(("name", "num_samples"), [("encodec_24khz", 8_000), ("encodec_48khz", 50_000)])
@torch.inference_mode()
def test_codes_audio_and_files_equal_those_of_the_original(
    encodec_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, num_samples: int
) -> None:
    original = original_model(encodec_package, name)
    codec = converted_codec(original, name, tmp_path)
    assert asdict(codec.config) == asdict(GEOMETRIES[name])
    audio = noise(original.channels, num_samples)

    frames = original.encode(audio)
    codes, scales = codec.encode(audio)
    assert torch.equal(codes, torch.cat([segment for segment, _ in frames], dim=-1))
    decoded = original.decode(frames)
    ours = codec.module.decode(codes, scales if codec.config.normalize else None)
    torch.testing.assert_close(ours, decoded, atol=1e-4, rtol=1e-4)

    # `.ecdc`: its bytes are ours, and each side reads the other's.
    compress = importlib.import_module("encodec.compress")  # the package hides it behind a function
    theirs = compress.compress(original, audio[0])
    clip = ecdc.Clip(name, num_samples, codes[0].numpy().astype(np.int32), tuple(scales[0].tolist()))
    written = ecdc.write(clip, codec.config)
    assert written == theirs
    read = ecdc.read(theirs, GEOMETRIES)
    assert (read.model, read.num_samples) == (name, num_samples)
    assert np.array_equal(read.codes, codes[0].numpy())
    np.testing.assert_allclose(read.scales, scales[0].numpy(), rtol=1e-6)
    monkeypatch.setitem(compress.MODELS, name, lambda: original)
    decompressed, rate_hz = compress.decompress(written)
    assert rate_hz == codec.config.sample_rate_hz
    torch.testing.assert_close(decompressed, decoded[0, :, :num_samples], atol=1e-5, rtol=1e-4)


def test_the_converter_refuses_what_is_not_encodec(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.th")
    with pytest.raises(SystemExit, match="codebooks"):
        convert_encodec.main([str(tmp_path / "other.th"), str(tmp_path / "out")])
    (tmp_path / "other.bin").write_bytes(b"not a checkpoint")
    with pytest.raises(SystemExit, match="checkpoint"):
        convert_encodec.main([str(tmp_path / "other.bin"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["magic", "version", "truncated", "language_model", "unknown", "header", "long"])
def test_damaged_ecdc_files_are_refused(damage: str) -> None:
    codes = np.zeros((2, 3), dtype=np.int32)
    data = ecdc.write(ecdc.Clip("encodec_24khz", 900, codes, ()), GEOMETRIES["encodec_24khz"])
    assert np.array_equal(ecdc.read(data, GEOMETRIES).codes, codes)
    damaged = {
        "magic": b"X" + data[1:],
        "version": data[:4] + b"\x01" + data[5:],
        "truncated": data[:-1],
        "language_model": data.replace(b'"lm": false', b'"lm": true '),
        "unknown": data.replace(b"encodec_24khz", b"encodec_99khz"),
        "header": data[:9] + b"]" + data[10:],
        "long": data.replace(b'"al": 900', b'"al": 9e9'),
    }[damage]
    with pytest.raises(ecdc.DamagedFile):
        ecdc.read(io.BytesIO(damaged).getvalue(), GEOMETRIES)
