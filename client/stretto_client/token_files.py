"""`.tokens` files: the tokens of one clip in safetensors, which any language can read and nothing can run.

A file holds the tensor `codes` (int32 [K, T]), the tensor `chunk_scales` (float32 [N], absent unless the codec
normalises its chunks), and one entry in the header's metadata, `stretto.tokens.v1`, whose text is the JSON object

- `codec_id`: `{name}@{first 12 hex digits of the codec's sha256}`
- `frame_rate_hz`: frames per second
- `sample_count`: samples of the clip at the codec's rate, which a decoder keeps of its output

One entry, because safetensors writes several in any order: the same tokens are always the same file.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from stretto_shared.errors import InvalidInput
from stretto_shared.tokens import TokenMatrix

from stretto_client.files import whole_file

FORMAT = "stretto.tokens.v1"
SUFFIX = ".tokens"


def check_tokens_path(path: Path) -> None:
    """Refuse a file name that would hide what the file is.

    Raises:
        InvalidInput: If the suffix is not `SUFFIX`.
    """
    if path.suffix.lower() != SUFFIX:
        raise InvalidInput("path", f"expected a file that ends in {SUFFIX}, got {str(path)!r}. Rename it.")


def write_tokens(path: Path, tokens: TokenMatrix, num_samples: int) -> None:
    """Write one clip's tokens."""
    tensors = {"codes": np.array(tokens.codes, dtype=np.int32)}
    if tokens.chunk_scales:
        tensors["chunk_scales"] = np.array(tokens.chunk_scales, dtype=np.float32)
    facts = {"codec_id": tokens.codec_id, "frame_rate_hz": tokens.frame_rate_hz, "sample_count": num_samples}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, {FORMAT: json.dumps(facts)})


def read_tokens(path: Path) -> tuple[TokenMatrix, int]:
    """One clip's tokens, and how many samples of their decoded audio belong to the clip.

    Raises:
        InvalidInput: If the file is missing or is not a `.tokens` file.
    """
    if not path.is_file():
        raise InvalidInput("path", f"expected a .tokens file, got {str(path)!r}, which is not a file. Check the name.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = set(file.keys())
            codes = file.get_tensor("codes") if "codes" in names else None
            scales = file.get_tensor("chunk_scales") if "chunk_scales" in names else np.zeros(0, np.float32)
    except SafetensorError as error:
        raise InvalidInput("path", f"expected a .tokens file, but {str(path)!r} cannot be read: {error}") from error
    if FORMAT not in metadata or codes is None:
        raise InvalidInput("path", f"expected the format {FORMAT!r} in {str(path)!r}, got another. Encode it again.")
    try:
        facts = json.loads(metadata[FORMAT])
        frame_rate_hz, num_samples = float(facts["frame_rate_hz"]), int(facts["sample_count"])
        codec_id = str(facts["codec_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            "path", f"the metadata of {str(path)!r} is incomplete ({error}). Encode it again."
        ) from error
    return TokenMatrix(codes, frame_rate_hz, codec_id, tuple(float(scale) for scale in scales)), num_samples
