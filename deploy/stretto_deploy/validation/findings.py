"""What a check has to say."""

from __future__ import annotations

from dataclasses import dataclass

from stretto_deploy.yamls import Manifest


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one object.

    Args:
        check: The check that found it, for example `selector_matches_template`.
        where: The object, as `Kind/name`.
        message: What is wrong and what to do.
    """

    check: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.check}]"


def place_of(manifest: Manifest) -> str:
    """`Kind/name`, whatever is missing."""
    metadata = manifest.get("metadata")
    name = metadata.get("name", "?") if isinstance(metadata, dict) else "?"
    return f"{manifest.get('kind', '?')}/{name}"
