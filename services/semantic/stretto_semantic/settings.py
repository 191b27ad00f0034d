"""What an operator may set; the only reader of the environment in this service."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class SemanticSettings(BaseSettings):
    """Read from `STRETTO_SEMANTIC_*`."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_SEMANTIC_", frozen=True, use_attribute_docstrings=True)

    weights_dir: Path = Path(__file__).resolve().parents[1] / "weights"
    """Where the source `default` looks: `<weights_dir>/<name>/model.safetensors` and `config.json`."""
