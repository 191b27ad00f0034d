"""`make up`: every named service in a process of its own, all forked from one that has imported them.

Importing torch and the services once and then forking costs a quarter of the memory and of the start of separate
interpreters. Nothing of gRPC or torch runs before the forks, because neither survives one. A service may be named more
than once, each time with another port: those are its replicas.

A child that was killed, or stopped by a signal of its own, is forked anew, as Kubernetes would: kill one and see what
its callers notice. One that fails by itself ends all, since what it failed at will not mend itself. On SIGINT or
SIGTERM every child is stopped.

`STRETTO_GRPC_METRICS_PORT` is the port of the first child's page; each further one takes the next port. So it is with
`STRETTO_GRPC_HEALTH_PORT`.

Usage: `python -m stretto_client.up orchestrator=50051 codec=50052 acoustic=50054 acoustic=50064 …`
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from stretto_shared.errors import InvalidInput, StrettoError
from stretto_shared.grpc.hosting import BuildService, load_builders
from stretto_shared.grpc.program import EXIT_FAILED, EXIT_USAGE
from stretto_shared.grpc.server import run
from stretto_shared.grpc.setting_errors import InvalidSetting, named_settings
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.grpc.settling import settle

MAX_PORT = 65_535
STOPPING = (signal.SIGINT, signal.SIGTERM)
SHORT_LIFE_S = 10.0
MAX_WAIT_S = 10.0


@dataclass(frozen=True)
class Place:
    """A service and the port that it listens on."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}={self.port}"


def parse_places(arguments: Sequence[str]) -> tuple[Place, ...]:
    """`name=port` words.

    Raises:
        InvalidInput: If a word is not a name and a port, a port is named twice, or there is none.
    """
    places: list[Place] = []
    for argument in arguments:
        name, _, port = argument.partition("=")
        if not name or not port.isdigit() or not 0 < int(port) <= MAX_PORT:
            raise InvalidInput("services", f"expected name=port, got {argument!r}. Write for example codec=50052.")
        if int(port) in {place.port for place in places}:
            raise InvalidInput("services", f"expected a port of its own, got {argument!r}. Choose another.")
        places.append(Place(name, int(port)))
    if not places:
        raise InvalidInput("services", "expected name=port for each service, got none.")
    return tuple(places)


def settings_of(places: Sequence[Place]) -> dict[Place, GrpcSettings]:
    """The settings of each child's server: those of the environment, with ports and a metrics page of its own.

    Raises:
        InvalidSetting: If the environment holds a wrong one, or has too few ports for the pages.
    """
    with named_settings():
        shared = GrpcSettings()
        for variable, first in (
            ("STRETTO_GRPC_METRICS_PORT", shared.metrics_port),
            ("STRETTO_GRPC_HEALTH_PORT", shared.health_port),
        ):
            if first + len(places) - 1 > MAX_PORT:
                raise InvalidSetting(
                    variable,
                    f"expected at most {MAX_PORT - len(places) + 1}, since {len(places)} services take one port after "
                    f"the other, got {first}. Choose a lower one.",
                )
        return {
            place: GrpcSettings(
                port=place.port,
                metrics_port=shared.metrics_port and shared.metrics_port + index,
                health_port=shared.health_port and shared.health_port + index,
            )
            for index, place in enumerate(places)
        }


class Children:
    """One process for each place, forked anew when it is killed.

    Invariant: whoever asks to stop reaches every child, also one that is being forked at that moment.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._settings = settings_of(places)
        self._builders = load_builders([place.name for place in places])
        self._running: dict[int, Place] = {}
        self._begun_s: dict[Place, float] = {}
        self._wait_s: dict[Place, float] = {}
        self._asked_to_stop = False

    def serve(self) -> int:
        """Fork every child, and wait until all have ended.

        Returns:
            The exit status: 0 after a signal, 1 if a child failed by itself.
        """
        for kind in STOPPING:
            signal.signal(kind, self._stop)
        settle()  # also so that no child copies pages only to look through them
        for place in self._settings:
            self._start(place)
        status = 0
        while self._running:
            pid, ended = os.wait()
            if pid not in self._running:
                continue
            place = self._running.pop(pid)
            if self._asked_to_stop:
                continue
            if os.WIFEXITED(ended) and os.WEXITSTATUS(ended) != 0:
                _say(f"the service {place.name!r} ended; stopping the others.")
                status = EXIT_FAILED
                self._stop_all()
                continue
            how = f"by {signal.Signals(os.WTERMSIG(ended)).name}" if os.WIFSIGNALED(ended) else "in good order"
            _say(f"{place} ended {how}; starting it again.")
            self._start_again(place)
        return status

    def _start_again(self, place: Place) -> None:
        """Fork a child anew; longer and longer after the last one, if none of them lives long."""
        if time.monotonic() - self._begun_s[place] < SHORT_LIFE_S:
            self._wait_s[place] = min(MAX_WAIT_S, 2 * self._wait_s.get(place, 0.0) or 0.25)
            time.sleep(self._wait_s[place])
        else:
            self._wait_s.pop(place, None)
        self._start(place)

    def _start(self, place: Place) -> None:
        with _signals_held():
            if self._asked_to_stop:
                return
            self._begun_s[place] = time.monotonic()
            pid = os.fork()
            if pid == 0:
                _serve_as_child(place, self._builders[place.name], self._settings[place])
            self._running[pid] = place
        _say(f"{place} runs as process {pid}")

    def _stop(self, signal_number: int, frame: FrameType | None) -> None:
        self._stop_all()

    def _stop_all(self) -> None:
        self._asked_to_stop = True
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)  # somebody may have paused it


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals to stop wait until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve_as_child(place: Place, build: BuildService, settings: GrpcSettings) -> None:
    """Serve, and end this process."""
    # the terminal's Ctrl-C goes to the parent only, which then stops its children in order
    os.setpgid(0, 0)
    for kind in STOPPING:
        signal.signal(kind, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    try:
        with named_settings():
            run(settings, {place.name: build})
    except BaseException as error:
        _say(f"{place.name}: {error}")
        os._exit(EXIT_FAILED)
    os._exit(0)


def _say(text: str) -> None:
    with suppress(OSError):  # nobody reads on; that ends no service
        print(f"stretto: {text}", file=sys.stderr, flush=True)  # noqa: T201  a program


def main() -> None:
    """Run until stopped."""
    try:
        sys.exit(Children(parse_places(sys.argv[1:])).serve())
    except StrettoError as error:
        _say(error.message)
        sys.exit(EXIT_USAGE if isinstance(error, InvalidSetting) else EXIT_FAILED)


if __name__ == "__main__":
    main()
