"""What the documents say is so: tables, commands, targets, links."""

import re
import subprocess
import sys

import pytest
from real_server import ROOT, readme_blocks
from stretto_client.cli.main import build_app

PATTERNS = ("*.md", "docs/**/*.md", "services/*/README.md", "examples/*.md")
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for pattern in PATTERNS for path in ROOT.glob(pattern))


def test_the_table_of_models_in_the_readme_is_fresh() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs/model_table.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_of_the_readme_exists() -> None:
    shown = {
        line.split()[1] for block in readme_blocks("sh") for line in block.splitlines() if line.startswith("stretto ")
    }
    assert shown == {str(command.name) for command in build_app().registered_commands}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_target_that_a_document_names_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+%?):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / document).read_text()))
    for name in named:
        assert name in targets or any(t.endswith("%") and name.startswith(t[:-1]) for t in targets), name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


def test_make_help_shows_every_public_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("help", "demo", "up", "test", "check", "bench", "eval", "protos", "serve-%", "clean"):
        assert re.search(rf"^  make {re.escape(target)} ", shown, re.MULTILINE), target
