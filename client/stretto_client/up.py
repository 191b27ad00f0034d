"""`make up`: every named service in a process of its own, all forked from one that has imported them.

Importing torch and the services once and then forking costs a quarter of the memory and of the start of separate
interpreters. Nothing of gRPC or torch runs before the forks, because neither survives one. If a child ends, or on
SIGINT or SIGTERM, every child is stopped.

`STRETTO_GRPC_METRICS_PORT` is the port of the first child's page; each further one takes the next port.

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
from stretto_shared.grpc.program import EXIT_FAILED, EXIT_USAGE
from stretto_shared.grpc.server import run
from stretto_shared.grpc.setting_errors import InvalidSetting, named_settings
from stretto_shared.grpc.settings import GrpcSettings

MAX_PORT = 65_535


def parse_ports(arguments: Sequence[str]) -> dict[str, int]:
    """`name=port` words as a table.

    Raises:
        InvalidInput: If a word is not a name and a port, or there is none.
    """
    ports: dict[str, int] = {}
    for argument in arguments:
        name, _, port = argument.partition("=")
        if not name or not port.isdigit() or not 0 < int(port) <= MAX_PORT:
            raise InvalidInput("services", f"expected name=port, got {argument!r}. Write for example codec=50052.")
        ports[name] = int(port)
    if not ports:
        raise InvalidInput("services", "expected name=port for each service, got none.")
    return ports


def settings_of(ports: dict[str, int]) -> dict[str, GrpcSettings]:
    """The settings of each child's server: those of the environment, with a port and a metrics page of its own.

    Raises:
        InvalidSetting: If the environment holds a wrong one, or has too few ports for the pages.
    """
    with named_settings():
        first_metrics_port = GrpcSettings().metrics_port
        if first_metrics_port + len(ports) - 1 > MAX_PORT:
            raise InvalidSetting(
                "STRETTO_GRPC_METRICS_PORT",
                f"expected at most {MAX_PORT - len(ports) + 1}, since {len(ports)} services take one port after the "
                f"other, got {first_metrics_port}. Choose a lower one.",
            )
        return {
            name: GrpcSettings(port=port, metrics_port=first_metrics_port and first_metrics_port + index)
            for index, (name, port) in enumerate(ports.items())
        }


def serve_in_children(ports: dict[str, int]) -> int:
    """Fork one server a service, wait until the first ends, stop the others.

    Returns:
        The exit status: 0 after a signal, 1 if a child ended by itself.
    """
    settings = settings_of(ports)
    builders = load_builders(list(ports))
    children = {_fork(name, builders[name], settings[name]): name for name in ports}
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


def _fork(name: str, build: BuildService, settings: GrpcSettings) -> int:
    """Start one child and return its process id."""
    pid = os.fork()
    if pid == 0:
        # the terminal's Ctrl-C goes to the parent only, which then stops its children in order
        os.setpgid(0, 0)
        try:
            with named_settings():
                run(settings, {name: build})
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
        print(f"stretto: {error.message}", file=sys.stderr)  # noqa: T201  a program
        sys.exit(EXIT_USAGE if isinstance(error, InvalidSetting) else EXIT_FAILED)


if __name__ == "__main__":
    main()
