"""Convert an original EnCodec checkpoint to the layout that the server reads. Offline; the server never runs it.

`python -m stretto_codec.convert_encodec encodec_24khz-d7cc33bc.th services/codec/weights/encodec_24khz`

Takes the `.th` files of the `encodec` package and audiocraft's `compression_state_dict.bin`. They are pickles: they
are opened with `weights_only=True`, which builds tensors and plain containers only.
"""

from __future__ import annotations

import argparse
import dataclasses
import pickle  # noqa: TID251 - for the name of its error; nothing is unpickled with it
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from stretto_shared import weights
from torch import Tensor

from stretto_codec.models.encodec import GEOMETRIES, Encodec
from stretto_codec.models.encodec.layouts import convert_state


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert one file; exits with a message if it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="the .th or .bin file")
    parser.add_argument("folder", type=Path, help="gets model.safetensors and config.json")
    parser.add_argument("--name", help="the model's name; the folder's by default")
    parser.add_argument("--geometry", choices=sorted(GEOMETRIES), help="guessed from the tensors by default")
    parser.add_argument("--licence", default=weights.NO_LICENCE_STATED, help="licence of the weights")
    options = parser.parse_args(arguments)
    try:
        state = convert_state(_read(options.checkpoint))
        geometry = options.geometry or guess_geometry(state)
        Encodec(GEOMETRIES[geometry]).load_state_dict(state)
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"{options.checkpoint}: {error}") from error
    digest = weights.write(
        options.folder,
        state,
        name=options.name or options.folder.name,
        architecture="Encodec",
        config=dataclasses.asdict(GEOMETRIES[geometry]),
        licence=options.licence,
        score="",
        training={"converted_from": options.checkpoint.name, "sha256": weights.sha256_of(options.checkpoint)},
    )
    print(f"{options.folder}: {geometry}, sha256 {digest}")  # noqa: T201 - a program


def guess_geometry(state: Mapping[str, Tensor]) -> str:
    """The published geometry whose tensors have the shapes of `state`, in the keys of `Encodec`.

    Raises:
        ValueError: If there is none.
    """
    shapes = {key: tensor.shape for key, tensor in state.items()}
    for name, config in GEOMETRIES.items():
        with torch.device("meta"):
            expected = {key: tensor.shape for key, tensor in Encodec(config).state_dict().items()}
        if shapes == expected:
            return name
    raise ValueError(f"expected the tensors of {', '.join(GEOMETRIES)}, got others. Name the --geometry to see which.")


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - offline, as it says
    except (pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"expected a torch checkpoint of plain tensors: {error}") from error
    if isinstance(content, dict) and "best_state" in content:  # audiocraft
        content = content["best_state"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError("expected a checkpoint that is one dict of tensors.")
    return content


if __name__ == "__main__":
    main()
