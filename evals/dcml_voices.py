"""What DCML's annotated scores add to ASAP's: voices, spelling, written lengths, for the pieces that both have.

The two differ in repeats and in how they count bars. Every bar of ASAP is laid to the bar of DCML whose notes it shares
most, where going on to the next costs nothing and jumping costs `JUMP`; within a bar, notes are one where place and
pitch are.

Legend: N notes of ASAP's score.
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from asap_pairs import Reference
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

CORPUS_OF = {
    "Beethoven/Piano_Sonatas/": ("beethoven_piano_sonatas", "{:0>4}"),
    "Mozart/Piano_Sonatas/11-": ("mozart_piano_sonatas", "K331-{}"),
}
JUMP = 1.5
GRID = 96  # places per quarter note; both write tuplets by whole ticks


@dataclass(frozen=True, eq=False)
class Writing:
    """Of each note of a `Reference`: voice int64 [N] (0 unknown), staff, place on the line of fifths, quarter notes."""

    voice: Ints
    staff: Ints
    fifths: Ints
    duration_quarter: Array

    @property
    def is_known(self) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = self.voice > 0
        return known


@dataclass(frozen=True)
class _Note:
    place: int
    pitch: int
    staff: int
    voice: int
    fifths: int
    duration: Fraction


def read_notes(archive: Path, compositions: set[str]) -> dict[str, list[list[_Note]]]:
    """Bars of notes by composition, for those that DCML has."""
    wanted = {}
    for composition in compositions:
        for prefix, (corpus, pattern) in CORPUS_OF.items():
            if composition.startswith(prefix):
                number = composition.removeprefix(prefix).removesuffix("_no_repeat")
                wanted[f"{corpus}/notes/{pattern.format(number)}.notes.tsv"] = composition
    found = {}
    with tarfile.open(archive, "r:xz") as opened:
        for member in opened:
            composition = next((value for name, value in wanted.items() if member.name.endswith(name)), "")
            content = opened.extractfile(member) if composition else None
            if content is not None:
                found[composition] = _bars(content.read().decode())
    return found


def _bars(text: str) -> list[list[_Note]]:
    bars: dict[tuple[int, str], list[_Note]] = {}
    open_ties: dict[tuple[int, int], _Note] = {}
    for row in csv.DictReader(io.StringIO(text), delimiter="\t"):
        bar = bars.setdefault((int(row["mn"]), row.get("volta") or ""), [])
        if row.get("gracenote"):
            continue
        duration = Fraction(row["duration"]) * 4
        voice_key = (int(row["midi"]), int(row["staff"]))
        if row["tied"] in ("0", "-1") and voice_key in open_ties:
            begun = open_ties.pop(voice_key)
            begun = _extend(bars, begun, duration)
            if row["tied"] == "0":
                open_ties[voice_key] = begun
            continue
        place = round(Fraction(row["mn_onset"]) * 4 * GRID)
        note = _Note(place, int(row["midi"]), int(row["staff"]), int(row["voice"]), int(row["tpc"]), duration)
        bar.append(note)
        if row["tied"] == "1":
            open_ties[voice_key] = note
    return list(bars.values())


def _extend(bars: dict[tuple[int, str], list[_Note]], note: _Note, by: Fraction) -> _Note:
    longer = _Note(note.place, note.pitch, note.staff, note.voice, note.fifths, note.duration + by)
    for bar in reversed(bars.values()):
        if note in bar:
            bar[bar.index(note)] = longer
            break
    return longer


def writing_of(reference: Reference, bars: list[list[_Note]]) -> Writing:
    """Voices and spelling of ASAP's notes, where DCML's bars have them."""
    downbeats = np.flatnonzero(reference.beat_in_bar == 1)
    quarter = np.interp(reference.onset_beat, np.arange(len(reference.beat_quarter)), reference.beat_quarter)
    bar_of = np.searchsorted(reference.beat_quarter[downbeats], quarter + 1e-3, side="right") - 1
    offset = np.where(bar_of >= 0, reference.beat_quarter[downbeats[np.maximum(bar_of, 0)]], 0.0)
    place = np.round((quarter - offset) * GRID).astype(np.int64)
    tables = [{(note.place, note.pitch): note for note in bar} for bar in bars]
    path = _lay(bar_of, place, reference.pitch_midi, tables, len(downbeats))
    size = len(quarter)
    voice, staff, fifths = (np.zeros(size, np.int64) for _ in range(3))
    duration = np.zeros(size)
    for index in np.flatnonzero(bar_of >= 0):
        note = tables[path[bar_of[index]]].get((int(place[index]), int(reference.pitch_midi[index])))
        if note is not None:
            voice[index], staff[index], fifths[index] = note.voice, note.staff, note.fifths
            duration[index] = float(note.duration)
    return Writing(voice, staff, fifths, duration)


def _lay(bar_of: Ints, place: Ints, pitch: Ints, tables: list[dict[tuple[int, int], _Note]], num_bars: int) -> Ints:
    """The DCML bar of every ASAP bar."""
    where = defaultdict(list)
    for index, table in enumerate(tables):
        for key in table:
            where[key].append(index)
    likeness = np.zeros((num_bars, len(tables)))
    count = np.bincount(bar_of[bar_of >= 0], minlength=num_bars)
    for bar, at, tone in zip(bar_of.tolist(), place.tolist(), pitch.tolist()):
        if bar >= 0:
            likeness[bar, where[at, tone]] += 1.0
    likeness /= np.maximum(np.maximum(count[:, None], [len(table) for table in tables]), 1)
    back = np.zeros(likeness.shape, np.int64)
    total = likeness[0].copy()
    for bar in range(1, num_bars):
        jump = int(total.argmax())
        following = np.concatenate([[-np.inf], total[:-1]])
        goes_on = following >= total[jump] - JUMP
        back[bar] = np.where(goes_on, np.arange(len(tables)) - 1, jump)
        total = np.where(goes_on, following, total[jump] - JUMP) + likeness[bar]
    path = np.zeros(num_bars, np.int64)
    path[-1] = int(total.argmax())
    for bar in range(num_bars - 1, 0, -1):
        path[bar - 1] = back[bar, path[bar]]
    return path
