"""The server inside the caller's process: up for the block, down after it, and quiet about what it raises."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from stretto_client import NotReady, StrettoClient, Unreachable, embedded, embedded_server
from stretto_client.cli import main as cli
from stretto_shared.grpc.hosting import HostContext, ServiceHost


async def test_an_embedded_server_answers_inside_the_block_and_not_after(
    fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "load_builders", lambda names: fakes)
    async with embedded_server() as address, StrettoClient(address, tls=False) as client:
        assert (await client.list_models()).models
    async with StrettoClient(address, tls=False) as client:
        with pytest.raises(Unreachable):
            await client.list_models(timeout_s=10)


def test_a_command_without_an_address_runs_its_own_server(
    fakes: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STRETTO_ADDRESS", raising=False)
    monkeypatch.setattr(embedded, "load_builders", lambda names: fakes)
    monkeypatch.setattr(sys, "argv", ["stretto", "models", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert len(json.loads(capsys.readouterr().out)["models"]) == 2


async def test_without_services_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "load_builders", lambda names: {})
    with pytest.raises(NotReady, match=r"--address .* stretto-orchestrator"):
        async with embedded_server():
            pass


def test_a_model_that_does_not_load_is_one_line(
    fakes: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def fail() -> None:
        raise NotReady("The weights are damaged. Restore them.")

    async def nothing() -> None:
        return None

    def broken(context: HostContext) -> ServiceHost:
        return ServiceHost("codec", "stretto.codec.v1.CodecService", lambda server: None, fail, nothing)

    monkeypatch.delenv("STRETTO_ADDRESS", raising=False)
    monkeypatch.setattr(embedded, "load_builders", lambda names: fakes | {"codec": broken})
    monkeypatch.setattr(sys, "argv", ["stretto", "generate", "x", "-o", str(tmp_path / "a.wav")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert lines == ["stretto: The weights are damaged. Restore them."]
    assert list(tmp_path.iterdir()) == []
