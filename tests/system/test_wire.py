"""Old clients go on: a wire that would break them is caught, before anybody speaks it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from real_server import ROOT

BUF = Path(sys.executable).with_name("buf")


def breaks(protos: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BUF), "breaking", "--against", str(ROOT / "protos" / "published.binpb")]
    return subprocess.run(command, cwd=protos, capture_output=True, text=True, timeout=120)


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "protos" / "stretto", tmp_path / "stretto")
    shutil.copy(ROOT / "protos" / "buf.yaml", tmp_path)
    return tmp_path


def change(protos: Path, old: str, new: str) -> None:
    path = protos / "stretto" / "orchestrator" / "v1" / "orchestrator.proto"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_wire_breaks_no_client_that_knew_it(protos: Path) -> None:
    done = breaks(protos)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("string prompt = 2;", "string prompt = 90;", 'Previously present field "2"'),
        ("string prompt = 2;", "string text = 2;", '"prompt" to "text"'),
        ("string prompt = 2;", "bytes prompt = 2;", '"string" to "bytes"'),
        ("rpc GenerateMusic(", "rpc MakeMusic(", '"GenerateMusic"'),
    ],
)
def test_a_break_is_named(protos: Path, old: str, new: str, said: str) -> None:
    change(protos, old, new)
    done = breaks(protos)
    assert done.returncode != 0 and said in done.stdout, done.stdout


def test_a_new_field_is_none(protos: Path) -> None:
    change(protos, "string prompt = 2;", "string prompt = 2;\n  // More.\n  string more = 91;")
    assert breaks(protos).returncode == 0
