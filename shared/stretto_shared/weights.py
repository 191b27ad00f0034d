"""Weights: a source named by the operator becomes a verified local file. No torch at import, no requests, no models.

Three sources, one resolver:

- `default`: the checkpoint committed beside the service, `<default_dir>/<name>/{model.safetensors,config.json}`.
- `file:///absolute/path`: a folder of the same layout, or one in the Hugging Face layout.
- `hf://org/name@revision`: a Hugging Face repository; the local cache first, the network only after it.

Only safetensors are ever read: a pickle runs code when it is opened. In this project's own layout `config.json`
carries `weights_sha256`, and a file with another digest is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from stretto_shared.errors import InvalidInput, NotReady

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
NO_LICENCE_STATED = "NOASSERTION"  # as SPDX has it

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HF_SOURCE = re.compile(r"hf://(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w.-]+))?")
_PICKLE_SUFFIXES = (".bin", ".ckpt", ".pkl", ".pt", ".pth", ".th")
_HF_PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model"]


@dataclass(frozen=True)
class ResolvedWeights:
    """Weights that were found and verified.

    Invariant: every path in `shards` starts as a safetensors file does; `digest_sha256` is the file's own digest, or,
    for weights in several files, the digest of their digests in order. `tests/shared/test_weights.py` holds it to that.

    Args:
        weights_path: The safetensors file, or the first of several.
        config: The parsed `config.json`.
        digest_sha256: 64 hex digits.
        source: The source as the operator wrote it.
        name: The name under which the service knows the model.
        shards: All safetensors files, in order.
    """

    weights_path: Path
    config: Mapping[str, Any]
    digest_sha256: str
    source: str
    name: str
    shards: tuple[Path, ...] = field(default=())

    @property
    def folder(self) -> Path:
        """The folder that holds the files; tokenizers and cards lie beside the weights."""
        return self.weights_path.parent

    @property
    def licence(self) -> str:
        """What the config says that the weights' licence is."""
        return str(self.config.get("licence", NO_LICENCE_STATED))

    @property
    def score(self) -> str:
        """What the config says that the weights achieve; empty where it is silent."""
        return str(self.config.get("score", ""))

    @property
    def is_hugging_face_layout(self) -> bool:
        """Whether `config.json` is one of `transformers` rather than of this project."""
        return "weights_sha256" not in self.config


def parse_model_list(text: str) -> dict[str, str]:
    """Read `framecodec,encodec_24khz=hf://facebook/encodec_24khz` as names and sources, in order.

    A name without `=source` takes the source `default`.

    Raises:
        InvalidInput: If the list is empty, or a name is malformed or comes twice.
    """
    sources: dict[str, str] = {}
    for entry in (part.strip() for part in text.split(",")):
        if not entry:
            continue
        name, _, source = entry.partition("=")
        _check_name(name)
        if name in sources:
            raise InvalidInput("models", f"expected each name once, got {name!r} twice in {text!r}. Remove one.")
        sources[name] = source or "default"
    if not sources:
        raise InvalidInput("models", f"expected at least one model as name[=source], got {text!r}. Name one.")
    return sources


def resolve(source: str, *, name: str, default_dir: Path) -> ResolvedWeights:
    """Find the weights of model `name` at `source` and verify them.

    Args:
        source: `default`, `file:///absolute/path` or `hf://org/name@revision`.
        name: The model's name; for `default` also the folder under `default_dir`.
        default_dir: The service's own `weights` folder.

    Raises:
        InvalidInput: If the name or the source is malformed, or the folder holds pickles instead of safetensors.
        NotReady: If a file is missing, damaged or has another digest than its `config.json` says.
    """
    _check_name(name)
    folder = _folder_of(source, name=name, default_dir=default_dir)
    config = _read_json(folder / CONFIG_FILE, source)
    shards = _find_shards(folder, source)
    for shard in shards:
        _check_is_safetensors(shard, source)
    digests = [sha256_of(shard) for shard in shards]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    _check_digest(config, digest, source=source, folder=folder)
    return ResolvedWeights(shards[0], config, digest, source, name, shards)


def load_tensors(resolved: ResolvedWeights) -> dict[str, Tensor]:
    """Read all tensors of `resolved` to the CPU, as they were stored."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for shard in resolved.shards or (resolved.weights_path,):
        tensors.update(load_file(shard))
    return tensors


def open_tensors(resolved: ResolvedWeights) -> Mapping[str, Tensor]:
    """The tensors of `resolved`, each read when it is asked for, so that a caller never holds more than it keeps."""
    from safetensors import safe_open

    shard_of: dict[str, Path] = {}
    for shard in resolved.shards or (resolved.weights_path,):
        with safe_open(shard, framework="pt") as file:
            shard_of.update(dict.fromkeys(file.keys(), shard))
    return _StoredTensors(shard_of)


class _StoredTensors(Mapping[str, "Tensor"]):
    """Opens its file anew for each tensor: what is mapped counts as memory of the process until the file is closed."""

    def __init__(self, shard_of: Mapping[str, Path]) -> None:
        self._shard_of = shard_of

    def __getitem__(self, key: str) -> Tensor:
        from safetensors import safe_open

        with safe_open(self._shard_of[key], framework="pt") as file:
            tensor: Tensor = file.get_tensor(key).clone()
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    def __len__(self) -> int:
        return len(self._shard_of)


def write(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    name: str,
    architecture: str,
    config: Mapping[str, Any],
    licence: str,
    score: str,
    training: Mapping[str, Any],
) -> str:
    """Write `model.safetensors` and `config.json` into `folder` and return the sha256 of the former.

    Both files are written beside their place and renamed, so that a reader never sees half of one.

    Args:
        folder: Created if need be; its files are replaced.
        tensors: The model's `state_dict`; `parameter_count` is the number of their elements.
        name: The model's name.
        architecture: The key of the service's registry that rebuilds the model.
        config: The fields of the architecture's config dataclass.
        licence: Licence of the weights, as an SPDX identifier where there is one.
        score: The measured score with its protocol, in one line; empty where nobody measured one.
        training: What made the weights: recipe, steps, hours, data.
    """
    from safetensors.torch import save_file

    _check_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    owned = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    partial = folder / f"{WEIGHTS_FILE}.partial"
    save_file(owned, partial)
    digest = sha256_of(partial)
    manifest = {
        "name": name,
        "architecture": architecture,
        "config": dict(config),
        "weights_sha256": digest,
        "licence": licence,
        "score": score,
        "parameter_count": sum(tensor.numel() for tensor in owned.values()),
        "training": dict(training),
    }
    partial_config = folder / f"{CONFIG_FILE}.partial"
    partial_config.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / WEIGHTS_FILE)
    partial_config.replace(folder / CONFIG_FILE)
    return digest


def sha256_of(path: Path) -> str:
    """The sha256 of a file as 64 hex digits, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name:
        raise InvalidInput(
            "model", f"expected a model name of letters, digits, '_', '-' and '.', got {name!r}. Use a plain name."
        )


def _folder_of(source: str, *, name: str, default_dir: Path) -> Path:
    if source == "default":
        folder = default_dir / name
    elif source.startswith("file://"):
        folder = _folder_of_file_source(source)
    elif source.startswith("hf://"):
        return _hugging_face_folder(source)
    else:
        raise InvalidInput(
            "source",
            f"expected 'default', 'hf://org/name@revision' or 'file:///absolute/path', got {source!r}.",
        )
    if not folder.is_dir():
        raise NotReady(
            f"Model {name!r} from {source!r} expects a folder {folder}, and there is none. "
            "Train it with its recipe, or name another source.",
            reason="WEIGHTS_MISSING",
        )
    return folder


def _folder_of_file_source(source: str) -> Path:
    url = urlparse(source)
    path = Path(unquote(url.path))
    if url.netloc not in ("", "localhost") or not path.is_absolute() or ".." in path.parts:
        raise InvalidInput(
            "source",
            f"expected file:// with an absolute path without '..', got {source!r}. Write file:///path/to/folder.",
        )
    if path.suffix in _PICKLE_SUFFIXES and path.is_file():
        raise _pickle_refused(source, path.name)
    return path


def _hugging_face_folder(source: str) -> Path:
    match = _HF_SOURCE.fullmatch(source)
    if match is None or ".." in source:
        raise InvalidInput("source", f"expected hf://org/name or hf://org/name@revision, got {source!r}. Correct it.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise NotReady(
            f"Source {source!r} needs the package huggingface_hub. Install it, or name a file:// source.",
            reason="WEIGHTS_MISSING",
        ) from error
    repo, revision = match["repo"], match["revision"]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=_HF_PATTERNS, local_files_only=True))
    except Exception:  # every way of not being in the cache leads to the download
        try:
            return Path(snapshot_download(repo, revision=revision, allow_patterns=_HF_PATTERNS))
        except Exception as error:
            raise NotReady(
                f"Source {source!r} is not in the local Hugging Face cache and could not be downloaded "
                f"({type(error).__name__}). Connect to the network once, or name a file:// source.",
                reason="WEIGHTS_MISSING",
            ) from error


def _read_json(path: Path, source: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotReady(f"Source {source!r} has no {path.name} at {path}. Add it.", reason="WEIGHTS_MISSING") from error
    except ValueError as error:
        raise NotReady(f"{path} is not JSON: {error}. Restore it.", reason="WEIGHTS_DAMAGED") from error
    if not isinstance(content, dict):
        raise NotReady(f"{path} should hold a JSON object. Restore it.", reason="WEIGHTS_DAMAGED")
    return content


def _find_shards(folder: Path, source: str) -> tuple[Path, ...]:
    if (folder / WEIGHTS_FILE).is_file():
        return (folder / WEIGHTS_FILE,)
    if (folder / INDEX_FILE).is_file():
        weight_map = _read_json(folder / INDEX_FILE, source).get("weight_map")
        names = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
        for name in names:
            _check_name(name)
            if not (folder / name).is_file():
                raise NotReady(f"{folder / INDEX_FILE} names {name!r}, which is missing.", reason="WEIGHTS_MISSING")
        if names:
            return tuple(folder / name for name in names)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLE_SUFFIXES)
    if pickles:
        raise _pickle_refused(source, pickles[0])
    raise NotReady(f"Source {source!r} has no {WEIGHTS_FILE} in {folder}. Add it.", reason="WEIGHTS_MISSING")


def _pickle_refused(source: str, file_name: str) -> InvalidInput:
    return InvalidInput(
        "source",
        f"expected safetensors, got {file_name!r} from {source!r}: a pickle can run code and is never opened here. "
        "Convert it to safetensors offline.",
        reason="PICKLE_REFUSED",
    )


def _check_is_safetensors(path: Path, source: str) -> None:
    with path.open("rb") as file:
        head = file.read(9)
    num_bytes = path.stat().st_size
    if len(head) == 9 and struct.unpack("<Q", head[:8])[0] <= num_bytes - 8 and head[8:9] == b"{":
        return
    if head[:2] == b"PK" or head[:1] == b"\x80":
        raise _pickle_refused(source, path.name)
    raise NotReady(
        f"{path} ({num_bytes} bytes) is not a safetensors file. Restore it; a Git LFS pointer needs 'git lfs pull'.",
        reason="WEIGHTS_DAMAGED",
    )


def _check_digest(config: Mapping[str, Any], digest: str, *, source: str, folder: Path) -> None:
    expected = config.get("weights_sha256")
    if expected is None and ("model_type" in config or "architectures" in config):
        return  # Hugging Face layout: it states no digest
    if expected != digest:
        raise NotReady(
            f"Weights in {folder} ({source!r}) have sha256 {digest}, but {CONFIG_FILE} says {expected}. "
            "Restore the pair; they are not served.",
            reason="WEIGHTS_DIGEST_MISMATCH",
        )
