"""Whether offline validation catches every seeded error, and passes our own manifests for every version of Kubernetes.

    python evals/reliability/manifests.py [--report]

Cost: two minutes of a core. Needs kubectl and kubernetes-validate (tests/requirements.txt).
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from reliability.manifest_errors import SEEDED
from stretto_deploy.kustomize import render
from stretto_deploy.tree import COMPONENTS, OVERLAYS, SCALERS, versions_of
from stretto_deploy.validation.checking import check_manifests, check_text
from stretto_deploy.validation.schemas import VERSIONS
from stretto_deploy.yamls import Manifest

PROTOCOL = (
    "Each error is seeded alone into our own render (overlay gpu, component keda) and counts as caught where the check "
    "that is named for it reports, and as missed where only another one does. Our manifests are every overlay with "
    "every set of components but two autoscalers, checked against the strict schemas of each version and by all own "
    "checks; a version that cannot run a component must be refused by the check of that name."
)


def our_variants() -> list[tuple[str, tuple[str, ...]]]:
    """Every overlay with every set of components that has one scaler at most."""
    sets = itertools.chain.from_iterable(
        itertools.combinations(COMPONENTS, size) for size in range(len(COMPONENTS) + 1)
    )
    possible = [chosen for chosen in sets if len(set(chosen) & set(SCALERS)) < 2]
    return [(overlay, chosen) for chosen in possible for overlay in ("base", *OVERLAYS)]


def is_as_it_should(components: tuple[str, ...], manifests: list[Manifest], version: str) -> bool:
    """No finding where the version can run the components; where it cannot, the finding that says so and no other."""
    checks = {finding.check for finding in check_manifests(manifests, (version,))}
    return checks == (set() if version in versions_of(components) else {"version_has_it"})


def main() -> None:
    """Measure and publish."""
    args = parser(__doc__).parse_args()
    clean = render("gpu", ("keda",))
    rows, caught = [], 0
    for error in SEEDED:
        found = check_text(error.seed(clean))
        hit = next((finding for finding in found if finding.check == error.check), None)
        caught += hit is not None
        rows.append((error.name, "caught" if hit else "MISSED", str(hit or "")))
    variants = our_variants()
    renders = [(chosen, render(overlay, chosen)) for overlay, chosen in variants]
    passed = {version: sum(is_as_it_should(*ours, version) for ours in renders) for version in VERSIONS}
    outcome = Outcome(
        name="manifests",
        protocol=PROTOCOL,
        data=f"{len(SEEDED)} seeded errors; {len(variants)} own renders; Kubernetes {VERSIONS[0]} to {VERSIONS[-1]}",
        tables=(
            Table("Seeded errors", (("error", "", "finding"), *rows)),
            Table("Our renders that are as they should be", (("Kubernetes", "renders"), *passed.items())),
        ),
        numbers={"seeded": len(SEEDED), "caught": caught, "renders": len(variants), "clean_renders": passed},
        passed={
            "every_seeded_error_is_caught": caught == len(SEEDED) == 21,
            "ours_passes_for_every_version": all(count == len(variants) for count in passed.values()),
        },
    )
    publish(outcome, args)


if __name__ == "__main__":
    main()
