"""What an operator may set; the only reader of the environment in this service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

CASCADE_KEYS = {
    "musicgen": ("kind", "streams", "joint_model", "text_model", "acoustic_model", "codec_model"),
    "musiclm": (
        "kind", "streams", "joint_model", "semantic_model", "coarse_model", "fine_model", "codec_model", "melody_model",
        "tokenizer_model",
    ),
}  # fmt: skip

NAMED_MODELS = ("coarse_model", "melody_model")
"""Models of cascades of which no service has a default one."""


class OrchestratorSettings(BaseSettings):
    """Read from `STRETTO_ORCHESTRATOR_*`."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_ORCHESTRATOR_", frozen=True, use_attribute_docstrings=True)

    embedding_address: str = ""
    """Where the embedding service is: `host:port`, `dns:///name:port` or `unix:/path`. Empty, as for the five below:
    this very server in all-in-one mode; required otherwise."""
    semantic_address: str = ""
    """Where the semantic service is."""
    acoustic_address: str = ""
    """Where the acoustic service is."""
    codec_address: str = ""
    """Where the codec service is."""
    transcriber_address: str = ""
    """Where the transcriber service is."""
    harmony_address: str = ""
    """Where the harmony service is."""
    stage_timeout_s: float = Field(default=600.0, gt=0)
    """Longest that one call of a stage may take; the deadline of the request itself cuts it further."""
    list_timeout_s: float = Field(default=5.0, gt=0)
    """How long ListModels waits for a service before it calls it unreachable."""
    max_resumes: int = Field(default=4, ge=0, le=100)
    """How often one request may resume a stage whose connection was lost in mid-stream."""
    resume_backoff_s: float = Field(default=0.2, ge=0)
    """Wait before the first resume of a request; it doubles with each."""
    max_messages_ahead: int = Field(default=64, ge=1)
    """Token messages that may wait between two stages before the former is held back."""
    start_lead_per_listener_s: float = Field(default=0.05, ge=0, le=1)
    """Seconds of audio that a real-time piece has in hand when its first goes out, for each other one that this door
    makes: players have no buffer, and all pieces share one codec. 0 sends the first audio at once."""
    max_candidates_at_once: int = Field(default=2, ge=1, le=8)
    """How many of a request's candidates are made at the same time."""
    max_held_music_s: float = Field(default=2400.0, ge=600)
    """Seconds of music that the candidates of all requests may hold until the best are sent; one alone is not held."""
    max_kept_audio_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Bytes of the recordings of all AnalyzeMusic requests that are kept while they are heard, so that a stage that is
    lost may hear one again. A recording that finds no room is heard all the same, and a stage lost then ends it."""
    api_keys_path: Path | None = None
    """A TOML file of the keys that callers must show (`stretto keys new` writes its entries), read again whenever it
    changes. Unset asks nobody for a key: then the port is for those who reach it, or hold a certificate."""
    max_requests_per_minute: float = Field(default=0.0, ge=0)
    """Requests that one caller (a key, or the name in a certificate) may begin in a minute, where the file of keys says
    nothing else; 0 sets no limit."""
    max_requests_at_once: int = Field(default=0, ge=0)
    """Requests that one caller may have in flight, where the file of keys says nothing else; 0 sets no limit."""
    max_request_bytes: int = Field(default=0, ge=0)
    """Bytes of all messages of one request, where the file of keys says nothing else; 0 sets no limit.
    `STRETTO_GRPC_MAX_RECEIVE_BYTES` limits each message."""
    extra_cascades: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Cascades beside the own ones, as JSON: `{"musicgen-small": {"text_model": "t5-base",
    "acoustic_model": "musicgen-small", "codec_model": "encodec_32khz"}}`. A model that is not named is that of the own
    cascade of its kind; an empty name is its service's default one, which there is none of for `coarse_model` and
    `melody_model`. Without a `fine_model` the music ends with the coarse codebooks. `kind` is `musicgen` unless it is
    set to `musiclm`. `streams` is true unless it is set to false: then each stage waits for the end of the one before,
    which is good for nothing but comparing."""

    @field_validator("extra_cascades")
    @classmethod
    def _cascades_name_known_models(cls, cascades: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, settings in cascades.items():
            kind = settings.get("kind", "musicgen")
            if kind not in tuple(CASCADE_KEYS):  # a list of JSON has no hash
                raise ValueError(f"expected one of {', '.join(CASCADE_KEYS)} as kind of {name!r}, got {kind!r}.")
            for key, value in settings.items():
                if key not in CASCADE_KEYS[kind]:
                    raise ValueError(
                        f"expected the keys {', '.join(CASCADE_KEYS[kind])} in cascade {name!r}, got {key!r}. "
                        "Rename it."
                    )
                if key in NAMED_MODELS and value == "":
                    raise ValueError(f"expected a name as {key} of cascade {name!r}, got an empty one. Leave it out.")
                if not isinstance(value, bool if key == "streams" else str):
                    expected = "true or false" if key == "streams" else "a name"
                    raise ValueError(f"expected {expected} as {key} of cascade {name!r}, got {value!r}.")
        return cascades
