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
    """
    if path.is_dir():
        raise InvalidInput("path", f"expected a file to write, got the folder {path}. Add a file name.")
    if not path.parent.is_dir():
        raise InvalidInput("path", f"expected an existing folder, got {path.parent}. Create it first.")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
