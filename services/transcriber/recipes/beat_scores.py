"""Music with known beats: performances of ASAP, songs of POP909 and drumming of Groove, in seconds, by split.

Sources, all in `symbolic/` of the data folder: `asap.tar.xz` (fosfrancesco/asap-dataset, CC BY-NC-SA 4.0),
`pop909.tar.xz` (music-x-lab/POP909-Dataset, MIT), `groove.tar.xz` (Groove MIDI dataset, CC BY 4.0).

ASAP is split by composition: a composition is its folder below the archive's root, and the first byte of the folder's
SHA-256 modulo 20 says the split (0 and 1 test, 2 valid, the rest train). A composition that stands in the archive with
and without its repeats counts as held out if either does, and the titles of MAPS' Disklavier recordings are in no
training split, so that whoever trains on these excerpts may be judged on those. POP909 is split by song, and Groove as
its own table says.

Legend: N notes, B beats.
"""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import symusic
from numpy.typing import NDArray
from stretto_shared.training import asap
from stretto_shared.training.corpus.splits import split_of

ARCHIVES = ("asap", "pop909", "groove")
_RUBATO = "bR"  # the annotators' mark for beats that the performance does not show


@dataclass(frozen=True, eq=False)
class Part:
    """Notes float64 [N, 4] of onset_s, duration_s, pitch_midi, velocity; `role` names what the part does."""

    role: str
    notes: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Music:
    """A performance and its beats.

    Args:
        source: asap, pop909 or groove.
        name: Of the performance, unique in its source.
        parts: What sounds.
        beat_s: float64 [B], rising.
        beat_in_bar: int64 [B], 1 on a downbeat, 0 where nobody knows.
        is_sure: bool [B]; False where the beat cannot be heard.
    """

    source: str
    name: str
    parts: tuple[Part, ...]
    beat_s: NDArray[np.float64]
    beat_in_bar: NDArray[np.int64]
    is_sure: NDArray[np.bool_]


def unpack(data: Path, out: Path) -> Path:
    """Unpack the three archives of `data/symbolic` into `out`, those that are not there yet."""
    for name in ARCHIVES:
        if not (out / name).exists():
            part = out / f"{name}.part"
            with tarfile.open(data / "symbolic" / f"{name}.tar.xz") as archive:
                archive.extractall(part, filter="data")
            (part / name).rename(out / name)
            part.rmdir()
    return out


def asap_folders(root: Path, split: str) -> list[str]:
    """The folders of one split, without training folders whose composition is held out."""
    keys = sorted(str(path.parent.relative_to(root)) for path in root.rglob("midi_score.mid"))
    if split != "train":
        return [key for key in keys if asap.split_of(key) == split]
    held_out = asap.held_out_works(keys)
    return [key for key in keys if asap.work_of(key) not in held_out]


def read_asap(root: Path, split: str) -> Iterator[Music]:
    """Every performance of one split, its notes as long as keys and pedal let them sound."""
    for key in asap_folders(root, split):
        for path in sorted((root / key).glob("*.mid")):
            annotations = path.with_name(f"{path.stem}_annotations.txt")
            if path.stem == "midi_score" or not annotations.exists():
                continue
            rows = [line.split("\t") for line in annotations.read_text().splitlines() if line.strip()]
            beat_s = np.array([float(row[0]) for row in rows])
            labels = [row[2].split(",")[0] for row in rows]
            places = count_bars(np.array([label == "db" for label in labels]))
            is_sure = np.array([label != _RUBATO for label in labels])
            if len(rows) < 2 or np.any(np.diff(beat_s) <= 0):
                continue
            notes = sustained_notes(symusic.Score(str(path), ttype="second"))
            yield Music("asap", f"{key}/{path.stem}", (Part("piano", notes),), beat_s, places, is_sure)


def read_pop909(root: Path, split: str) -> Iterator[Music]:
    """The songs of one split."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if split_of("pop909", folder.name) != split:
            continue
        beats = np.loadtxt(folder / "beat_midi.txt")
        if len(beats) < 32 or np.any(np.diff(beats[:, 0]) <= 0.1):
            continue
        score: Any = symusic.Score(str(folder / f"{folder.name}.mid"), ttype="second")
        parts = tuple(Part(track.name.lower(), note_rows(track)) for track in score.tracks if len(track.notes))
        yield Music(
            "pop909", folder.name, parts, beats[:, 0], count_bars(beats[:, 2] == 1.0), np.ones(len(beats), bool)
        )


def read_groove(root: Path, split: str) -> Iterator[Music]:
    """The drumming of one split that lasts ten seconds and more, in metres whose beat is a quarter note."""
    folder = root / "groove" if (root / "groove").is_dir() else root
    own = {"train": "train", "valid": "validation", "test": "test"}[split]
    with (folder / "info.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            numerator, denominator = (int(part) for part in row["time_signature"].split("-"))
            if row["split"] != own or denominator != 4 or float(row["duration"]) < 10.0:
                continue
            score: Any = symusic.Score(str(folder / row["midi_filename"]), ttype="second")
            notes = note_rows(score.tracks[0])
            beat_s = np.arange(0.0, float(notes[:, 0].max()) + 0.05, 60.0 / float(row["bpm"]))
            places = np.arange(len(beat_s)) % numerator + 1
            yield Music("groove", row["id"], (Part("drums", notes),), beat_s, places, np.ones(len(beat_s), bool))


def count_bars(is_downbeat: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Places in the bar [B] from downbeats [B]; 0 before the first one."""
    index = np.arange(len(is_downbeat))
    last = np.maximum.accumulate(np.where(is_downbeat, index, -1))
    return np.where(last < 0, 0, index - last + 1)


def note_rows(track: Any) -> NDArray[np.float64]:
    """A symusic track in seconds as rows [N, 4] by onset."""
    columns = track.notes.numpy()
    rows = np.stack([columns[name].astype(np.float64) for name in ("time", "duration", "pitch", "velocity")], axis=1)
    return rows[np.lexsort((rows[:, 2], rows[:, 0]))]


def sustained_notes(score: Any) -> NDArray[np.float64]:
    """All notes of a score in seconds [N, 4]; a pedal that is down holds them until it rises or the key is struck."""
    rows = []
    for track in score.tracks:
        notes = note_rows(track)
        if not len(notes):
            continue
        ends = notes[:, 0] + notes[:, 1]
        for pedal in track.pedals:
            held = (ends >= pedal.time) & (ends < pedal.time + pedal.duration)
            ends[held] = pedal.time + pedal.duration
        rows.append(np.column_stack([notes[:, 0], ends - notes[:, 0], notes[:, 2:]]))
    notes = np.concatenate(rows) if rows else np.zeros((0, 4))
    notes = notes[np.lexsort((notes[:, 0], notes[:, 2]))]
    again = np.flatnonzero(notes[1:, 2] == notes[:-1, 2])
    gap = notes[again + 1, 0] - notes[again, 0]
    notes[again, 1] = np.minimum(notes[again, 1], np.maximum(gap, 0.01))
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]
