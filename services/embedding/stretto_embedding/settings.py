"""What an operator may set; the only reader of the environment in this service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class EmbeddingSettings(BaseSettings):
    """Read from `STRETTO_EMBEDDING_*`."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_EMBEDDING_", frozen=True, use_attribute_docstrings=True)

    text_models: str = "minilm"
    """Text encoders to serve, as `name` or `name=source`, separated by commas; the first is the default one.
    `t5-base=hf://google-t5/t5-base` adds the encoder of the official MusicGen checkpoints."""
    joint_models: str = ""
    """Joint encoders of texts and recordings to serve, as above; the first is the default one. Empty serves every one
    in `weights_dir`. `mulan,clap=hf://laion/larger_clap_music` adds CLAP."""
    melody_models: str = ""
    """Melody encoders to serve, as above; empty serves every one in `weights_dir`."""
    weights_dir: Path = Path(__file__).resolve().parents[1] / "weights"
    """Where the source `default` of joint and melody encoders looks: `<weights_dir>/<name>/model.safetensors` and
    `config.json`."""
    max_batch_size: int = Field(default=16, ge=1, le=256)
    """Texts that one visit to the model thread may encode."""
    max_wait_s: float = Field(default=0.002, ge=0, le=1)
    """How long the first text waits for company."""
    max_queued: int = Field(default=256, ge=64)
    """Texts, and melodies, that may wait before the service answers RESOURCE_EXHAUSTED. At least the 64 texts that one
    request may bring, which an idle service could never take otherwise."""
    max_requests: int = Field(default=16, ge=1, le=4096)
    """Requests with recordings, tags or points that one joint encoder serves at once before it answers
    RESOURCE_EXHAUSTED. Each holds its recordings in memory."""
    num_threads: int = Field(default=1, ge=0, le=256)
    """CPU threads inside one operation; 0 leaves the choice to torch. One is fastest for the default models: pools of
    several model threads get in each other's way. Equal requests give equal bytes only where it is equal."""
