"""What an operator may set; the only reader of the environment in this service."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

CASCADE_MODELS = ("text_model", "acoustic_model", "codec_model")


class OrchestratorSettings(BaseSettings):
    """Read from `STRETTO_ORCHESTRATOR_*`."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_ORCHESTRATOR_", frozen=True, use_attribute_docstrings=True)

    embedding_address: str = ""
    """Where the embedding service is: `host:port`, `dns:///name:port` or `unix:/path`. Empty, as for the two below:
    this very server in all-in-one mode; required otherwise."""
    acoustic_address: str = ""
    """Where the acoustic service is."""
    codec_address: str = ""
    """Where the codec service is."""
    stage_timeout_s: float = Field(default=600.0, gt=0)
    """Longest that one call of a stage may take; the deadline of the request itself cuts it further."""
    list_timeout_s: float = Field(default=5.0, gt=0)
    """How long ListModels waits for a service before it calls it unreachable."""
    max_resumes: int = Field(default=4, ge=0, le=100)
    """How often one request may resume a stage whose connection was lost in mid-stream."""
    resume_backoff_s: float = Field(default=0.2, ge=0)
    """Wait before the first resume of a request; it doubles with each."""
    max_messages_ahead: int = Field(default=64, ge=1)
    """Token messages that may wait between the acoustic stage and the codec before the former is held back."""
    extra_cascades: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Cascades beside `musicgen`, as JSON: `{"musicgen-small": {"text_model": "t5-base", "acoustic_model":
    "musicgen-small", "codec_model": "encodec_32khz"}}`. A model that is not named is its service's default."""

    @field_validator("extra_cascades")
    @classmethod
    def _cascades_name_known_models(cls, cascades: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        for name, models in cascades.items():
            unknown = [key for key in models if key not in CASCADE_MODELS]
            if unknown:
                raise ValueError(
                    f"expected the keys {', '.join(CASCADE_MODELS)} in cascade {name!r}, got {unknown[0]!r}. Rename it."
                )
        return cascades
