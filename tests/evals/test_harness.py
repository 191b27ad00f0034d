import json
import sys
from pathlib import Path

import harness
import numpy as np
import pytest
from harness import Outcome, publish, surely_above
from stretto_shared.metrics.bootstrap import bootstrap_mean


def test_two_lucky_clips_support_no_claim() -> None:
    assert not surely_above(bootstrap_mean([0.1, 0.1]))
    assert surely_above(bootstrap_mean([0.1] * 6))


def test_a_claim_needs_its_interval_above_the_floor() -> None:
    interval = bootstrap_mean(np.linspace(0.1, 0.5, 20))
    assert surely_above(interval) and not surely_above(interval, 0.3)


@pytest.mark.parametrize("has_git", [True, False])
def test_a_tree_without_git_is_named_by_its_option(
    has_git: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not has_git:
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["eval"])
    for given, expected in ((["--commit", "0123456789ab"], "0123456789ab"), ([], "unknown")):
        publish(Outcome("eval", "", "", [], {}), harness.parser("").parse_args(given))
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["commit"] == expected


def test_a_report_of_another_machine_stands_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["eval"])
    for more in ([], ["--suffix", "avx512"]):
        publish(Outcome("eval", "", "", [], {}), harness.parser("").parse_args(["--report", *more]))
    names = {path.name.partition("-eval")[2] for path in tmp_path.iterdir()}
    assert names == {".md", ".json", "_avx512.md", "_avx512.json"}
