"""Whether every RPC answers malformed, oversized, late and cancelled requests with its typed error, and then works.

Runs the table of `tests/system/test_every_rpc.py` against a server in a process of its own and counts, for each kind of
bad request, the RPCs that keep the promise. The checks are the test's own, so there is one truth.

    python evals/quality/every_rpc.py [--report]

Cost: half a minute.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import ROOT, Outcome, Table, parser, publish
from served import load_lm, report_name

TABLE = "tests/system/test_every_rpc.py"
KINDS = ("malformed", "unknown_model", "oversized", "late", "cancelled")

PROTOCOL = (
    "Every method of every service, over a real channel to a server in its own process, one bad request of each kind: "
    "malformed (each field that can be wrong: INVALID_ARGUMENT with a BadRequest that names it), unknown model "
    "(NOT_FOUND by its path), oversized (RESOURCE_EXHAUSTED), late (DEADLINE_EXCEEDED at its deadline) and cancelled "
    "(its place is free again). After each the next request of the same method must succeed."
)


def kept(junit: Path) -> dict[str, dict[str, bool]]:
    """For each kind of bad request, the methods asked and whether they keep the promise."""
    found: dict[str, dict[str, bool]] = {kind: {} for kind in KINDS}
    for case in ElementTree.parse(junit).iter("testcase"):
        test, _, method = case.attrib["name"].partition("[")
        kind = next((kind for kind in KINDS if f"_{kind}_" in test), None)
        if kind is not None and method:
            bad = any(case.find(tag) is not None for tag in ("failure", "error", "skipped"))
            found[kind][method.removesuffix("]")] = not bad
    return found


def claims(found: Mapping[str, Mapping[str, bool]]) -> dict[str, bool]:
    """A kind's promise is kept if methods were asked and all of them kept it."""
    return {f"every_rpc: {kind}": bool(methods) and all(methods.values()) for kind, methods in found.items()}


def main() -> None:
    """Command line."""
    args = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "every_rpc.xml"
        command = [sys.executable, "-m", "pytest", "-q", TABLE, f"--junitxml={junit}", "-p", "no:cacheprovider"]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr)
        if not junit.exists():
            raise SystemExit(f"{TABLE} did not run. Call it by hand: python -m pytest {TABLE}")
        found = kept(junit)
    language_model = load_lm().info  # the server's own: it inherits the environment
    rows: list[tuple[object, ...]] = [("bad request", "RPCs", "kept", "not")]
    rows += [
        (kind, len(methods), sum(methods.values()), ", ".join(name for name, holds in methods.items() if not holds))
        for kind, methods in found.items()
    ]
    publish(
        Outcome(
            report_name("every_rpc", [language_model]),
            PROTOCOL,
            f"the table of {TABLE}; language model {language_model.model_id}",
            [Table("Promises of every RPC", rows)],
            {"kept": {kind: dict(methods) for kind, methods in found.items()}},
            claims(found),
        ),
        args,
    )


if __name__ == "__main__":
    main()
