"""`stretto serve` and `make serve`: options go before the environment, and the address it prints is the real one."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stretto_client import StrettoClient

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    f"STRETTO_ORCHESTRATOR_{name}_ADDRESS": "127.0.0.1:1"
    for name in ("CODEC", "EMBEDDING", "SEMANTIC", "ACOUSTIC", "TRANSCRIBER", "HARMONY")
}
STRETTO = (sys.executable, "-c", "from stretto_client.cli.main import main; main()")
WITHOUT_SETTINGS = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("STRETTO_") and name not in ("PORT", "MAKEFLAGS", "MFLAGS")
}
GUARD_S = 300.0  # against hanging, not a limit of speed
NOWHERE = "not.a.host.invalid"


@pytest.mark.parametrize(
    ("environment", "options", "address"),
    [
        ({"HOST": NOWHERE}, (), f"{NOWHERE}:50051"),
        ({"HOST": NOWHERE, "PORT": "50999"}, ("--port", "0"), f"{NOWHERE}:0"),
        ({"HOST": "127.0.0.1", "PORT": "50999"}, ("--host", NOWHERE), f"{NOWHERE}:50999"),
    ],
)
def test_the_environment_says_where_to_listen_unless_an_option_does(
    environment: dict[str, str], options: tuple[str, ...], address: str
) -> None:
    done = subprocess.run(
        [*STRETTO, "serve", "--services", "orchestrator", *options],
        env=WITHOUT_SETTINGS | STAGES | {f"STRETTO_GRPC_{name}": value for name, value in environment.items()},
        capture_output=True,
        text=True,
        timeout=GUARD_S,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"stretto: Cannot listen on {address}." in done.stderr
    assert "Serving" not in done.stderr  # it does not


def test_serve_prints_the_address_that_it_listens_on(tmp_path: Path) -> None:
    said = tmp_path / "said.txt"
    with said.open("wb") as file:
        process = subprocess.Popen(
            [*STRETTO, "serve", "--services", "orchestrator"],
            env=WITHOUT_SETTINGS | STAGES | {"STRETTO_GRPC_PORT": "0", "STRETTO_GRPC_HOST": "localhost"},
            stderr=file,
        )
    try:
        address = printed_address(said, process)
        assert asyncio.run(answers(address))
        process.send_signal(signal.SIGTERM)
        assert process.wait(GUARD_S) == 0
    finally:
        process.kill()
        process.wait(GUARD_S)


def printed_address(said: Path, process: subprocess.Popen[bytes]) -> str:
    give_up_s = time.monotonic() + GUARD_S
    while time.monotonic() < give_up_s:
        if found := re.search(r"Serving orchestrator on (localhost:[1-9]\d*)\. Stop", said.read_text()):
            return found.group(1)
        assert process.poll() is None, said.read_text()
        time.sleep(0.1)
    raise AssertionError(said.read_text())


async def answers(address: str) -> bool:
    """Whether a server is there; its stages are not, so that it may well be unready."""
    async with StrettoClient(address, tls=False) as client:
        await client.check_health(timeout_s=GUARD_S)
    return True


STAGE_PORTS = "codec=50052 embedding=50053 acoustic=50054 semantic=50055 transcriber=50056 harmony=50057 acoustic=50064"


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("serve",), "stretto serve"),
        (("serve", "PORT=50099"), "stretto serve --port 50099"),
        (("serve-codec",), "stretto serve --services codec"),
        (("serve-codec", "PORT=50099"), "stretto serve --services codec --port 50099"),
        (("up",), f"orchestrator=50051 {STAGE_PORTS}"),
        (("up", "PORT=50099"), f"orchestrator=50099 {STAGE_PORTS}"),
    ],
)
def test_make_names_a_port_only_where_it_was_given_one(arguments: tuple[str, ...], command: str) -> None:
    # The tests themselves may run under make, whose own options would be inherited.
    environment = {name: value for name, value in WITHOUT_SETTINGS.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command_line = ["make", "--dry-run", "--no-print-directory", *arguments]
    shown = subprocess.run(command_line, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1].rstrip().endswith(command)
