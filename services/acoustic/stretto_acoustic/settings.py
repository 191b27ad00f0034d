"""What an operator may set; the only reader of the environment in this service."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _dtype_of(values: dict[str, Any]) -> Literal["float32", "bfloat16"]:
    return "bfloat16" if values.get("device") == "cuda" else "float32"


def _weight_format_of(others: dict[str, Any]) -> Literal["int8", "as_dtype"]:
    is_plain = others.get("device") == "cpu" and others.get("dtype") == "float32"
    return "int8" if is_plain else "as_dtype"


class AcousticSettings(BaseSettings):
    """Read from `STRETTO_ACOUSTIC_*`."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_ACOUSTIC_", frozen=True, use_attribute_docstrings=True)

    models: str = ""
    """Language models to serve, as `name` or `name=source`, separated by commas; the first that generates by itself is
    the default one. Empty serves `musicgen` and every stage in `weights_dir`.
    `musicgen,musicgen-small=hf://facebook/musicgen-small` adds an official one."""
    weights_dir: Path = Path(__file__).resolve().parents[1] / "weights"
    """Where the source `default` looks: `<weights_dir>/<name>/model.safetensors` and `config.json`."""
    max_slots: int = Field(default=8, ge=1, le=256)
    """Pieces that one model generates at the same time, in one pass a frame where its layers allow it."""
    max_queued: int = Field(default=16, ge=1, le=4096)
    """Pieces that wait for a slot before the service answers RESOURCE_EXHAUSTED."""
    first_block_frames: int = Field(default=5, ge=1, le=1000)
    """Frames in the first message of a stream: few, so that the codec can begin."""
    block_frames: int = Field(default=25, ge=1, le=1000)
    """Most frames in the messages after it, each of which has twice as many as the one before."""
    prefill_columns: int = Field(default=16, ge=1, le=1024)
    """Frames of prompts and resumes that one pass reads on top of one frame for each piece."""
    kv_memory_mb: int = Field(default=4096, ge=1)
    """Mebibytes that the attention caches of all running pieces of one model may take; a piece waits until its own fit.
    In int8 and int4 those of pieces that have ended stay for the next, within the same limit. 30 s at the
    `musicgen-small` geometry with guidance take 563 in float32, half of it in bfloat16, and 150 in int8 and int4. On
    `cuda` the caches of `max_slots` pieces of full length have to fit."""
    joins: bool = True
    """Whether pieces share passes where the model's own layers, tried at load, give each row the same bytes in any
    company. False: one pass each. In float32 it may change the bytes of pieces without guidance."""
    realtime_utilisation: float = Field(default=0.85, gt=0, le=1)
    """Share of the time of playing that real-time streams may take to make; one more than that is refused."""
    realtime_max_lead_s: float = Field(default=3.0, gt=1)
    """Seconds that a real-time stream gets ahead of its listener. Then it rests, so that codec and wire are free for
    those who begin; stages that refine do not, since the stages after them read far ahead."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the language models compute; stages compute on the CPU, in float32. `cuda` is the first GPU: every slot's
    caches are allocated whole when a model is loaded, and a pass is one CUDA graph. It gives other bytes for the same
    seed, and shows as another digest."""
    dtype: Literal["float32", "bfloat16"] = Field(default_factory=_dtype_of)
    """Number format of weights and caches: float32 on a CPU unless set, bfloat16 on a GPU. Another format gives other
    bytes for the same seed."""
    weight_format: Literal["as_dtype", "fp32", "bf16", "int8", "int4", "int4_kv4"] = Field(
        default_factory=_weight_format_of
    )
    """How the matrices of the transformer are held, made from the same checkpoint when it is loaded: `int8` on a CPU in
    float32 unless set, else `as_dtype`, as they are. `fp32`, `bf16`: four and two bytes a weight; norms, embeddings,
    attention and caches keep `dtype`. `int8`, `int4`: one byte and half a byte, caches of one byte, and every row's
    result its own; `int4_kv4`: caches of half a byte too. Each gives other bytes for the same seed, and shows as
    another digest. On `cuda` there are `as_dtype` and `fp32` only."""
    native_kernel_dir: Path = Path("~/.cache/stretto")
    """Where the kernel for int8 and int4 is compiled to, once, by this machine's C++ compiler. Without one, or without
    AVX-512 VNNI, the same bytes come from torch, many times more slowly: set `fp32` there for a model of any size."""
    num_threads: int = Field(default=1, ge=0, le=256)
    """CPU threads inside one operation; 0 leaves the choice to torch. One is fastest for the default models: pools of
    several model threads get in each other's way. Equal requests give equal bytes only where it is equal."""
