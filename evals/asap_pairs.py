"""ASAP's performances beside their scores, note by note, for the evals and recipes of engraving.

A performance is a MIDI recording of a pianist, with its annotated beats; its score is a MIDI file that was exported
from notation, with the same beats annotated. The two have as many beats, so beat `i` of one is beat `i` of the other,
and every note has a place in beats, linear between two beats. Notes of a pitch are then matched in order, by the
alignment that leaves the least difference in place, of a beat at most, so that a trill or a wrong note finds no partner
rather than its neighbour's.

What the score's MIDI does not say: voices, spelling, and the written length of staccato notes (they are shortened).

Legend: N notes, B beats, M bars.
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import symusic
from numpy.typing import NDArray
from stretto_shared.score import Part, Score
from stretto_shared.training.asap import split_of

ROOT_FOLDER = "asap/"
MAX_DIFFERENCE_BEATS = 1.0
EXPORT_GATE_TICKS = 1
"""Notation programs end a note one tick before it is over."""

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reference:
    """A score as notes on its beats.

    Args:
        onset_beat: float64 [N], place in beats of the annotation; not a number of quarter notes.
        duration_beat: float64 [N], length in beats.
        pitch_midi: int64 [N].
        staff: int64 [N], 1 for the upper; 0 where the file does not have two tracks.
        beat_quarter: float64 [B], where the beats are, in quarter notes.
        beat_in_bar: int64 [B], 1 on downbeats; 0 before the first.
        signatures: (numerator, denominator) at every beat.
        sharps: int64 [B], of the key signature at every beat, below 0 for flats.
    """

    onset_beat: Array
    duration_beat: Array
    pitch_midi: Ints
    staff: Ints
    beat_quarter: Array
    beat_in_bar: Ints
    signatures: list[tuple[int, int]]
    sharps: Ints


@dataclass(frozen=True, eq=False)
class Pair:
    """A performance, its score, and the indices [P, 2] of the notes (performed, written) that are one."""

    name: str
    composition: str
    performance: Score
    pedal: Array  # [K, 2], begin and end of every pedal in seconds
    reference: Reference
    matches: Ints


@dataclass(frozen=True, eq=False)
class _Annotation:
    time_s: Array
    beat_in_bar: Ints
    signatures: list[tuple[int, int]]
    sharps: Ints


def read_pairs(archive: Path, split: str, most_per_composition: int = 0) -> Iterator[Pair]:
    """Aligned pairs of a split, in order of name; without those whose annotations have other numbers of beats."""
    files = _read_files(archive, split)
    rows = sorted(csv.DictReader(io.StringIO(files["metadata.csv"].decode())), key=lambda row: row["midi_performance"])
    taken: dict[str, int] = {}
    for row in rows:
        composition = row["folder"]
        if split_of(composition) != split or (0 < most_per_composition <= taken.get(composition, 0)):
            continue
        pair = _pair(row, files)
        if pair is not None:
            taken[composition] = taken.get(composition, 0) + 1
            yield pair


def _read_files(archive: Path, split: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with tarfile.open(archive, "r:xz") as opened:
        for member in opened:
            name = member.name.removeprefix(ROOT_FOLDER)
            if member.isfile() and (name == "metadata.csv" or split_of(name.rpartition("/")[0]) == split):
                content = opened.extractfile(member)
                assert content is not None
                files[name] = content.read()
    return files


def _pair(row: Mapping[str, str], files: Mapping[str, bytes]) -> Pair | None:
    played = _annotation(files[row["performance_annotations"]])
    written = _annotation(files[row["midi_score_annotations"]])
    if len(played.time_s) != len(written.time_s) or len(played.time_s) < 3 or np.any(np.diff(played.time_s) <= 0):
        return None
    reference = _reference(files[row["midi_score"]], written)
    performance, pedal = _performance(files[row["midi_performance"]], played)
    place = place_in_beats(performance.onset_s, played.time_s)
    matches = match_notes(place, performance.pitch_midi, reference.onset_beat, reference.pitch_midi)
    return Pair(row["midi_performance"], row["folder"], performance, pedal, reference, matches)


def _annotation(content: bytes) -> _Annotation:
    times, places, signatures, sharps = [], [], [], []
    place, signature, key = 0, (4, 4), 0
    for line in content.decode().splitlines():
        time_s, _, label = line.split("\t")
        kind, *marks = label.split(",")
        for mark in marks:
            if "/" in mark:
                numerator, denominator = mark.split("/")
                signature = (int(numerator), int(denominator))
            elif mark:
                key = int(mark)
        place = 1 if kind == "db" else place + (place > 0)
        times.append(float(time_s))
        places.append(place)
        signatures.append(signature)
        sharps.append(key)
    return _Annotation(np.array(times), np.array(places), signatures, np.array(sharps))


def _reference(content: bytes, beats: _Annotation) -> Reference:
    score: Any = symusic.Score.from_midi(content)
    seconds: Any = symusic.Score.from_midi(content, ttype="second")
    tracks = [track for track in score.tracks if len(track.notes)]
    staves = (1, 2) if len(tracks) == 2 else (0,) * len(tracks)
    rows = np.array(
        [
            (note.time, note.duration + EXPORT_GATE_TICKS, note.pitch, staff)
            for staff, track in zip(staves, tracks)
            for note in track.notes
        ],
        np.int64,
    )
    rows = rows[np.lexsort((rows[:, 2], rows[:, 0]))]
    tempo_tick = np.array([tempo.time for tempo in score.tempos], float)
    tempo_s = np.array([tempo.time for tempo in seconds.tempos], float)
    rate = np.array([tempo.qpm for tempo in score.tempos]) * score.tpq / 60.0
    nearest = np.clip(np.searchsorted(tempo_s, beats.time_s + 1e-6, side="right") - 1, 0, None)
    beat_tick = np.round(tempo_tick[nearest] + (beats.time_s - tempo_s[nearest]) * rate[nearest])
    onset = place_in_beats(rows[:, 0].astype(float), beat_tick)
    end = place_in_beats((rows[:, 0] + rows[:, 1]).astype(float), beat_tick)
    return Reference(
        onset,
        end - onset,
        rows[:, 2],
        rows[:, 3],
        beat_tick / score.tpq,
        beats.beat_in_bar,
        beats.signatures,
        beats.sharps,
    )


def _performance(content: bytes, beats: _Annotation) -> tuple[Score, Array]:
    score: Any = symusic.Score.from_midi(content, ttype="second")
    rows = np.array(
        sorted(
            (note.time, note.pitch, note.duration, note.velocity)
            for track in score.tracks
            for note in track.notes
            if note.duration > 0 and note.velocity > 0
        )
    )
    pedal = np.array([(p.time, p.time + p.duration) for track in score.tracks for p in track.pedals]).reshape(-1, 2)
    first = int(np.argmax(beats.beat_in_bar == 1))
    places = beats.beat_in_bar.copy()
    if first:  # beats before the first downbeat end a bar
        usual = int(np.bincount(places[first:]).argmax()) if first < len(places) else 1
        bar = max(first, int(places[first:].max(initial=usual)))
        places[:first] = np.arange(bar - first + 1, bar + 1)
    performed = Score(
        onset_s=rows[:, 0],
        duration_s=rows[:, 2],
        pitch_midi=rows[:, 1],
        velocity=rows[:, 3],
        part_index=np.zeros(len(rows), np.int32),
        parts=(Part("Piano"),),
        beat_s=beats.time_s,
        beat_in_bar=places,
    )
    return performed, pedal


def place_in_beats(time: Array, beat: Array) -> Array:
    """Places [N] of times on beats [B], B >= 2: linear between two beats, and beyond the ends as in the nearest."""
    index = np.clip(np.searchsorted(beat, time, side="right") - 1, 0, len(beat) - 2)
    places: Array = index + (time - beat[index]) / (beat[index + 1] - beat[index])
    return places


def match_notes(played: Array, played_pitch: NDArray[Any], written: Array, written_pitch: NDArray[Any]) -> Ints:
    """Pairs [P, 2] of notes of the same pitch, in order, nearest in place; both in order of onset."""
    pairs: list[tuple[int, int]] = []
    for pitch in np.intersect1d(played_pitch, written_pitch):
        ours, theirs = np.flatnonzero(played_pitch == pitch), np.flatnonzero(written_pitch == pitch)
        pairs += [(int(ours[i]), int(theirs[j])) for i, j in _align(played[ours], written[theirs])]
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _align(ours: Array, theirs: Array) -> list[tuple[int, int]]:
    """The monotone pairing of the least cost, where a note without partner costs half of `MAX_DIFFERENCE_BEATS`."""
    alone = MAX_DIFFERENCE_BEATS / 2
    cost = np.zeros((len(ours) + 1, len(theirs) + 1))
    cost[:, 0], cost[0] = np.arange(len(ours) + 1) * alone, np.arange(len(theirs) + 1) * alone
    difference = np.abs(ours[:, None] - theirs)
    for i in range(len(ours)):
        best = np.minimum(cost[i, :-1] + difference[i], cost[i, 1:] + alone)
        # a run of written notes without partner: the least of the best so far, and what the run costs
        steps = np.arange(1, len(theirs) + 1) * alone
        running = np.minimum.accumulate(np.concatenate([[cost[i + 1, 0]], best - steps]))
        cost[i + 1, 1:] = running[1:] + steps
    pairs, i, j = [], len(ours), len(theirs)
    while i and j:
        if np.isclose(cost[i, j], cost[i - 1, j - 1] + difference[i - 1, j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif np.isclose(cost[i, j], cost[i - 1, j] + alone):
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
