"""All checks over one set of objects, or over its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stretto_shared.errors import InvalidInput

from stretto_deploy.validation.findings import Finding
from stretto_deploy.validation.house import check_house
from stretto_deploy.validation.schemas import VERSIONS, check_schemas
from stretto_deploy.validation.sense import check_sense
from stretto_deploy.validation.versions import check_features
from stretto_deploy.yamls import Manifest, load_all


def check_manifests(manifests: list[Manifest], versions: Sequence[str] = VERSIONS) -> list[Finding]:
    """What is wrong. What a version does not have, or its schemas find, is all: sense is asked only of what fits them.

    Raises:
        NotReady: If what validates is not installed.
    """
    present: list[Manifest] = [_without_nulls(manifest) for manifest in manifests]
    for version in versions:
        if found := check_features(present, version) or check_schemas(manifests, version):
            return found
    return [*check_sense(present), *check_house(present)]


def _without_nulls(value: Any) -> Any:
    """As Kubernetes reads it: a null is a field that is not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def check_text(text: str, versions: Sequence[str] = VERSIONS) -> list[Finding]:
    """As `check_manifests`, of YAML: which may itself be wrong, as with a key that comes twice."""
    try:
        manifests = load_all(text, "manifests")
    except InvalidInput as error:
        return [Finding("yaml", "manifests", error.message)]
    return check_manifests(manifests, versions)
