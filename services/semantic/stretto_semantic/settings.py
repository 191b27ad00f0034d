"""What an operator may set; the only reader of the environment in this service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SemanticSettings(BaseSettings):
    """Read from `STRETTO_SEMANTIC_*`."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_SEMANTIC_", frozen=True, use_attribute_docstrings=True)

    models: str = ""
    """Tokenizers and language models to serve, as `name` or `name=source`, separated by commas; the first of each kind
    is the default one. Empty serves all that are in `weights_dir`, `w2vbert` and `musiclm_semantic` first.
    `w2vbert,w2v-bert-2.0=hf://facebook/w2v-bert-2.0` adds the published w2v-BERT 2.0, once there are centroids for
    it."""
    weights_dir: Path = Path(__file__).resolve().parents[1] / "weights"
    """Where the source `default` looks: `<weights_dir>/<name>/model.safetensors` and `config.json`."""
    max_requests: int = Field(default=64, ge=1, le=4096)
    """Streams that one tokenizer serves at once before it answers RESOURCE_EXHAUSTED. A stream counts while it is open,
    and once accepted is never refused."""
    max_joined: int = Field(default=4, ge=1, le=8)
    """Windows of different streams that share one pass of a tokenizer, when they wait for it at the same moment: no
    more than a trial at load finds to leave every window its bytes. 1 spares the trial."""
    num_threads: int = Field(default=1, ge=0, le=256)
    """CPU threads inside one operation; 0 leaves the choice to torch. One is fastest for the default models: pools of
    several model threads get in each other's way. Equal requests give equal bytes only where it is equal."""
    max_slots: int = Field(default=4, ge=1, le=256)
    """Pieces that one language model generates at the same time, in one pass a frame where its layers allow it."""
    max_queued: int = Field(default=16, ge=1, le=4096)
    """Pieces that wait for a slot before the service answers RESOURCE_EXHAUSTED."""
    first_block_frames: int = Field(default=10, ge=1, le=1000)
    """Frames in the first message of GenerateTokens."""
    block_frames: int = Field(default=25, ge=1, le=1000)
    """Most frames in the messages after it."""
    prefill_columns: int = Field(default=16, ge=1, le=1024)
    """Known frames that one pass reads on top of one frame for each piece: prompts, resumes, and in every window what
    it shares with the one before."""
    kv_memory_mb: int = Field(default=1024, ge=1)
    """Mebibytes that the attention caches of all running pieces of one language model may take."""
    realtime_utilisation: float = Field(default=0.85, gt=0, le=1)
    """Share of the time of playing that real-time pieces may take to make; one more than that is refused."""
    joins: bool = True
    """Whether pieces share passes of a language model where its own layers, tried at load, give each row the same bytes
    in any company. False: one pass each."""
