"""What Prometheus' own tool says of the rules. `test_metric_names.py` is what holds where it is not installed."""

import shutil
import subprocess

import pytest
from stretto_deploy.tree import RULES

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing (Debian: apt-get install prometheus)")


@needs_promtool
@pytest.mark.parametrize("command", [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")])
def test_promtool_finds_nothing(command: tuple[str, ...]) -> None:
    done = subprocess.run([str(PROMTOOL), *command], cwd=RULES.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_misses_an_alert_that_fires_later_than_it_should(tmp_path) -> None:
    text = RULES.read_text("utf-8")
    assert "stretto:queue_wait_s:p95_10m > 5" in text
    (tmp_path / "rules.yaml").write_text(
        text.replace("stretto:queue_wait_s:p95_10m > 5", "stretto:queue_wait_s:p95_10m > 50")
    )
    shutil.copy(RULES.parent / "rules_test.yaml", tmp_path)
    done = subprocess.run([str(PROMTOOL), "test", "rules", "rules_test.yaml"], cwd=tmp_path, capture_output=True)
    assert done.returncode != 0
