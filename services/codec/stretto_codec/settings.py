"""What an operator may set; the only reader of the environment in this service."""

from __future__ import annotations

from pathlib import Path

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
    num_threads: int = Field(default=1, ge=0, le=256)
    """CPU threads inside one operation; 0 leaves the choice to torch. One is fastest for the default models: pools of
    several model threads get in each other's way. Equal requests give equal bytes only where it is equal."""
