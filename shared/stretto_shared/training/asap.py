"""ASAP's compositions: the split that all rooms share, and the compositions that a test on recordings keeps out.

The split is by composition, so that two performances of one piece are on one side, and by a digest, so that it needs
no list. A composition is the folder of the piece below the archive's root, such as `Bach/Fugue/bwv_846`. A work may
have several, with and without its repeats; `held_out_works` says which works no training may hear.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Literal

Split = Literal["train", "valid", "test"]
_VARIANT = re.compile(r"(_no_(\w+_)?repeat|_repeat|_no_trio)$")

MAPS_TITLES = frozenset(
    {
        "Chopin/Etudes_op_10/1",  # chpn-e01
        "Liszt/Transcendental_Etudes/5",  # liz_et_trans5
        "Mozart/Piano_Sonatas/11-3",  # mz_331_3
        "Mozart/Piano_Sonatas/12-2",  # mz_332_2
        "Schumann/Kreisleriana/3",  # scn16_3
        "Schumann/Kreisleriana/4",  # scn16_4
    }
)
"""ASAP's folders of what the 19 Disklavier recordings of MAPS play: never to be heard in training."""


def split_of(composition: str) -> Split:
    """Which split a composition is in: two twentieths test, one validation, by its digest."""
    place = hashlib.sha256(composition.encode()).digest()[0] % 20
    if place < 2:
        return "test"
    return "valid" if place == 2 else "train"


def work_of(composition: str) -> str:
    """The work of a composition, whichever of its repeats it plays."""
    return _VARIANT.sub("", composition)


def held_out_works(compositions: Iterable[str]) -> frozenset[str]:
    """The works of which one of these compositions is held out, and the titles of MAPS: not for training."""
    return frozenset(work_of(each) for each in compositions if split_of(each) != "train") | MAPS_TITLES
