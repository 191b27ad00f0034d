"""The `stretto` command: one line on stderr and a non-zero exit for every failure, never a traceback."""

from __future__ import annotations

import io
import sys

import typer
from stretto_shared.errors import StrettoError
from stretto_shared.grpc.setting_errors import InvalidSetting, named_settings
from typer.exceptions import TyperException

from stretto_client.cli import (
    analyzing,
    bench,
    doctor,
    embedding,
    keys,
    music,
    serving,
    tokenizing,
    tokens,
    transcribing,
)
from stretto_client.cli.output import stderr_console
from stretto_client.cli.session import take_credentials

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def build_app() -> typer.Typer:
    """The command with its subcommands."""
    app = typer.Typer(
        name="stretto",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(take_credentials)
    app.command("serve")(serving.serve)
    app.command("generate")(music.generate)
    app.command("encode")(tokens.encode)
    app.command("decode")(tokens.decode)
    app.command("embed")(embedding.embed)
    app.command("rank")(embedding.rank)
    app.command("tag")(embedding.tag)
    app.command("tokenize")(tokenizing.tokenize)
    app.command("transcribe")(transcribing.transcribe)
    app.command("beats")(transcribing.beats)
    app.command("analyze")(analyzing.analyze)
    app.command("models")(serving.models)
    app.command("doctor")(doctor.doctor)
    app.command("bench")(bench.bench)
    app.add_typer(keys.build_app(), name="keys")
    return app


def main() -> None:
    """Run the command line and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: a name it cannot show is no failure
    try:
        with named_settings():
            status = build_app()(sys.argv[1:] or ["--help"], prog_name="stretto", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except TyperException as error:  # a wrong command line
        fail(f"{error.format_message().rstrip('.')}. See: stretto --help", EXIT_USAGE)
    except InvalidSetting as error:
        fail(error.message, EXIT_USAGE)
    except StrettoError as error:
        fail(error.message)
    except UnicodeEncodeError as error:  # words of the command line that are no text; names of files need not be
        fail(f"expected text in UTF-8, got {error.object!r}. See: stretto --help", EXIT_USAGE)
    except OSError as error:
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def fail(message: str, status: int = EXIT_FAILED) -> None:
    """Say one line and exit."""
    stderr_console().print(
        f"stretto: {' '.join(message.split())}", style="red", highlight=False, soft_wrap=True, markup=False
    )
    sys.exit(status)
