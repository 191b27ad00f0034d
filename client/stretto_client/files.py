"""Files that are whole or not there: written beside their place under another name, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stretto_shared.errors import InvalidInput


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which becomes `path` if the block ends well and vanishes if not.

    Raises:
        InvalidInput: If the folder of `path` does not exist, or `path` is a folder.
        OSError: If nothing can be written there.
    """
    temporary = _temporary_beside(path)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_output(path: Path, *inputs: Path | None) -> None:
    """Refuse a file that `whole_file` could not write, or that is an input of the same work, before the work begins.

    Raises:
        InvalidInput: If the folder of `path` does not exist, or `path` is a folder or one of `inputs`.
        OSError: If nothing can be written there.
    """
    for each in inputs:
        if each is not None and each.exists() and path.exists() and path.samefile(each):
            raise InvalidInput(
                "path", f"expected another file to write than the one to read, got {path} for both. Choose another."
            )
    _temporary_beside(path).unlink()


def _temporary_beside(path: Path) -> Path:
    """A new, empty file in the folder of `path`."""
    if path.is_dir():
        raise InvalidInput("path", f"expected a file to write, got the folder {path}. Add a file name.")
    if not path.parent.is_dir():
        raise InvalidInput("path", f"expected an existing folder, got {path.parent}. Create it first.")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:  # it names the temporary file, which nobody asked for
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.close(handle)
    return Path(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
