"""The `.ecdc` format of the EnCodec command line, without its entropy coder (`lm` false). Bytes in, bytes out.

`ECDC`, a version byte 0, the length of a JSON header (uint32, big-endian), the header `{m: model, al: samples,
nc: codebooks, lm: bool}`; then for each segment its loudness (float32, big-endian, where the model normalises) and its
codes, frame by frame, coarsest codebook first, log2(cardinality) bits each, low bit first, padded to a whole byte.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_codec.models.encodec.config import EncodecConfig

_HEADER = struct.Struct("!4sBI")
_SCALE = struct.Struct("!f")
_MAGIC = b"ECDC"
_MAX_DURATION_S = 24 * 3600


class DamagedFile(ValueError):
    """The bytes are not an `.ecdc` file that can be read here."""


@dataclass(frozen=True, eq=False)
class Clip:
    """What one file holds: codes [K, T] of all segments in order, and the loudness of each where there is one."""

    model: str
    num_samples: int
    codes: NDArray[np.int32]
    scales: tuple[float, ...]


def write(clip: Clip, config: EncodecConfig) -> bytes:
    """The file's bytes; the same as those of `encodec.compress` without its language model."""
    num_codebooks = clip.codes.shape[0]
    header = json.dumps({"m": clip.model, "al": clip.num_samples, "nc": num_codebooks, "lm": False}).encode()
    parts = [_HEADER.pack(_MAGIC, 0, len(header)), header]
    start = 0
    for index, num_frames in enumerate(_segment_frames(clip.num_samples, config)):
        if config.normalize:
            parts.append(_SCALE.pack(clip.scales[index]))
        parts.append(_pack(clip.codes[:, start : start + num_frames], _bits(config)))
        start += num_frames
    if start != clip.codes.shape[1]:
        raise ValueError(f"codes: expected {start} frames for {clip.num_samples} samples, got {clip.codes.shape[1]}.")
    return b"".join(parts)


def read(data: bytes, geometries: Mapping[str, EncodecConfig]) -> Clip:
    """Read a file's bytes.

    Args:
        data: The whole file.
        geometries: The models that may be named, for example `GEOMETRIES`.

    Raises:
        DamagedFile: If the bytes are no such file, are cut off, need the language model, or name an unknown model.
    """
    model, num_samples, num_codebooks, position = _read_header(data, geometries)
    config = geometries[model]
    codes, scales = [], []
    for num_frames in _segment_frames(num_samples, config):
        if config.normalize:
            scales.append(float(_SCALE.unpack(_slice(data, position, _SCALE.size))[0]))
            position += _SCALE.size
        num_bytes = math.ceil(num_frames * num_codebooks * _bits(config) / 8)
        codes.append(_unpack(_slice(data, position, num_bytes), num_codebooks, num_frames, _bits(config)))
        position += num_bytes
    return Clip(model, num_samples, np.concatenate(codes, axis=1), tuple(scales))


def _read_header(data: bytes, geometries: Mapping[str, EncodecConfig]) -> tuple[str, int, int, int]:
    magic, version, num_bytes = _HEADER.unpack(_slice(data, 0, _HEADER.size))
    if magic != _MAGIC or version != 0:
        raise DamagedFile(f"expected ECDC version 0, got {magic!r} version {version}.")
    try:
        header = json.loads(_slice(data, _HEADER.size, num_bytes))
        model, num_samples, num_codebooks = header["m"], header["al"], header["nc"]
        uses_language_model = header["lm"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"expected a JSON header with m, al, nc and lm: {error}") from error
    if uses_language_model is not False:
        raise DamagedFile("the file is entropy coded with EnCodec's language model. Write it again without --lm.")
    if model not in geometries:
        raise DamagedFile(f"expected a model of {', '.join(geometries)}, got {model!r}.")
    config = geometries[model]
    max_samples = _MAX_DURATION_S * config.sample_rate_hz
    if not isinstance(num_samples, int) or not 1 <= num_samples <= max_samples:
        raise DamagedFile(f"al: expected 1 to {max_samples} samples, got {num_samples!r}.")
    if not isinstance(num_codebooks, int) or not 1 <= num_codebooks <= config.num_codebooks:
        raise DamagedFile(f"nc: expected 1 to {config.num_codebooks} codebooks, got {num_codebooks!r}.")
    return model, num_samples, num_codebooks, _HEADER.size + num_bytes


def _segment_frames(num_samples: int, config: EncodecConfig) -> Iterator[int]:
    """Frames of each segment of a clip."""
    length, stride = config.segment_length or num_samples, config.segment_stride or num_samples
    for offset in range(0, num_samples, stride):
        yield math.ceil(min(num_samples - offset, length) / config.hop_length)


def _bits(config: EncodecConfig) -> int:
    return int(math.log2(config.cardinality))


def _pack(codes: NDArray[np.int32], num_bits: int) -> bytes:
    bits = (codes.T.reshape(-1, 1) >> np.arange(num_bits)) & 1
    return np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()


def _unpack(data: bytes, num_codebooks: int, num_frames: int, num_bits: int) -> NDArray[np.int32]:
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: num_codebooks * num_frames * num_bits]
    values = bits.reshape(-1, num_bits).astype(np.int32) @ (1 << np.arange(num_bits, dtype=np.int32))
    return np.ascontiguousarray(values.reshape(num_frames, num_codebooks).T, dtype=np.int32)


def _slice(data: bytes, start: int, num_bytes: int) -> bytes:
    if start + num_bytes > len(data):
        raise DamagedFile(f"the file ends at byte {len(data)}, before byte {start + num_bytes}.")
    return data[start : start + num_bytes]
