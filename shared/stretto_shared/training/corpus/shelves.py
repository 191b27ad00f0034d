"""What is taken from music21's corpus: one row per collection, how much of it, and what it is called.

Licences. music21's corpus/license.txt says: "distributed with the permission of the encoders [...] Some encodings
included in the corpus may not be used for commercial uses or have other restrictions". The music is in the public
domain; what the encodings say of themselves:

- Josquin's chansons: GPL-2+ (Laura E. Conrad). Luca's Gloria: CC BY-SA 3.0; Lusitano: CC0 (M. S. A. Cuthbert).
  Corelli: CC BY.
- Essen folk songs: its license.txt calls their legal status unclear, with permission for non-commercial distribution
  and use in music21.
- String quartets, Monteverdi, the Trecento, Clara Schumann, Joplin, the tune books: no licence in the files, so the
  sentence above is all there is.

Left out: Bach's chorales, which are a source of their own; Mozart's K. 545, which is in piano-midi.de; and every file
that reserves rights (`RESERVATIONS`), such as all of Palestrina. Hold what is made from these to non-commercial use.
"""

from __future__ import annotations

from dataclasses import dataclass

RESERVATIONS = ("all rights reserved", "rights to all derivative", "edizioni")
# Movements and variants that are in another source, or twice in this one.
DUPLICATES = ("k545", "_old", "_bak")


@dataclass(frozen=True)
class Shelf:
    """Files of one kind.

    Args:
        pattern: Which files, relative to the corpus.
        genre: What captions call it; None where `genre_of_tune` reads it from the tune's own words.
        pieces: How many are taken at most, drawn by name.
        notes_per_s: How fast its busiest part moves at a natural tempo, for pieces that state no tempo.
    """

    pattern: str
    genre: str | None
    pieces: int
    notes_per_s: float


SHELVES = (
    Shelf("beethoven/opus18no1/*.mxl", "classical", 4, 4.0),
    Shelf("haydn/**/*.mxl", "classical", 9, 4.0),
    Shelf("mozart/**/*.mxl", "classical", 14, 4.0),
    Shelf("schumann_robert/opus41no1/*.mxl", "romantic classical", 3, 4.0),
    Shelf("monteverdi/*.mxl", "Renaissance madrigal", 24, 2.8),
    Shelf("josquin/*.abc", "Renaissance", 8, 2.8),
    Shelf("lusitano/*.mxl", "Renaissance madrigal", 1, 2.8),
    Shelf("luca/*.xml", "medieval", 1, 2.8),
    Shelf("trecento/*.xml", "medieval", 24, 2.8),
    Shelf("corelli/**/*.xml", "baroque", 1, 3.0),
    Shelf("schumann_clara/*.mxl", "romantic classical", 4, 4.5),
    Shelf("joplin/*.mxl", "ragtime", 1, 5.5),
    Shelf("ryansMammoth/*.abc", None, 32, 5.5),
    Shelf("oneills1850/*.abc", None, 28, 4.5),
    Shelf("airdsAirs/*.abc", None, 15, 4.5),
    Shelf("miscFolk/northumbrian*.abc", None, 8, 4.0),
    Shelf("essenFolksong/*.abc", None, 40, 2.8),
)

_DANCES = ("reel", "jig", "hornpipe", "strathspey", "clog", "march", "waltz")
_BOOKS = {"oneills1850": "Irish", "airdsAirs": "Scottish", "miscFolk": "Northumbrian"}
_REGIONS = {"irland": "Irish", "china": "Chinese", "luxemburg": "Luxembourg", "deutschland": "German"}


def genre_of_tune(folder: str, abc: str) -> str:
    """The genre of one tune of a tune book, by its title, rhythm and origin: `Irish jig`, `German folk`, `folk`."""
    fields = [(line[0], line[2:].strip().lower()) for line in abc.splitlines() if line[1:2] == ":"]
    words = " ".join(text for field, text in fields if field in "TRN").replace("-", " ").split()
    dance = next((dance for dance in _DANCES if dance in words), "folk") if folder != "essenFolksong" else "folk"
    origin = " ".join(text for field, text in fields if field == "O")
    region = _BOOKS.get(folder) or next((name for word, name in _REGIONS.items() if word in origin), "")
    return f"{region} {dance}".strip() if region or dance == "folk" else f"traditional {dance}"
