"""Convert audiocraft's `state_dict.bin` of a MusicGen language model to this project's layout, offline.

    python -m stretto_acoustic.convert_audiocraft state_dict.bin OUT [--name musicgen-small]

Serve the result as `STRETTO_ACOUSTIC_MODELS=musicgen-small=file:///absolute/path/OUT`. The pickle is opened with
`weights_only=True`, which builds tensors and plain containers only, and never by the server.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from stretto_shared import weights

from stretto_acoustic.models.musicgen.layouts import config_from_audiocraft, weights_from_audiocraft


def convert(state_dict_path: Path, folder: Path, *, name: str) -> str:
    """Write `folder` in this project's layout and return the digest of its weights.

    Raises:
        ValueError: If the file holds no `best_state` of a MusicGen language model.
    """
    package = torch.load(state_dict_path, map_location="cpu", weights_only=True)  # noqa: TID251 - this is the converter
    if not isinstance(package, dict) or not isinstance(package.get("best_state"), dict):
        raise ValueError(f"{state_dict_path} holds no 'best_state'. Pass the state_dict.bin of a released model.")
    tensors = {key: tensor.float() for key, tensor in package["best_state"].items()}
    try:
        config = config_from_audiocraft(tensors)
        converted = weights_from_audiocraft(tensors, config)
    except KeyError as error:
        raise ValueError(f"{state_dict_path} has no tensor {error}; it is no MusicGen language model.") from error
    return weights.write(
        folder,
        converted,
        name=name,
        architecture="MusicGenLM",
        config=dataclasses.asdict(config),
        licence="CC-BY-NC-4.0",
        score="",
        training={"converted_from": state_dict_path.name, "origin": "audiocraft"},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("state_dict", type=Path, help="audiocraft's state_dict.bin")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--name", default="musicgen-small", help="name of the model (default: %(default)s)")
    options = parser.parse_args(arguments)
    digest = convert(options.state_dict, options.out, name=options.name)
    print(f"{options.out}: {options.name}@{digest[:12]}")  # noqa: T201 - a command speaks to its user


if __name__ == "__main__":
    main()
