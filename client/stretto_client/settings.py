"""What the command line reads from the environment beside the `STRETTO_CHANNEL_*` of `stretto_shared.grpc.settings`."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class ClientSettings(BaseSettings):
    """Variables `STRETTO_*` of the command line."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_", frozen=True, extra="ignore", use_attribute_docstrings=True)

    address: str = ""
    """The server to call, as `host:port`. Empty runs the all-in-one server in the command's own process."""
