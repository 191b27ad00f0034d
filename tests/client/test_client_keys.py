"""The client and the command show the key that they were given, and `stretto keys new` makes one that works."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stretto_client import StrettoClient, StrettoError
from stretto_shared.grpc.api_keys import digest_of

KEY, OTHER = "stretto_a-key-of-the-tests", "stretto_another-of-the-tests"
Run = Callable[..., tuple[int, str, str]]


async def test_the_client_shows_the_key_that_it_is_given_or_that_of_the_environment(
    door: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_text(OTHER)
    monkeypatch.setenv("STRETTO_CHANNEL_API_KEY", KEY)
    door.seen.keys.clear()
    for api_key in (None, OTHER, path, ""):
        async with StrettoClient(door.address, api_key=api_key) as client:
            await client.list_models()
    assert door.seen.keys == [KEY, OTHER, OTHER, ""]


async def test_a_key_that_cannot_be_one_is_the_clients_own_error(door: Any) -> None:
    with pytest.raises(StrettoError, match="16 to 200"):
        async with StrettoClient(door.address, api_key="short"):
            pass


def test_the_command_takes_the_file_of_a_key(run: Run, door: Any, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    door.seen.keys.clear()
    assert run("--api-key-path", path, "models")[0] == 0
    assert run("models")[0] == 0
    assert door.seen.keys == [KEY, ""]


def test_the_command_takes_certificates(run: Run, tmp_path: Path) -> None:
    status, _, err = run("--tls-ca-path", tmp_path / "none.pem", "models")
    assert status == 1 and "tls_ca_path: cannot read" in err
    status, _, err = run("--tls-cert-path", tmp_path / "none.pem", "models")
    assert status == 2 and "belong together" in err


def test_a_new_key_is_shown_once_and_its_entry_holds_only_its_digest(run: Run) -> None:
    status, out, err = run("keys", "new", "studio.a", "--requests-at-once", 3)
    assert status == 0
    key = err.strip().rpartition(" ")[2]
    assert tomllib.loads(out) == {"keys": {"studio.a": {"sha256": digest_of(key), "requests_at_once": 3}}}
    assert key not in out
    assert run("keys", "new", "studio")[1] != run("keys", "new", "studio")[1]


def test_a_name_that_logs_could_not_hold_is_refused(run: Run) -> None:
    status, out, err = run("keys", "new", "a b")
    assert (status, out) == (1, "") and "letters" in err
