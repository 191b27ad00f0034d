"""Readers of the public score collections into `Piece`; every reader takes the unpacked folder of its collection.

Roles per source: POP909 melody, bridge, piano; SCHmUBERT melody, bass, drums; JSB chorales soprano, alto, tenor, bass;
piano-midi.de right, left; Groove drums.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import symusic
from numpy.typing import NDArray

from stretto_shared.training.corpus.scores import Chord, Key, Notes, Piece, sorted_notes

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_QUALITIES = {
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
}
_SEVENTHS = {
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
    "7": (0, 4, 7, 10),
    "hdim7": (0, 3, 6, 10),
    "dim7": (0, 3, 6, 9),
}
_GROOVE_GENRES = {"hiphop": "hip hop", "neworleans": "New Orleans", "afrobeat": "Afrobeat", "afrocuban": "Afro-Cuban"}
_PERIODS: Mapping[str, str] = {
    "Bach": "baroque",
    **dict.fromkeys(("Haydn", "Mozart", "Clementi", "Beethoven"), "classical"),
    **dict.fromkeys(("Debussy", "Ravel"), "impressionist"),
    "Christmas": "Christmas",
}


def _read_midi(path: str) -> Any:
    """A symusic score in ticks; its stubs cannot tell which of the three time units it has."""
    return symusic.Score(path)


def _rows(track: Any, ticks_per_quarter: int) -> Notes:
    columns = track.notes.numpy()
    scaled = np.stack([columns["time"], columns["duration"]], axis=1) / float(ticks_per_quarter)
    return sorted_notes(np.concatenate([scaled, np.stack([columns["pitch"], columns["velocity"]], axis=1)], axis=1))


def _end_beat(parts: Mapping[str, Notes]) -> float:
    return max(float((notes[:, 0] + notes[:, 1]).max()) for notes in parts.values() if len(notes))


def pitch_class(name: str) -> int:
    """The pitch class of a name such as Gb or C#."""
    return (_LETTERS[name[0]] + name.count("#") - name[1:].count("b")) % 12


def parse_chord(label: str) -> tuple[int, ...]:
    """The pitch classes of a label such as `Bb:min7/5`, root first; empty for no chord."""
    if ":" not in label:
        return ()
    root, quality = label.split("/")[0].split(":", 1)
    stem = quality.split("(")[0]
    intervals = _SEVENTHS.get(stem) or next((i for name, i in _QUALITIES.items() if stem.startswith(name)), (0, 4, 7))
    return tuple((pitch_class(root) + interval) % 12 for interval in intervals)


def read_pop909(folder: Path) -> Piece | None:
    """One song's folder of POP909, on the beats that the collection states."""
    song = folder.name
    score = _read_midi(str(folder / f"{song}.mid"))
    beats = np.loadtxt(folder / "beat_midi.txt")
    times_s: NDArray[np.float64] = beats[:, 0]
    beat_s = float(np.median(np.diff(times_s)))
    if not 0.3 < beat_s < 1.2 or len(beats) < 64:
        return None

    def to_beat(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        inside: NDArray[np.float64] = np.interp(seconds, times_s, np.arange(len(times_s), dtype=float))
        inside = np.where(seconds < times_s[0], (seconds - times_s[0]) / beat_s, inside)
        after = (seconds - times_s[-1]) / beat_s + len(times_s) - 1
        placed: NDArray[np.float64] = np.where(seconds > times_s[-1], after, inside)
        return placed

    parts: dict[str, Notes] = {}
    for track in score.to("second").tracks:
        columns = track.notes.numpy()
        start, end = columns["time"].astype(float), (columns["time"] + columns["duration"]).astype(float)
        onset = to_beat(start)
        rows = np.stack([onset, to_beat(end) - onset, columns["pitch"], columns["velocity"]], axis=1)
        parts[track.name.lower()] = sorted_notes(rows[onset >= 0])
    if not {"melody", "piano"} <= set(parts):
        return None
    chords = []
    for line in (folder / "chord_midi.txt").read_text(encoding="utf-8").splitlines():
        start_s, end_s, label = line.split()
        classes = parse_chord(label)
        span = to_beat(np.array([float(start_s), float(end_s)]))
        if classes:
            chords.append(Chord(float(np.rint(span[0])), float(np.rint(span[1])), classes))
    keys = []
    for line in (folder / "key_audio.txt").read_text(encoding="utf-8").splitlines():
        start_s, end_s, label = line.split()
        span = to_beat(np.array([float(start_s), float(end_s)]))
        mode = "minor" if label.endswith("min") else "major"
        keys.append((float(span[0]) - 8.0, float(span[1]) + 8.0, Key(pitch_class(label.split(":")[0]), mode)))
    downbeats = np.flatnonzero(beats[:, 2] == 1.0).astype(float)
    return Piece("pop909", song, parts, 60.0 / beat_s, downbeats, "pop", tuple(chords), tuple(keys))


def read_schmubert(path: Path, name: str) -> Piece | None:
    """One trio file: melody, bass, drums over 64 bars of 4/4, on a 16th grid, at a nominal tempo."""
    score = _read_midi(str(path))
    if len(score.tracks) != 3:
        return None
    tracks = {"melody": score.tracks[0], "bass": score.tracks[1], "drums": score.tracks[2]}
    parts = {role: _rows(track, score.ticks_per_quarter) for role, track in tracks.items()}
    if any(len(notes) < 16 for notes in parts.values()):
        return None
    bars = np.arange(0.0, _end_beat(parts), 4.0)
    return Piece("schmubert", name, parts, 110.0, bars, tempo_is_free=True)


def read_chorales(path: Path) -> list[tuple[str, Piece]]:
    """Every chorale of the 16th-note JSON file, with the split of the literature."""
    chorales = []
    for split, items in json.loads(path.read_text(encoding="utf-8")).items():
        for index, steps in enumerate(items):
            grid = np.array([[-1 if pitch is None else pitch for pitch in step] for step in steps], dtype=int)
            roles = ("soprano", "alto", "tenor", "bass")
            parts = {role: _runs(grid[:, voice]) for voice, role in enumerate(roles)}
            bars = np.arange(0.0, len(grid) / 4.0, 4.0)
            piece = Piece("jsb", f"{split}-{index:03d}", parts, 80.0, bars, "baroque chorale", tempo_is_free=True)
            chorales.append((split, piece))
    return chorales


def _runs(pitches: NDArray[np.int64]) -> Notes:
    """A voice sampled on 16ths to notes: equal neighbours within a beat are one note."""
    rows: list[list[float]] = []
    for step, pitch in enumerate(pitches):
        if pitch < 0:
            continue
        held = rows and step % 4 != 0 and step > 0 and pitches[step - 1] == pitch
        held = held or bool(rows and step % 4 == 0 and pitches[step - 1] == pitch and rows[-1][1] < 1.0)
        if held:
            rows[-1][1] += 0.25
        else:
            rows.append([step / 4.0, 0.25, float(pitch), 80.0])
    return sorted_notes(rows)


def read_piano_midi(path: Path) -> Piece | None:
    """A piano piece with one track per hand; rubato is dropped, the mean tempo and the metre are kept."""
    score = _read_midi(str(path))
    tracks = [track for track in score.tracks if len(track.notes)]
    if len(tracks) < 2 or not score.tempos:
        return None
    parts = {"right": _rows(tracks[0], score.ticks_per_quarter), "left": _rows(tracks[1], score.ticks_per_quarter)}
    end = _end_beat(parts)
    times: NDArray[np.float64] = np.array([tempo.time / score.ticks_per_quarter for tempo in score.tempos] + [end])
    beat_s = np.array([60.0 / tempo.qpm for tempo in score.tempos])
    spans = np.maximum(np.diff(times), 0.0)
    if spans.sum() <= 0:
        return None
    bpm = 60.0 / float(np.average(beat_s, weights=spans))
    signatures = score.time_signatures
    bar = 4.0 * signatures[0].numerator / signatures[0].denominator if len(signatures) == 1 else 1.0
    name = f"{path.parent.name}/{path.stem}"
    genre = _PERIODS.get(path.parent.name, "romantic")
    genre = f"{genre} classical" if genre in ("baroque", "romantic", "impressionist") else genre
    return Piece("pianomidi", name, parts, bpm, np.arange(0.0, end, bar), genre)


def read_groove(folder: Path) -> list[Piece]:
    """The beats (not the fills) of the Groove collection with at least four bars in 4/4."""
    pieces = []
    with (folder / "info.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["beat_type"] != "beat" or row["time_signature"] != "4-4" or float(row["duration"]) < 12.0:
                continue
            score = _read_midi(str(folder / row["midi_filename"]))
            notes = _rows(score.tracks[0], score.ticks_per_quarter)
            if len(notes) < 48:
                continue
            style = row["style"].split("/")[0]
            bars = np.arange(0.0, _end_beat({"drums": notes}), 4.0)
            genre = _GROOVE_GENRES.get(style, style)
            pieces.append(Piece("groove", row["id"], {"drums": notes}, float(row["bpm"]), bars, genre))
    return pieces
