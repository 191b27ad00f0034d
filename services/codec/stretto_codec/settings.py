"""What an operator may set; the only reader of the environment in this service."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CodecSettings(BaseSettings):
    """Read from `STRETTO_CODEC_*`."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_CODEC_", frozen=True, use_attribute_docstrings=True)

    models: str = ""
    """Codecs to serve, as `name` or `name=source`, separated by commas; the first is the default one. Empty serves
    every codec in `weights_dir`, `framecodec` first. `framecodec,encodec_24khz=hf://facebook/encodec_24khz` adds the
    official EnCodec."""
    weights_dir: Path = Path(__file__).resolve().parents[1] / "weights"
    """Where the source `default` looks: `<weights_dir>/<name>/model.safetensors` and `config.json`."""
    max_requests: int = Field(default=64, ge=1, le=4096)
    """Requests that one codec serves at once before it answers RESOURCE_EXHAUSTED. A decoding stream counts while it
    is open, and once accepted is never refused."""
    max_joined: int = Field(default=8, ge=1, le=8)
    """Streams that share one decoding step of a codec, when they wait for it at the same moment: 1, 2, 4 or 8, and no
    more than a trial of the codec's own layers at load finds to leave every stream its bytes. 1 spares the trial,
    which takes EnCodec some seconds."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format in which EnCodec of 24 and 32 kHz and FrameCodec decode. In bfloat16 the first and last layers, the
    LSTM's cells and all that adds up phases stay in float32, and so do other codecs and all encoding: codes never
    change. Another format gives other samples for the same tokens, and shows as another digest. It pays on processors
    that multiply in bfloat16."""
    native_kernel_dir: Path = Path("~/.cache/stretto")
    """Where the kernel for EnCodec in bfloat16 is compiled to, once, by this machine's C++ compiler. Without one, or
    where the processor has bfloat16 neither in AMX tiles nor in AVX-512, torch computes, which takes longer. All three
    round otherwise: the digest tells them apart."""
    num_threads: int = Field(default=1, ge=0, le=256)
    """CPU threads inside one operation; 0 leaves the choice to torch. One is fastest for the default models: pools of
    several model threads get in each other's way. Equal requests give equal bytes only where it is equal."""
