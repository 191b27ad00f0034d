"""A program leaves out of garbage collection what it has loaded, before it says that it serves."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest
from stretto_shared.grpc import server as server_module
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.grpc.settling import settle


class Node:
    """Something that can be part of a cycle."""


@pytest.fixture
def unfrozen() -> Any:
    yield
    gc.unfreeze()


def test_what_is_there_is_not_looked_through_again_and_what_was_left_over_is_gone(unfrozen: Any) -> None:
    left_over = Node()
    left_over.itself = left_over  # type: ignore[attr-defined]
    gone = weakref.ref(left_over)
    kept = Node()
    del left_over
    settle()
    assert gone() is None and gc.get_freeze_count() > 0
    assert not any(each is kept for each in gc.get_objects()), "the collector still visits what was settled"
    later = Node()
    later.itself = later  # type: ignore[attr-defined]
    gone = weakref.ref(later)
    del later
    gc.collect()
    assert gone() is None, "what comes after is collected as ever"


@pytest.mark.parametrize("owns_process", [True, False])
async def test_a_server_settles_what_it_loaded_only_in_a_process_of_its_own(
    serve: Any, monkeypatch: pytest.MonkeyPatch, owns_process: bool
) -> None:
    told: list[str] = []
    monkeypatch.setattr(server_module, "settle", lambda: told.append("settled"))

    usual_s = sys.getswitchinterval()

    async def start() -> None:
        told.append("loaded")
        assert (sys.getswitchinterval() < usual_s) == owns_process

    server = StrettoServer(
        GrpcSettings(port=0, log_level="error"), {"codec": serve.fake(start=start).build}, owns_process=owns_process
    )
    await server.start()
    try:
        await server.wait_until_ready()
    finally:
        await server.stop()
    assert sys.getswitchinterval() == usual_s
    assert told == ["loaded", "settled"] if owns_process else ["loaded"]
