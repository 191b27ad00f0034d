"""What a version of Kubernetes does not have yet, in words; its schemas only say that a field was not expected.

Since when a field does what it says stands in its description in the schemas of `kubernetes_validate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stretto_deploy.validation.findings import Finding, place_of
from stretto_deploy.validation.sense import containers_of, pod_spec_of
from stretto_deploy.yamls import Manifest

IMAGE_VOLUMES, PATHS_IN_IMAGE_VOLUMES = 31, 33


def minor_of(version: str) -> int:
    """31 of `1.31`, and of `1.31+`, as some clusters write it."""
    return int("".join(letter for letter in version.partition(".")[2] if letter.isdigit()))


def check_features(manifests: Iterable[Manifest], version: str) -> list[Finding]:
    """What the manifests ask for and a version does not have."""
    return [
        Finding(
            "version_has_it",
            place_of(manifest),
            f"{what} from 1.{since} on, and this is {version}. Leave the component weights-image out, or name the "
            f"newer versions by --kubernetes.",
        )
        for manifest in manifests
        for what, since in _wants(manifest)
        if minor_of(version) < since
    ]


def _wants(manifest: Manifest) -> Iterator[tuple[str, int]]:
    images = {volume.get("name") for volume in pod_spec_of(manifest).get("volumes", []) if "image" in volume}
    if not images:
        return
    paths = any(
        mount.get("name") in images and ("subPath" in mount or "subPathExpr" in mount)
        for container in containers_of(manifest)
        for mount in container.get("volumeMounts", [])
    )
    names = ", ".join(sorted(map(repr, images)))
    if paths:
        yield f"the volume {names} is a path inside an image, which Kubernetes has", PATHS_IN_IMAGE_VOLUMES
    else:
        yield f"the volume {names} is an image, which Kubernetes has", IMAGE_VOLUMES
