"""Wrong settings in the operator's own words: the environment variable, what it holds, and what it may hold.

pydantic names a class and a field; an operator knows neither, only the variable. Its class is found by its name, so
that this holds for the settings of every service without their help.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from stretto_shared.errors import InvalidInput

_FIELD_OF_SETTINGS_ERROR = re.compile(r'field "(\w+)"')
MAX_SHOWN_CHARACTERS = 100


class InvalidSetting(InvalidInput):
    """The environment holds what no server or client can work with; `field` is the variable."""

    reason = "INVALID_SETTING"


@contextmanager
def named_settings() -> Iterator[None]:
    """Raise what pydantic says of settings that are read inside as `InvalidSetting`.

    Raises:
        InvalidSetting: If a variable holds what it may not hold. Of several, the first is the field.
    """
    try:
        yield
    except ValidationError as error:
        kind = _settings_class(error.title)
        if kind is None:  # a model of somebody else's, of which this module knows nothing
            raise
        wrong = [_in_words(kind, each) for each in error.errors(include_url=False)]
        others = [f"{variable}: {description}" for variable, description in wrong[1:]]
        raise InvalidSetting(wrong[0][0], " ".join([wrong[0][1], *others])) from error
    except SettingsError as error:
        raise _unreadable(error) from error


def _in_words(kind: type[BaseSettings], error: Any) -> tuple[str, str]:
    """The variable, and what is wrong with it, of one entry of pydantic's list."""
    message: str = error["msg"]
    variable = _variable(kind, str(error["loc"][0])) if error["loc"] else f"{kind.model_config['env_prefix']}*"
    if error["type"] == "value_error":
        return variable, message.removeprefix("Value error, ")  # our own words, which say everything
    where = f"at {'.'.join(map(str, error['loc'][1:]))}, " if error["loc"][1:] else ""
    wanted = message.replace("Input should be", "expected").replace("Input should", "expected to")
    return variable, f"{where}{wanted}, got {_shown(error['input'])}. Correct it, or unset it."


def _unreadable(error: SettingsError) -> InvalidSetting:
    """The error of a variable that should hold JSON; the class is the one that has the field."""
    found = _FIELD_OF_SETTINGS_ERROR.search(str(error))
    field = found.group(1) if found else ""
    variable = next((_variable(kind, field) for kind in _settings_classes() if field in kind.model_fields), field)
    cause = error.__cause__
    got = f", got {_shown(cause.doc)} ({cause})" if isinstance(cause, JSONDecodeError) else ""
    return InvalidSetting(variable or "settings", f"expected JSON{got}. Correct it, or unset it.")


def _variable(kind: type[BaseSettings], field: str) -> str:
    return f"{kind.model_config['env_prefix']}{field}".upper()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"


def _settings_class(name: str) -> type[BaseSettings] | None:
    return next((kind for kind in _settings_classes() if kind.__name__ == name), None)


def _settings_classes() -> Iterator[type[BaseSettings]]:
    """Every class of settings that is imported here and reads variables with a prefix, as all of Stretto's do."""
    waiting = list(BaseSettings.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if kind.model_config.get("env_prefix"):
            yield kind
