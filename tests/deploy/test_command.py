"""The command as people run it: in a process of its own, with a kubeconfig, against the double."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from api_double import TOKEN, ApiDouble, api_double, path_of
from stretto_deploy.cli import build_app
from stretto_deploy.objects.pods import labels_of
from stretto_deploy.table import Table
from stretto_deploy.yamls import load_all
from typer.testing import CliRunner


class Command:
    def __init__(self, double: ApiDouble, kubeconfig: Path) -> None:
        self.double = double
        self._env = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "COLUMNS": "200",
        }

    def __call__(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "stretto_deploy.cli", *arguments], capture_output=True, text=True, env=self._env
        )
        assert done.returncode == status, done.stdout + done.stderr
        if status:
            assert done.stderr.startswith("stretto-deploy: ") and done.stderr.count("\n") == 1, done.stderr
        return done.stderr if status else done.stdout


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    with api_double() as (double, address):
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}, {"name": "stranger", "user": {"token": "wrong"}}],
            "contexts": [
                {"name": "here", "context": {"cluster": "c", "user": "u"}},
                {"name": "strange", "context": {"cluster": "c", "user": "stranger"}},
            ],
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        yield Command(double, tmp_path / "config")


def test_applying_showing_and_changing_a_cluster(command: Command, table: Table) -> None:
    assert "Deployment/stretto-codec created" in command("apply", "--overlay", "gpu")
    assert command("diff", "--overlay", "gpu") == "nothing would change\n"
    assert "image: stretto-codec:local" in command("diff", "--overlay", "cpu-local")
    assert command("scale", "codec", "3") == "codec: 3 replicas\n"
    assert "stretto-deploy (scale)" in command("diff", "--overlay", "gpu", status=1)
    shown = json.loads(command("status", "--json"))
    codec = next(each for each in shown if each["name"] == "codec")
    assert codec["rollout"]["wanted"] == 3 and codec["done"] is False
    assert set(codec["digests"]) == {"framecodec", "soundstream"}
    assert "acoustic" in command("status") and "musicgen@" in command("status")
    assert "still roll" in command("wait", "--timeout-s", "0", status=1)
    assert "does not let this account" in command("status", "--context", "strange", status=1)


def test_a_drain_that_would_cut_calls_fails(command: Command, table: Table) -> None:
    command.double.objects[path_of("Pod", "lonely")] = {
        "kind": "Pod",
        "metadata": {"name": "lonely", "labels": labels_of(table.door)},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running"},
    }
    assert "would cut calls of lonely" in command("drain-check", "n1", status=1)
    assert json.loads(command("drain-check", "n2", "--json")) == []


def test_wrong_command_lines_are_one_line(command: Command) -> None:
    assert "expected one of base, cpu-local, gpu, got 'gpus'" in command("render", "--overlay", "gpus", status=1)
    assert "expected one of keda" in command("render", "--component", "helm", status=1)
    assert "expected one of orchestrator" in command("scale", "piano", "3", status=1)
    assert "stretto-deploy --help" in command("scale", "codec", "three", status=2)


def test_rendering_prints_what_a_cluster_takes() -> None:
    done = CliRunner().invoke(build_app(), ["render", "--overlay", "gpu", "--component", "keda"])
    assert done.exit_code == 0
    kinds = {each["kind"] for each in load_all(done.output, "render")}
    assert {"Deployment", "ScaledObject", "NetworkPolicy"} <= kinds


def test_the_tree_that_is_checked_in_is_said_to_be_fresh_and_valid() -> None:
    assert CliRunner().invoke(build_app(), ["generate", "--check"]).output == "deploy/k8s is fresh\n"
    done = CliRunner().invoke(build_app(), ["validate", "--overlay", "cpu-local", "--kubernetes", "1.28,1.37"])
    assert done.exit_code == 0 and "are well for Kubernetes 1.28, 1.37" in done.output
