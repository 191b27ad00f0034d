"""`stretto keys new`: an API key for a caller, and its entry in the file that the door reads."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from stretto_shared.errors import InvalidInput
from stretto_shared.grpc.api_keys import digest_of, new_key

from stretto_client.cli.output import stderr_console

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def build_app() -> typer.Typer:
    """The commands about keys."""
    app = typer.Typer(help="API keys of the door.", no_args_is_help=True)
    app.callback()(keys)
    app.command("new")(new)
    return app


def keys() -> None:
    """API keys of the door."""


def new(
    name: Annotated[str, typer.Argument(help="Who will hold the key: 1 to 64 letters, digits, '.', '_' or '-'.")],
    requests_per_minute: Annotated[float, typer.Option(min=0, help="Requests in a minute; 0 for the door's own.")] = 0,
    requests_at_once: Annotated[int, typer.Option(min=0, help="Requests in flight; 0 for the door's own.")] = 0,
) -> None:
    """Make a key.

    The key itself goes to stderr, once; its entry for the file of STRETTO_ORCHESTRATOR_API_KEYS_PATH to stdout.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput("name", f"expected 1 to 64 letters, digits, '.', '_' or '-', got {name!r}. Choose another.")
    key = new_key()
    stderr_console().print(f"The key of {name}, shown this once: {key}", soft_wrap=True, highlight=False, markup=False)
    lines = [f'[keys."{name}"]', f'sha256 = "{digest_of(key)}"']
    lines += [f"requests_per_minute = {requests_per_minute:g}"] if requests_per_minute else []
    lines += [f"requests_at_once = {requests_at_once}"] if requests_at_once else []
    print("\n".join(lines))  # noqa: T201  what is appended to the file
