"""`make up`: every named service in a process of its own, all forked from one that has imported them.

Importing torch and the services once and then forking costs a quarter of the memory and of the start of separate
interpreters. Nothing of gRPC or torch runs before the forks, because neither survives one. If a child ends, or on
SIGINT or SIGTERM, every child is stopped.

Usage: `python -m stretto_client.up orchestrator=50051 codec=50052 …`
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from stretto_shared.errors import InvalidInput, StrettoError
from stretto_shared.grpc.hosting import BuildService, load_builders
from stretto_shared.grpc.server import run
from stretto_shared.grpc.settings import GrpcSettings


def parse_ports(arguments: Sequence[str]) -> dict[str, int]:
    """`name=port` words as a table.

    Raises:
        InvalidInput: If a word is not a name and a port, or there is none.
    """
    ports: dict[str, int] = {}
    for argument in arguments:
        name, _, port = argument.partition("=")
        if not name or not port.isdigit() or not 0 < int(port) < 65536:
            raise InvalidInput("services", f"expected name=port, got {argument!r}. Write for example codec=50052.")
        ports[name] = int(port)
    if not ports:
        raise InvalidInput("services", "expected name=port for each service, got none.")
    return ports


def serve_in_children(ports: dict[str, int]) -> int:
    """Fork one server a service, wait until the first ends, stop the others.

    Returns:
        The exit status: 0 after a signal, 1 if a child ended by itself.
    """
    builders = load_builders(list(ports))
    children = {_fork(name, builders[name], port): name for name, port in ports.items()}
    asked_to_stop = False

    def stop(signal_number: int, frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        _signal_all(children)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    status = 0
    while children:
        pid, _ = os.wait()
        name = children.pop(pid, "")
        if name and not asked_to_stop:
            print(f"stretto: the service {name!r} ended; stopping the others.", file=sys.stderr)  # noqa: T201  a program
            asked_to_stop, status = True, 1
            _signal_all(children)
    return status


def _fork(name: str, build: BuildService, port: int) -> int:
    """Start one child and return its process id."""
    pid = os.fork()
    if pid == 0:
        # the terminal's Ctrl-C goes to the parent only, which then stops its children in order
        os.setpgid(0, 0)
        try:
            run(GrpcSettings(port=port), {name: build})
        except BaseException as error:
            print(f"stretto: {name}: {error}", file=sys.stderr)  # noqa: T201  a program
            os._exit(1)
        os._exit(0)
    return pid


def _signal_all(children: dict[int, str]) -> None:
    for pid in children:
        os.kill(pid, signal.SIGTERM)


def main() -> None:
    """Run until stopped."""
    try:
        sys.exit(serve_in_children(parse_ports(sys.argv[1:])))
    except StrettoError as error:
        sys.exit(f"stretto: {error.message}")


if __name__ == "__main__":
    main()
