"""What an operator may set; the only reader of the environment in this service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class HarmonySettings(BaseSettings):
    """Read from `STRETTO_HARMONY_*`."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_HARMONY_", frozen=True, use_attribute_docstrings=True)

    models: str = ""
    """Analyzers to serve, as `name` or `name=source`, separated by commas; the first is the default one. Empty serves
    all that are in `weights_dir`, in order of their names; there may be none."""
    weights_dir: Path = Path(__file__).resolve().parents[1] / "weights"
    """Where the source `default` looks: `<weights_dir>/<name>/model.safetensors` and `config.json`."""
    max_requests: int = Field(default=32, ge=1, le=4096)
    """Requests that one analyzer serves at once before it answers RESOURCE_EXHAUSTED. They take turns, a few windows
    each, and one that was accepted is never refused."""
    max_readings: int = Field(default=16, ge=1, le=4096)
    """Files that wait to be read or written, one at a time, before the service answers RESOURCE_EXHAUSTED."""
    num_threads: int = Field(default=1, ge=0, le=256)
    """CPU threads inside one operation; 0 leaves the choice to torch. Equal requests give equal bytes only where it is
    equal, and in one process with other services so do theirs: the libraries below torch know one number for all
    threads."""
