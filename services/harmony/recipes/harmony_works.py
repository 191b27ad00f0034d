"""Which work a piece of a corpus is, under one name whatever the edition: `beethoven/sonata-01/1`, `bach/wtc1/3`.

The split of the AugmentedNet list holds for works, so that no other edition of a test piece trains.
"""

from __future__ import annotations

import re
import unicodedata

_SONATAS = (
    "2-1", "2-2", "2-3", "7", "10-1", "10-2", "10-3", "13", "14-1", "14-2", "22", "26", "27-1", "27-2", "28",
    "31-1", "31-2", "31-3", "49-1", "49-2", "53", "54", "57", "78", "79", "81a", "90", "101", "106", "109", "110",
    "111",
)  # fmt: skip
"""Opus numbers of Beethoven's piano sonatas, in order."""


def work_of_dcml(corpus: str, piece: str) -> str:
    """The work of a movement in a DCML corpus, by its file's name."""
    if corpus == "ABC":
        found = re.match(r"n\d+op(\d+)(?:-(\d+))?_0*(\d+)", piece)
        return f"beethoven/{_opus(found[1], found[2])}/{found[3]}" if found else f"abc/{piece}"
    if corpus == "beethoven_piano_sonatas":
        return "beethoven/sonata-{}/{}".format(*piece.split("-"))
    if corpus == "mozart_piano_sonatas":
        return "mozart/{}/{}".format(*piece.lower().split("-"))
    return f"{corpus}/{piece.lower()}"


def work_of_path(path: str) -> str:
    """The work of an analysis in When in Rome, by the path of its folder below `Corpus`, of today's tree or before."""
    parts = [part for part in path.split("/") if part]
    composer, movement = parts[1].split(",")[0].lower(), parts[-1]
    if composer == "beethoven" and parts[0] == "Piano_Sonatas":
        number = _SONATAS.index(re.sub(r"^op", "", _opus(*_op_parts(parts[2])))) + 1
        return f"beethoven/sonata-{number:02}/{movement}"
    if composer == "beethoven" and parts[0] == "Quartets":
        return f"beethoven/{_opus(*_op_parts(parts[2]))}/{movement}"
    if composer == "mozart" and parts[0] == "Piano_Sonatas":
        return f"mozart/{parts[2].lower()}/{movement}"
    if composer == "haydn":
        return f"haydn/{_slug(parts[2])}/{movement}"
    if "Clavier" in parts[2]:
        return f"bach/wtc{parts[2].count('I')}/{movement.lstrip('0')}"
    if parts[2] == "Chorales":
        return f"bach/chorale/{int(movement)}"
    if parts[2].startswith("Madrigals"):
        return f"monteverdi/{_slug(parts[2])}/{int(movement)}"
    return "/".join([composer, *(_slug(part) for part in parts[2:])])


def _op_parts(folder: str) -> tuple[str, str | None]:
    found = re.match(r"Op0*(\d+a?)(?:_?No0*(\d+))?", folder)
    return (found[1], found[2]) if found else (folder, None)


def _opus(opus: str, number: str | None) -> str:
    return f"op{opus}-{number}" if number else f"op{opus}"


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
