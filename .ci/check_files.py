"""No source file is longer than 500 lines, and the torch-free packages import without torch.

Run by `make check`. The import check is done in a fresh interpreter in which importing torch fails.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MAX_LINES = 500
SUFFIXES = {".py", ".proto", ".toml", ".md", ".sh", ".yaml", ".yml", ".txt"}
EXEMPT = ("protos/python/", "LICENSE", "evals/results/")
TORCH_FREE = (
    "stretto_client.cli.main",
    "stretto_client.up",
    "stretto_orchestrator.main",
    "stretto_shared.grpc.server",
    "stretto_deploy.cli",
)


def long_files(root: Path) -> list[str]:
    """Tracked files above the limit, as `path: lines`."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    found = []
    for name in listed:
        path = root / name
        if not name or name.startswith(EXEMPT) or path.suffix not in SUFFIXES or not path.is_file():
            continue
        num_lines = len(path.read_text(encoding="utf-8").splitlines())
        if num_lines > MAX_LINES:
            found.append(f"{name}: {num_lines} lines, at most {MAX_LINES}. Split it.")
    return found


def torch_importers() -> list[str]:
    """Modules of the torch-free packages that do not import where torch is missing."""
    found = []
    for module in TORCH_FREE:
        program = f"import sys; sys.modules['torch'] = None; import {module}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        if done.returncode:
            found.append(f"{module} does not import without torch: {done.stderr.strip().splitlines()[-1]}")
    return found


def main() -> None:
    """Print what is wrong and exit with 1, or say that nothing is."""
    problems = long_files(Path(__file__).resolve().parents[1]) + torch_importers()
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201  a program
    if problems:
        sys.exit(1)
    print("files are short enough, and the client and the orchestrator import without torch")  # noqa: T201


if __name__ == "__main__":
    main()
