"""Exact versions for images: what the services need, at the versions of the environment that this runs in.

    python -m stretto_deploy.pins > deploy/constraints.txt      # `make pins`

The environment is the one that the tests ran in, so an image holds what was tested. Build metadata of versions, as in
torch's `+cpu`, is left out: a build argument chooses among those.
"""

from __future__ import annotations

import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stretto_deploy.table import Table, load_table

HEADER = (
    "# Made by `make pins` from the environment that the tests run in. Images install these versions and no others.\n"
)
OURS = "stretto-"


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


if __name__ == "__main__":
    sys.stdout.write(pins_of(load_table()))
