"""Run every eval of quality one after the other, whatever becomes of the one before: what `make eval` does.

An eval whose data are not here says in one line what is missing and how to make it, and is counted apart. The program
fails if an eval did.

    python evals/run.py [--data DIR] [NAME …]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from harness import MISSING_STATUS

FOLDER = Path(__file__).resolve().parent / "quality"
# The quickest first.
NAMES = (
    "demo_audio",
    "every_rpc",
    "codec",
    "musicgen_loss",
    "musiclm_loss",
    "melody",
    "beats",
    "mulan",
    "semantic_tokens",
    "musicgen_adherence",
    "musiclm",
)


def main() -> None:
    """Run, count, and exit with 1 if an eval failed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="MAPS and judges; see evals/README.md")
    options.add_argument("names", nargs="*", metavar="NAME", default=NAMES, help=f"of {', '.join(NAMES)}; all if none")
    args = options.parse_args()
    given = ["--data", str(args.data)] if args.data is not None else []
    statuses: dict[str, int] = {}
    for name in args.names:
        print(f"== {name}", flush=True)
        statuses[name] = subprocess.run([sys.executable, FOLDER / f"{name}.py", *given]).returncode
    ran = [name for name, status in statuses.items() if status == 0]
    lacking = [name for name, status in statuses.items() if status == MISSING_STATUS]
    failed = [name for name in statuses if name not in ran and name not in lacking]
    for kind, names in (("ran", ran), ("without their data", lacking), ("failed", failed)):
        print(f"{len(names)} {kind}{': ' if names else ''}{', '.join(names)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
