"""The cascades: which model of each stage works under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stretto_shared.errors import NotFound

DEFAULT_CASCADE = "musicgen"


@dataclass(frozen=True)
class Cascade:
    """Models by stage; an empty name is the stage's own default. Tokens name their codec, which then decodes them."""

    name: str
    text_model: str = ""
    acoustic_model: str = ""
    codec_model: str = ""


def cascades_with(extra: Mapping[str, Mapping[str, str]]) -> dict[str, Cascade]:
    """`musicgen` and the operator's own.

    Raises:
        TypeError: If one names another field than those of `Cascade`; the settings let none through.
    """
    return {DEFAULT_CASCADE: Cascade(DEFAULT_CASCADE)} | {
        name: Cascade(name=name, **models) for name, models in extra.items()
    }


def find_cascade(cascades: Mapping[str, Cascade], name: str) -> Cascade:
    """The cascade of that name; empty is `musicgen`.

    Raises:
        NotFound: If there is none.
    """
    if (name or DEFAULT_CASCADE) not in cascades:
        raise NotFound("cascade", f"expected one of {', '.join(sorted(cascades))}, got {name!r}. Choose one.")
    return cascades[name or DEFAULT_CASCADE]
