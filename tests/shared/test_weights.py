"""`stretto_shared.weights`: every source resolves to a verified file, and nothing else is opened."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from stretto_shared import weights
from stretto_shared.errors import InvalidInput, NotReady

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def write_tiny(default_dir: Path, name: str = "tiny") -> str:
    return weights.write(
        default_dir / name,
        TENSORS,
        name=name,
        architecture="linear",
        config={"width": 3},
        licence="Apache-2.0",
        score="",
        training={"steps": 0},
    )


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | changes))


def make_hugging_face_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "encodec", "sampling_rate": 24000}))
    save_file(TENSORS, folder / "model.safetensors")
    return folder


def test_written_weights_resolve_with_their_digest_and_tensors(tmp_path: Path) -> None:
    digest = write_tiny(tmp_path)
    resolved = weights.resolve("default", name="tiny", default_dir=tmp_path)
    assert resolved.digest_sha256 == digest == weights.sha256_of(tmp_path / "tiny" / "model.safetensors")
    assert resolved.config["parameter_count"] == 8
    assert resolved.config["architecture"] == "linear"
    assert not resolved.is_hugging_face_layout
    tensors = weights.load_tensors(resolved)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == ["config.json", "model.safetensors"]


def test_what_the_config_says_of_licence_and_score_is_told_and_so_is_its_silence(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    edit_config(tmp_path / "tiny", score="good")
    said = weights.resolve("default", name="tiny", default_dir=tmp_path)
    assert (said.licence, said.score) == ("Apache-2.0", "good")
    silent = weights.resolve(f"file://{make_hugging_face_folder(tmp_path / 'other')}", name="b", default_dir=tmp_path)
    assert (silent.licence, silent.score) == (weights.NO_LICENCE_STATED, "")


def test_shared_and_strided_tensors_can_be_written(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    weights.write(
        tmp_path / "tied",
        {"weight": weight.t(), "tied": weight},
        name="tied",
        architecture="linear",
        config={},
        licence="Apache-2.0",
        score="",
        training={},
    )
    tensors = weights.load_tensors(weights.resolve("default", name="tied", default_dir=tmp_path))
    assert torch.equal(tensors["weight"], weight.t())


def test_file_source_takes_our_layout(tmp_path: Path) -> None:
    digest = write_tiny(tmp_path)
    resolved = weights.resolve(f"file://{tmp_path}/tiny", name="mine", default_dir=tmp_path / "elsewhere")
    assert (resolved.digest_sha256, resolved.name) == (digest, "mine")


def test_file_source_takes_a_hugging_face_folder(tmp_path: Path) -> None:
    folder = make_hugging_face_folder(tmp_path / "hf folder")
    resolved = weights.resolve(f"file://{str(folder).replace(' ', '%20')}", name="encodec_24khz", default_dir=tmp_path)
    assert resolved.is_hugging_face_layout
    assert resolved.config["sampling_rate"] == 24000
    assert resolved.digest_sha256 == weights.sha256_of(folder / "model.safetensors")


def test_sharded_hugging_face_weights_are_read_whole(tmp_path: Path) -> None:
    folder = make_hugging_face_folder(tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for index, (key, tensor) in enumerate(TENSORS.items()):
        weight_map[key] = f"model-0000{index + 1}-of-00002.safetensors"
        save_file({key: tensor}, folder / weight_map[key])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    resolved = weights.resolve(f"file://{folder}", name="sharded", default_dir=tmp_path)
    assert len(resolved.shards) == 2
    assert weights.load_tensors(resolved).keys() == TENSORS.keys()
    opened = weights.open_tensors(resolved)
    assert len(opened) == len(TENSORS) and opened.keys() == TENSORS.keys()
    assert all(torch.equal(opened[key], tensor) for key, tensor in TENSORS.items())
    (folder / weight_map["bias"]).unlink()
    with pytest.raises(NotReady, match="missing"):
        weights.resolve(f"file://{folder}", name="sharded", default_dir=tmp_path)


def test_hugging_face_source_comes_from_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder = make_hugging_face_folder(tmp_path / "cached")
    calls: list[tuple[str, str | None, bool]] = []

    def snapshot(repo: str, *, revision: str | None = None, local_files_only: bool = False, **_: Any) -> str:
        calls.append((repo, revision, local_files_only))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    resolved = weights.resolve("hf://facebook/encodec_24khz@abc123", name="encodec_24khz", default_dir=tmp_path)
    assert calls == [("facebook/encodec_24khz", "abc123", True)]
    assert resolved.source == "hf://facebook/encodec_24khz@abc123"


def test_unreachable_hugging_face_source_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(NotReady, match="not in the local Hugging Face cache"):
        weights.resolve("hf://facebook/encodec_24khz", name="encodec_24khz", default_dir=tmp_path)


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    save_file({"weight": torch.zeros(2, 3)}, tmp_path / "tiny" / "model.safetensors")
    with pytest.raises(NotReady) as caught:
        weights.resolve("default", name="tiny", default_dir=tmp_path)
    assert caught.value.reason == "WEIGHTS_DIGEST_MISMATCH"


def test_manifest_without_digest_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    edit_config(tmp_path / "tiny", weights_sha256=None)
    with pytest.raises(NotReady, match="sha256"):
        weights.resolve("default", name="tiny", default_dir=tmp_path)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write_tiny(tmp_path)
    (tmp_path / "tiny" / missing).unlink()
    with pytest.raises(NotReady, match=missing) as caught:
        weights.resolve("default", name="tiny", default_dir=tmp_path)
    assert caught.value.reason == "WEIGHTS_MISSING"


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="absent"):
        weights.resolve("default", name="absent", default_dir=tmp_path)


@pytest.mark.parametrize("content", ["", "not json", "[1]"])
def test_damaged_config_is_refused(tmp_path: Path, content: str) -> None:
    write_tiny(tmp_path)
    (tmp_path / "tiny" / "config.json").write_text(content)
    with pytest.raises(NotReady, match=r"config\.json"):
        weights.resolve("default", name="tiny", default_dir=tmp_path)


class Bomb:
    """Unpickling it raises: proof that nobody does."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise AssertionError('unpickled')",))


def test_pickle_beside_the_config_is_refused(tmp_path: Path) -> None:
    folder = make_hugging_face_folder(tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InvalidInput, match=r"pytorch_model\.bin") as caught:
        weights.resolve(f"file://{folder}", name="pickled", default_dir=tmp_path)
    assert caught.value.reason == "PICKLE_REFUSED"


def test_pickle_under_the_name_of_safetensors_is_refused(tmp_path: Path) -> None:
    folder = make_hugging_face_folder(tmp_path / "disguised")
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InvalidInput, match="pickle"):
        weights.resolve(f"file://{folder}", name="disguised", default_dir=tmp_path)
    torch.save(TENSORS, folder / "model.safetensors")
    with pytest.raises(InvalidInput, match="pickle"):
        weights.resolve(f"file://{folder}", name="disguised", default_dir=tmp_path)


def test_lfs_pointer_is_refused(tmp_path: Path) -> None:
    folder = make_hugging_face_folder(tmp_path / "pointer")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(NotReady, match="not a safetensors file"):
        weights.resolve(f"file://{folder}", name="pointer", default_dir=tmp_path)


@pytest.mark.parametrize("name", ["../secret", "a/b", "..", ".hidden", "", "a..b", "/etc", "x\n"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="model name"):
        weights.resolve("default", name=name, default_dir=tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "ftp://x",
        "",
        "file://relative/path",
        "file:///a/../b",
        "hf://one-part",
        "hf://org/../name",
        "hf://org/name@",
        "hf://org/name@re/vision",
    ],
)
def test_malformed_sources_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        weights.resolve(source, name="tiny", default_dir=tmp_path)


def test_shards_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder = make_hugging_face_folder(tmp_path / "outside")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../outside.safetensors"}}))
    with pytest.raises(InvalidInput, match="model name"):
        weights.resolve(f"file://{folder}", name="outside", default_dir=tmp_path)


def test_model_list_keeps_order_and_sources() -> None:
    assert list(weights.parse_model_list("framecodec, e24=hf://facebook/encodec_24khz,").items()) == [
        ("framecodec", "default"),
        ("e24", "hf://facebook/encodec_24khz"),
    ]


@pytest.mark.parametrize("text", ["", " , ", "a,a", "../a", "=default"])
def test_malformed_model_lists_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        weights.parse_model_list(text)
