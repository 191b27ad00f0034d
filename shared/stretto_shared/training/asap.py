"""ASAP's compositions: the split that all rooms share, and the compositions that a test on recordings keeps out.

The split is by composition, so that two performances of one piece are on one side, and by a digest, so that it needs
no list. A composition is the folder of the piece below the archive's root, such as `Bach/Fugue/bwv_846`.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "valid", "test"]

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
