"""An eval without its data says how to make them, is counted apart, and keeps no other from running."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import run
from harness import HOW_TO_GET, MISSING_STATUS, need


@pytest.mark.parametrize("what", [*HOW_TO_GET, "Something else"])
def test_missing_data_end_the_eval_with_one_line_that_helps(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        need(tmp_path / "nothing", what)
    said = capsys.readouterr().err
    assert caught.value.code == MISSING_STATUS
    assert said.startswith(f"missing: {what} is not at {tmp_path / 'nothing'}. ")
    assert said.count("\n") == 1 and said.rstrip().endswith(HOW_TO_GET.get(what, "the options."))
    assert need(tmp_path, what) == tmp_path


@pytest.mark.parametrize(("broken", "status"), [("sys.exit('crashed')", 1), ("", 0)])
def test_every_eval_runs_and_only_a_failure_fails(
    broken: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, code in {
        "first": broken,
        "second": f"sys.exit({MISSING_STATUS})",
        "third": "print(sys.argv[1:])",
    }.items():
        (tmp_path / f"{name}.py").write_text(f"import sys; {code}")
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", "--data", "there", "first", "second", "third"])
    with pytest.raises(SystemExit) as caught:
        run.main()
    said = capfd.readouterr().out
    assert caught.value.code == status
    assert "['--data', 'there']" in said
    assert "1 without their data: second" in said
    assert ("1 failed: first" in said) == bool(status)
