"""Performances of piano music as MIDI: where they are, which split they are in, and an excerpt of one, perturbed.

Legend: N notes, P pedal changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import symusic
from numpy.typing import NDArray
from stretto_shared.training import asap

ARCHIVES = {"pianomidi": "piano_midi_de", "asap": "asap", "pop909": "pop909"}
"""The sources, as pieces are named after them, and the archives that they are in."""
PEDAL_DOWN = 64
"""The value of controller 64 from which the dampers are up, as MIDI has it and as MAPS was labelled."""
LOWEST, HIGHEST = 21, 108
MIN_REPEAT_S = 0.03
"""Of one key, a stroke sooner after the last is the same stroke, written in two tracks."""
MIN_SAME_NOTES = 0.7
TAIL_S = 2.0
"""What still sounds after the last key is released, where the pedal stays down."""
MAPS_TITLES = frozenset(
    [
        "alb_se2",
        "bk_xmas4",
        "bor_ps6",
        "chpn_op10_e01",
        "god_chpn_op10_e01",
        "chpn-p19",
        "deb_clai",
        "deb_menu",
        "grieg_butterfly",
        "liz_et_trans5",
        "mz_311_1",
        "mz_331_3",
        "mz_332_2",
        "mz_545_3",
        "scn15_11",
        "scn15_12",
        "scn16_3",
        "scn16_4",
        "ty_maerz",
        "ty_mai",
    ]
)
"""piano-midi.de's files of what the 19 Disklavier recordings of MAPS play: never to be heard in training."""


@dataclass(frozen=True)
class Piece:
    """One MIDI file."""

    name: str
    path: Path
    split: str


@dataclass(frozen=True, eq=False)
class Performance:
    """`notes` float64 [N, 4] of onset_s, release_s, pitch_midi, velocity; `pedal` float64 [P, 2] of time_s, value."""

    notes: NDArray[np.float64]
    pedal: NDArray[np.float64]


def list_pieces(symbolic: Path, num_pop: int = 150) -> list[Piece]:
    """Every usable file below `symbolic`, where `ARCHIVES` are unpacked."""
    pieces = []
    root = symbolic / "asap"
    paths = [path for path in sorted(root.rglob("*.mid")) if path.stem != "midi_score"]
    compositions = [str(path.parent.relative_to(root)) for path in paths]
    held_out = asap.held_out_works(compositions)
    for path, composition in zip(paths, compositions, strict=True):
        split = asap.split_of(composition)
        if composition not in asap.MAPS_TITLES and not (split == "train" and asap.work_of(composition) in held_out):
            pieces.append(Piece(f"asap_{composition}_{path.stem}".replace("/", "_"), path, split))
    for path in sorted((symbolic / "pianomidi").rglob("*.mid")):
        if path.stem not in MAPS_TITLES:
            pieces.append(Piece(f"pianomidi_{path.stem}", path, "train"))
    songs = sorted((symbolic / "pop909").glob("*/*.mid"))
    for path in songs[:: max(1, len(songs) // num_pop)]:
        pieces.append(Piece(f"pop909_{path.stem}", path, "train"))
    return pieces


def read_performance(path: Path) -> Performance:
    """All tracks of a MIDI file together, on one keyboard: a key struck again was released before."""
    score: Any = symusic.Score(str(path)).to("second")
    notes, pedal = [], []
    for track in score.tracks:
        if not track.is_drum:
            notes += [(n.time, n.time + n.duration, n.pitch, n.velocity) for n in track.notes]
            pedal += [(c.time, c.value) for c in track.controls if c.number == 64]
    return Performance(
        _on_one_keyboard(np.array(notes, np.float64).reshape(-1, 4)), np.array(sorted(pedal), np.float64).reshape(-1, 2)
    )


def _on_one_keyboard(notes: NDArray[np.float64]) -> NDArray[np.float64]:
    notes = notes[np.lexsort((notes[:, 0], notes[:, 2]))]
    again = (np.diff(notes[:, 2]) == 0) & (np.diff(notes[:, 0]) < MIN_REPEAT_S)
    notes = notes[np.append(True, ~again)]
    same = np.append(np.diff(notes[:, 2]) == 0, False)
    following = np.append(notes[1:, 0], np.inf)
    notes[:, 1] = np.where(same, np.minimum(notes[:, 1], following), notes[:, 1])
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]


def excerpt(whole: Performance, start_s: float, length_s: float) -> Performance:
    """The notes that begin between `start_s` and `length_s` later, and the pedal, as it stands at `start_s` and on."""
    begins = whole.notes[:, 0]
    notes = whole.notes[(begins >= start_s) & (begins < start_s + length_s)].copy()
    notes[:, :2] -= start_s
    earlier = whole.pedal[whole.pedal[:, 0] <= start_s]
    pedal = whole.pedal[(whole.pedal[:, 0] > start_s) & (whole.pedal[:, 0] < start_s + length_s)].copy()
    pedal[:, 0] -= start_s
    if len(earlier):
        pedal = np.concatenate([[[0.0, earlier[-1, 1]]], pedal])
    return Performance(notes, pedal)


def perturbed(performance: Performance, random: np.random.Generator) -> Performance:
    """Up to two semitones higher or lower, a tenth faster or slower, and another touch."""
    notes, pedal = performance.notes.copy(), performance.pedal.copy()
    stretch = random.uniform(0.9, 1.1)
    notes[:, :2] *= stretch
    pedal[:, :1] *= stretch
    notes[:, 2] += int(random.integers(-2, 3))
    strength = (notes[:, 3] / 127.0) ** random.uniform(0.75, 1.4) * random.uniform(0.85, 1.1)
    notes[:, 3] = np.clip(np.round(127.0 * strength), 1, 127)
    inside = (notes[:, 2] >= LOWEST) & (notes[:, 2] <= HIGHEST)
    return Performance(notes[inside], pedal)


def reproduced(performance: Performance, random: np.random.Generator, spread_s: float) -> Performance:
    """As a piano with solenoids plays a sequence: every stroke and every release off by an error of its own.

    Args:
        performance: What is sent to the piano.
        random: Of the errors, which are normal.
        spread_s: Their standard deviation. Two notes of one tick then lie 1.13 of it apart in the mean.
    """
    notes = performance.notes.copy()
    notes[:, :2] += random.normal(0.0, spread_s, (len(notes), 2))
    notes[:, :2] -= (early_s := min(0.0, float(notes[:, 0].min())))
    notes[:, 1] = np.maximum(notes[:, 1], notes[:, 0] + MIN_REPEAT_S)
    return Performance(_on_one_keyboard(notes), performance.pedal - np.array([early_s, 0.0]))


def sounding_ends(performance: Performance, length_s: float) -> NDArray[np.float64]:
    """When each note ends [N]: its release, or that of the pedal if it is down then, or the same key struck again."""
    notes, pedal = performance.notes, performance.pedal
    ends = notes[:, 1].copy()
    if len(pedal):
        down = pedal[:, 1] >= PEDAL_DOWN
        ups = pedal[~down, 0]
        state = np.searchsorted(pedal[:, 0], ends, "right") - 1
        held = (state >= 0) & down[np.maximum(state, 0)]
        until = np.append(ups, length_s)[np.searchsorted(ups, ends, "right")]
        ends = np.where(held, np.maximum(ends, until), ends)
    for pitch in np.unique(notes[:, 2]):
        (same,) = np.nonzero(notes[:, 2] == pitch)
        ends[same[:-1]] = np.minimum(ends[same[:-1]], notes[same[1:], 0])
    return np.minimum(ends, length_s)


def with_pedal(labels: NDArray[np.float64], performance: Performance) -> NDArray[np.float64] | None:
    """Labels [N, 4] that end where keys are released, with the ends that the pedal of their own MIDI file gives them.

    The file may begin at another time. None if its notes are others than the labels'.
    """
    gaps = []
    for pitch in np.unique(labels[:, 2]):
        theirs, ours = (np.sort(table[table[:, 2] == pitch, 0]) for table in (labels, performance.notes))
        if len(theirs) == len(ours):
            gaps.append(theirs - ours)
    found = np.concatenate([*gaps, np.zeros(0)])
    if len(found) < MIN_SAME_NOTES * len(labels):
        return None
    shift_s = float(np.median(found))
    if float(np.mean(np.abs(found - shift_s) < 0.03)) < MIN_SAME_NOTES:
        return None
    pedal = performance.pedal + np.array([shift_s, 0.0])
    extended = labels[np.lexsort((labels[:, 2], labels[:, 0]))].copy()
    last_s = float(extended[:, 1].max()) + TAIL_S
    extended[:, 1] = np.maximum(sounding_ends(Performance(extended, pedal), last_s), extended[:, 0] + 0.01)
    return extended
