"""`KeyFile`: the keys that the door knows, by their digests, read again whenever the file changes.

    [keys.studio]                       # the caller's name, which logs show
    sha256 = "9f86d081…"                # or a list of two, while a key is being replaced
    requests_per_minute = 120           # this and the rest may be left out
    requests_at_once = 8
    request_bytes = 4_194_304
    services = ["orchestrator"]         # which of the services behind the door; all unless said
    expires = 2027-01-01T00:00:00Z

`stretto keys new studio` makes a key and its entry. A file that has become wrong is not taken: the keys before it hold
on, and the log says so. Every digest is compared, each in constant time, so that no answer comes sooner for a key that
is nearly right. No message of this module repeats what a file holds in place of a digest: it may be the key itself.
"""

from __future__ import annotations

import datetime
import hmac
import re
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stretto_shared.errors import InvalidInput
from stretto_shared.grpc.api_keys import digest_of

from stretto_orchestrator.door.limits import Limits

LOOK_EVERY_S = 1.0
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LIMITS = ("requests_per_minute", "requests_at_once", "request_bytes")
_FIELDS = ("sha256", *_LIMITS, "services", "expires")


@dataclass(frozen=True)
class Caller:
    """Somebody whom the door knows, by name.

    Args:
        name: For logs and metrics.
        limits: What they may do.
        services: The services that they may call, by their one word; None for all.
        expires: When the key ends; None for never.
    """

    name: str
    limits: Limits
    services: frozenset[str] | None = None
    expires: datetime.datetime | None = None

    def has_expired(self) -> bool:
        return self.expires is not None and datetime.datetime.now(datetime.UTC) >= self.expires


def parse_keys(text: str, defaults: Limits) -> dict[str, Caller]:
    """Callers by the digests of their keys.

    Raises:
        InvalidInput: If the text is no such file; `field` says where.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at .*\)$", str(error))
        raise InvalidInput("api_keys", f"expected TOML {place.group(0) if place else ''}. Correct it.") from None
    entries = document.get("keys")
    if set(document) != {"keys"} or not isinstance(entries, dict) or not entries:
        raise InvalidInput("api_keys", "expected a table [keys.NAME] for each caller, and nothing else.")
    callers: dict[str, Caller] = {}
    for name, entry in entries.items():
        if not _NAME.fullmatch(name) or not isinstance(entry, dict):
            raise InvalidInput(
                "keys", "expected tables [keys.NAME] whose names are 1 to 64 letters, digits, '.', '_' or '-'."
            )
        caller = _caller(name, entry, defaults)
        for digest in _digests(name, entry):
            if digest in callers:
                raise InvalidInput(
                    f"keys.{name}.sha256", f"expected a key of its own, got that of {callers[digest].name}."
                )
            callers[digest] = caller
    return callers


def _caller(name: str, entry: Mapping[str, Any], defaults: Limits) -> Caller:
    for key in entry:
        if key not in _FIELDS:
            raise InvalidInput(f"keys.{name}", f"expected only {', '.join(_FIELDS)}, got another field. Rename it.")
    limits: dict[str, Any] = {key: _limit(f"keys.{name}.{key}", entry[key]) for key in _LIMITS if key in entry}
    services = entry.get("services")
    if services is not None and not (isinstance(services, list) and all(isinstance(each, str) for each in services)):
        raise InvalidInput(f"keys.{name}.services", 'expected a list of words, as in ["orchestrator", "codec"].')
    expires = entry.get("expires")
    if expires is not None and not (isinstance(expires, datetime.datetime) and expires.tzinfo is not None):
        raise InvalidInput(f"keys.{name}.expires", "expected a time with its zone, as 2027-01-01T00:00:00Z.")
    return Caller(name, replace(defaults, **limits), None if services is None else frozenset(services), expires)


def _limit(field: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(field, "expected a whole number of at least 0, where 0 sets no limit.")
    return value


def _digests(name: str, entry: Mapping[str, Any]) -> list[str]:
    given = entry.get("sha256", [])
    digests = given if isinstance(given, list) else [given]
    if not digests or not all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in digests):
        raise InvalidInput(
            f"keys.{name}.sha256",
            "expected the SHA-256 of the key, 64 lower hexadecimal digits, or a list of them. `stretto keys new` makes "
            "both.",
        )
    return digests


class KeyFile:
    """The callers of one file, as it is now.

    Args:
        path: The file.
        defaults: The limits of a caller for whom the file says nothing.
        log: A structlog logger; None says nothing.
        now_s: A clock that only goes forward.

    Raises:
        InvalidInput: If the file cannot be read, or is wrong. Later the callers before hold on instead.
    """

    def __init__(
        self, path: Path, defaults: Limits, log: Any = None, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._defaults = defaults
        self._log = log
        self._now_s = now_s
        self._looked_at_s = now_s()
        self._seen = self._look()
        self._callers = self._read()

    def caller_of(self, key: str) -> Caller | None:
        """Who holds this key; None if nobody does."""
        self._refresh()
        shown = digest_of(key)
        found = None
        for digest, caller in self._callers.items():
            if hmac.compare_digest(digest, shown):
                found = caller
        return found

    def _refresh(self) -> None:
        """Read the file again if it has changed, looking at most once a second."""
        now_s = self._now_s()
        if now_s - self._looked_at_s < LOOK_EVERY_S:
            return
        self._looked_at_s = now_s
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._callers = self._read()
        except InvalidInput as error:
            self._tell("error", "api_keys_not_taken", problem=error.message)
            return
        self._tell("info", "api_keys_read", callers=len({caller.name for caller in self._callers.values()}))

    def _look(self) -> tuple[int, ...]:
        """What changes when the file does, also where it is a link that now points elsewhere."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _read(self) -> dict[str, Caller]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidInput(
                "api_keys", f"cannot read '{self._path}' ({error.strerror}). Give the path of a file of keys."
            ) from error
        except UnicodeDecodeError:
            raise InvalidInput("api_keys", f"expected '{self._path}' in UTF-8. Correct it.") from None
        return parse_keys(text, self._defaults)

    def _tell(self, level: str, event: str, **fields: Any) -> None:
        if self._log is not None:
            getattr(self._log, level)(event, path=str(self._path), **fields)
