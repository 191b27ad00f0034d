"""API keys as they travel and as they are kept: a random word for the caller, its SHA-256 for the server.

A key is 256 random bits, so that its plain digest cannot be turned round by guessing; a slow hash, as for passwords,
would only make every call slow. Knows nothing of who may do what: that is the door's.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping

from stretto_shared.errors import InvalidInput, NotReady
from stretto_shared.grpc.settings import ChannelSettings

HEADER = "authorization"
KEY_PREFIX = "stretto_"
_BEARER = "Bearer "
_KEY = re.compile(r"[\x21-\x7e]{16,200}")


def new_key() -> str:
    """A key that nobody had before."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """What a server keeps of a key, in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def shown_key(metadata: Mapping[str, str]) -> str:
    """The key that a call shows; empty if it shows none."""
    value = metadata.get(HEADER, "")
    return value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER.lower() else ""


def headers_of(settings: ChannelSettings) -> dict[str, str]:
    """The headers that show the key of a channel; none where it has no key.

    Raises:
        NotReady: If the file of the key cannot be read.
        InvalidInput: If what is given as a key cannot be one. The message does not repeat it.
    """
    key, field = settings.api_key.get_secret_value().strip(), "api_key"
    if settings.api_key_path is not None:
        key, field = _read(settings), "api_key_path"
    if not key and settings.api_key_path is None:
        return {}
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            field, f"expected a key of 16 to 200 visible characters, got {len(key)}. Ask the operator for a new one."
        )
    return {HEADER: _BEARER + key}


def _read(settings: ChannelSettings) -> str:
    assert settings.api_key_path is not None
    try:
        return settings.api_key_path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise NotReady(
            f"api_key_path: cannot read '{settings.api_key_path}' ({error.strerror}). Give the path of a file that "
            "holds the key."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput("api_key_path", "expected a key in ASCII. Ask the operator for a new one.") from error
