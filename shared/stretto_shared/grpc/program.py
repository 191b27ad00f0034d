"""A service as a program: what the `main` of each does, and how it ends when it cannot begin."""

from __future__ import annotations

import sys

from stretto_shared.errors import StrettoError
from stretto_shared.grpc.hosting import BuildService
from stretto_shared.grpc.server import run
from stretto_shared.grpc.setting_errors import InvalidSetting, named_settings
from stretto_shared.grpc.settings import GrpcSettings

EXIT_FAILED = 1
EXIT_USAGE = 2


def serve_alone(name: str, build: BuildService) -> None:
    """Serve one service until SIGTERM or SIGINT.

    What an operator can mend is one line on stderr, with status 2 for a wrong setting and 1 for everything else; any
    other exception is a defect, and keeps its traceback.
    """
    try:
        with named_settings():
            run(GrpcSettings(), {name: build})
    except StrettoError as error:
        print(f"stretto: {' '.join(error.message.split())}", file=sys.stderr)  # noqa: T201  a program
        sys.exit(EXIT_USAGE if isinstance(error, InvalidSetting) else EXIT_FAILED)
