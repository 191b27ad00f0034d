"""A replica that the network swallows, in a network namespace of its own: only where root may make one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = ("unshare", "ip", "iptables")
IN_NAMESPACE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"')


def why_not():
    """What is missing for a namespace; empty if nothing is."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found"
    tried = subprocess.run([*IN_NAMESPACE, "iptables", "-L"], capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode else ""


@pytest.mark.skipif(bool(why_not()), reason=f"no network namespace: {why_not()}")
def test_a_replica_behind_a_black_hole_costs_a_pause_and_comes_back_when_it_heals():
    program = Path(__file__).with_name("black_hole.py")
    done = subprocess.run(
        [*IN_NAMESPACE, sys.executable, str(program)],
        env=os.environ
        | {"STRETTO_CHANNEL_KEEPALIVE_TIME_S": "1", "STRETTO_CHANNEL_KEEPALIVE_TIMEOUT_S": "1"}
        | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and "survived" in done.stdout, done.stderr
