"""What an operator may set; the only reader of the environment in this service."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class TranscriberSettings(BaseSettings):
    """Read from `STRETTO_TRANSCRIBER_*`."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_TRANSCRIBER_", frozen=True, use_attribute_docstrings=True)

    models: str = ""
    """Models to serve, as `name` or `name=source`, separated by commas; the first of each kind, notes and beats, is the
    default one. Empty serves all that are in `weights_dir`, in order of their names."""
    weights_dir: Path = Path(__file__).resolve().parents[1] / "weights"
    """Where the source `default` looks: `<weights_dir>/<name>/model.safetensors` and `config.json`."""
    max_requests: int = Field(default=32, ge=1, le=4096)
    """Streams that one model serves at once before it answers RESOURCE_EXHAUSTED. A stream counts while it is open, and
    once accepted is never refused."""
    max_joined: int = Field(default=4, ge=1, le=16)
    """Windows of different streams that share one pass of a model, when they wait for it at the same moment: no more
    than a trial at load finds to leave every window its bytes. 1 spares the trial."""
    max_engravings: int = Field(default=8, ge=1, le=4096)
    """Scores that wait to be engraved, one at a time, before the service answers RESOURCE_EXHAUSTED."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Number format in which the house's network for notes hears where the processor has bfloat16, in AMX tiles or in
    AVX-512: several times faster. On validation, note F1 is that of float32 to the third place. Elsewhere, and for
    beats, float32."""
    native_kernel_dir: Path = Path("~/.cache/stretto")
    """Where the kernel for bfloat16 is compiled to, once, by this machine's C++ compiler. Without one, or on a
    processor without bfloat16, torch computes in float32."""
    num_threads: int = Field(default=1, ge=0, le=256)
    """CPU threads inside one operation; 0 leaves the choice to torch. More make a lone stream faster. Equal requests
    give equal bytes only where it is equal, and in one process with other services so do theirs: the libraries below
    torch know one number for all threads."""
