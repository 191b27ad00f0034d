"""Exact versions for images: what the services need, at the versions of the environment that this runs in.

    python -m stretto_deploy.pins > deploy/constraints.txt              # `make pins`
    python -m stretto_deploy.pins cuda > deploy/constraints-cuda.txt    # and this; needs a network

The environment is the one that the tests ran in, so an image holds what was tested. Build metadata of versions, as in
torch's `+cpu`, is left out: a build argument chooses among those. What torch needs beside itself where it is built for
CUDA is in no environment without a GPU, so pip is asked what it would install; PyPI's wheel of torch is such a build.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stretto_shared.errors import NotReady

from stretto_deploy.table import REPOSITORY, Table, load_table

HEADER = (
    "# Made by `make pins` from the environment that the tests run in. Images install these versions and no others.\n"
)
CUDA_HEADER = (
    "# Made by `make pins`: what torch {torch} needs beside constraints.txt where it is built for CUDA {cuda}, "
    "on PyPI.\n"
)
OURS = "stretto-"
CONSTRAINTS = REPOSITORY / "deploy" / "constraints.txt"
CUDA_TOOLKIT = "cuda-toolkit"


def pins_of(table: Table) -> str:
    """The constraints file of every service's closure of dependencies."""
    wanted = [Requirement(f"stretto-{service.name}") for service in table.service]
    wanted.append(Requirement("stretto-shared[otlp]"))
    seen: set[tuple[str, frozenset[str]]] = set()
    versions: dict[str, str] = {}
    while wanted:
        requirement = wanted.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        found = metadata.distribution(requirement.name)
        if not key[0].startswith(OURS):
            versions[key[0]] = found.version.partition("+")[0]
        wanted += [
            needed
            for needed in map(Requirement, found.requires or ())
            if needed.marker is None
            or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras))
        ]
    return HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def cuda_pins_of(report: Mapping[str, Any], constraints: str) -> str:
    """The constraints file of what pip would install, but for what another one pins.

    Args:
        report: Of `pip install --report` for torch.
        constraints: The other file.

    Raises:
        NotReady: If it is no build for CUDA.
    """
    pinned = {line.partition("==")[0] for line in constraints.splitlines()}
    found: dict[str, str] = {
        canonicalize_name(each["metadata"]["name"]): each["metadata"]["version"] for each in report["install"]
    }
    if CUDA_TOOLKIT not in found:
        raise NotReady("The torch that pip would install is not built for CUDA. Ask an index that has such a build.")
    header = CUDA_HEADER.format(torch=found["torch"], cuda=".".join(found[CUDA_TOOLKIT].split(".")[:2]))
    return header + "".join(f"{name}=={found[name]}\n" for name in sorted(set(found) - pinned))


def report_of_torch(constraints: Path = CONSTRAINTS) -> dict[str, Any]:
    """What pip would install for torch from PyPI at the version that is pinned; only metadata is fetched.

    Raises:
        NotReady: If pip is too old to leave the wheels alone, or finds no such torch.
    """
    if int(metadata.version("pip").partition(".")[0]) < 24:
        raise NotReady("Older versions of pip fetch gigabytes for this. Run: python -m pip install --upgrade pip.")
    (torch,) = (line for line in constraints.read_text("utf-8").splitlines() if line.startswith("torch=="))
    options = ["--isolated", "--dry-run", "--quiet", "--ignore-installed", "--only-binary", ":all:", "--report", "-"]
    command = [sys.executable, "-m", "pip", "install", *options, "--constraint", str(constraints), torch]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotReady(f"pip does not find {torch} built for CUDA: {' '.join(done.stderr.split())}. Mend that.")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    if sys.argv[1:] == ["cuda"]:
        sys.stdout.write(cuda_pins_of(report_of_torch(), CONSTRAINTS.read_text("utf-8")))
    else:
        sys.stdout.write(pins_of(load_table()))
