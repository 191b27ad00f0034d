"""How well the transcriber hears the notes of real piano recordings, beside other transcribers on the same files.

    python evals/quality/transcription.py --data ../shared/data [--peer basic-pitch=VENV/bin/python] [--limit 5]

The 19 Disklavier recordings of `maps/dev` (MAPS, ENSTDkCl), whole, against their labels as published. A peer runs in
the environment that `--peer` names (`evals/peers/piano_notes.py` says what it must have); what it heard is kept under
`--cache`, so that it runs once. Needs `mir_eval`. `--split valid` scores the sampled piano that was held out of
training instead.

Cost: three minutes of one core without peers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import soundfile
import stretto_transcriber
import torch
from numpy.typing import NDArray
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_transcriber.loading import load_transcriber
from stretto_transcriber.models.notes import NoteEnds, Notes
from stretto_transcriber.models.onsets_frames import OnsetsFrames, hear_clip
from stretto_transcriber.settings import TranscriberSettings

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2] / "services/transcriber/recipes"))
from harness import ROOT, Outcome, Row, Table, need, parser, publish
from note_scores import frame_f1
from piano_performances import MAPS_TITLES
from render_piano import HELD_OUT_PIANO, maps_labels, maps_title, unpacked

PEER_PROGRAM = ROOT / "evals" / "peers" / "piano_notes.py"
SAMPLE_RATE_HZ = 16_000
TARGETS = {"note": 0.86, "offset": 0.50, "frame": 0.78}
PUBLISHED: Sequence[Row] = (
    ("published", "trained on", "frame", "note", "+ offset", "+ velocity"),
    ("Onsets and Frames 2018", "MAPS, sampled", 0.783, 0.8229, 0.5022, 0.3539),
    ("Onsets and Frames 2019", "MAESTRO", 0.8424, 0.8608, 0.6403, 0.4897),
    ("Transkun V2, aligned ad hoc", "MAESTRO", 0.8535, 0.8849, 0.6461, 0.4446),
    ("Transkun V2 augmented, aligned ad hoc", "MAESTRO", 0.8843, 0.9219, 0.6975, 0.5495),
)
COLUMNS = (
    "note", "precision", "recall", "note_100ms", "offset", "velocity", "frame", "offset_pedal", "frame_pedal",
    "frame_shifted", "frame_pedal_shifted",
)  # fmt: skip
LATE = "late_ms"
"""The middle of the errors of a piece's onsets: how late its labels are by the transcriber."""
Found = Mapping[str, Sequence[Mapping[str, float] | None]]
"""By transcriber, the scores of each piece; None of one that it has not heard."""
Heard = tuple[list[NDArray[np.float64] | None], float]
"""Notes [N, 4], or [N, 5] with releases of keys, of each piece, or None, and the seconds of CPU that they took."""
PROTOCOL = (
    "Whole files, mean over pieces. Notes: mir_eval.transcription, onsets within 50 ms (or 100 ms), pitch within 50 "
    "cents; with offset: within 20 % of the note or 50 ms; velocity: mir_eval.transcription_velocity without offsets, "
    "tolerance .1. Frames: F1 of pitches that sound on a grid of 10 ms, over all frames of a piece, which is what "
    "mir_eval.multipitch gives for exact semitones. Labels are the published TSV as they are, whose notes "
    "end where keys are released, though the pedal is heard. A transcriber that tells when keys are released is "
    "scored by that against them, and by the ends of its sounds as `_pedal`: against the same labels, notes lasting "
    "while the pedal (controller 64) is at 64 or above in piano-midi.de's MIDI file of the title, or as they are "
    "where that file has other notes. `_shifted`: the labels of a piece moved as a whole by the middle "
    "of its onsets' errors, over pairs within 100 ms: what their lateness costs. Intervals: 95 % bootstrap over pieces."
)


@dataclass(frozen=True, eq=False)
class Piece:
    """One recording; its labels [N, 4] of onset_s, offset_s, pitch_midi, velocity, as published and with the pedal."""

    path: Path
    labels: NDArray[np.float64]
    with_pedal: NDArray[np.float64]
    has_midi: bool

    @property
    def length_s(self) -> float:
        return soundfile.info(self.path).duration


def list_pieces(paths: Sequence[Path], symbolic: Path) -> list[Piece]:
    """Files of labels, with the audio beside them and the pedal of the MIDI files that they were played from."""
    pieces = []
    with tempfile.TemporaryDirectory() as folder:
        root = unpacked(symbolic, Path(folder), ["pianomidi"])
        midi = {path.stem: path for path in (root / "pianomidi").rglob("*.mid")}
        for path in paths:
            audio = next(other for other in sorted(path.parent.glob(f"{path.stem}.*")) if other.suffix != ".tsv")
            labels, extended = np.loadtxt(path, ndmin=2), maps_labels(path, midi)
            pieces.append(Piece(audio, labels, labels if extended is None else extended, extended is not None))
    return pieces


def read_model(folder: Path) -> tuple[OnsetsFrames, str]:
    """The checkpoint of a folder, in the number format in which this machine serves it."""
    kernel_dir = TranscriberSettings().native_kernel_dir
    loaded = load_transcriber(folder.name, "default", weights_dir=folder.parent, native_kernel_dir=kernel_dir)
    return cast(OnsetsFrames, loaded.listener.module), loaded.info.source.partition("#")[2] or "float32"


def own_notes(model: OnsetsFrames, pieces: Sequence[Piece]) -> Heard:
    """What the model hears of each, and its seconds of CPU."""
    heard: list[NDArray[np.float64] | None] = []
    started = time.process_time()
    for piece in pieces:
        samples, rate = soundfile.read(piece.path, dtype="float32")
        if rate != SAMPLE_RATE_HZ or samples.ndim != 1:
            raise ValueError(f"{piece.path.name}: expected mono at {SAMPLE_RATE_HZ} Hz, got {rate} Hz.")
        heard.append(table_of(hear_clip(model, samples), model))
    return heard, time.process_time() - started


def table_of(heads: NDArray[np.float32], model: OnsetsFrames) -> NDArray[np.float64]:
    """Notes of what was heard as a table [N, 4], or [N, 5] where the last column is when keys were released."""
    notes = decoded(heads, model, "sound")
    columns = [notes.onset_s, notes.offset_s, notes.pitch_midi, notes.velocity]
    if model.config.has_key_head:
        columns.append(decoded(heads, model, "key").offset_s)
    return np.stack(columns, 1).astype(np.float64)


def decoded(heads: NDArray[np.float32], model: OnsetsFrames, ends: NoteEnds) -> Notes:
    """All notes of a recording."""
    decoder = model.new_decoder(ends)
    return Notes.joined([decoder.push(heads), decoder.flush()])


def peer_notes(name: str, python: str, cache: Path, pieces: Sequence[Piece]) -> Heard:
    """What a peer heard of each and its seconds of CPU; runs it for files that are not in the cache, if it can.

    Nothing (None) of a piece that is not in the cache.
    """
    folder = cache / name
    if python:
        command = [python, str(PEER_PROGRAM), name, str(folder), *(str(piece.path) for piece in pieces)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    paths = [folder / f"{piece.path.stem}.npy" for piece in pieces]
    costs = [json.loads(path.with_suffix(".json").read_text())["cpu_s"] for path in paths if path.exists()]
    return [np.load(path) if path.exists() else None for path in paths], sum(costs)


def scores_of(heard: NDArray[np.float64], piece: Piece) -> dict[str, float]:
    """All scores of one piece."""
    from mir_eval import transcription, transcription_velocity  # what evals need on top

    heard = heard[(heard[:, 1] > heard[:, 0]) & (heard[:, -1] > heard[:, 0] if heard.shape[1] > 4 else True)]
    sounds, keys = heard[:, :2], heard[:, [0, 4 if heard.shape[1] > 4 else 1]]
    our_hz, their_hz, pedal_hz = (440.0 * 2.0 ** ((t[:, 2] - 69) / 12) for t in (heard, piece.labels, piece.with_pedal))
    score, theirs = transcription.precision_recall_f1_overlap, piece.labels[:, :2]
    precision, recall, note, _ = score(theirs, their_hz, keys, our_hz, offset_ratio=None)
    wide = score(theirs, their_hz, keys, our_hz, onset_tolerance=0.1, offset_ratio=None)[2]
    offset = score(theirs, their_hz, keys, our_hz)[2]
    velocity = transcription_velocity.precision_recall_f1_overlap(
        theirs, their_hz, piece.labels[:, 3], keys, our_hz, heard[:, 3], offset_ratio=None
    )[2]
    offset_pedal = score(piece.with_pedal[:, :2], pedal_hz, sounds, our_hz)[2]
    held, sounding = (np.column_stack([ends, heard[:, 2:4]]) for ends in (keys, sounds))
    frames = frame_f1(held, piece.labels), frame_f1(sounding, piece.with_pedal)
    pairs = transcription.match_notes(theirs, their_hz, keys, our_hz, onset_tolerance=0.1, offset_ratio=None)
    late_s = float(np.median([theirs[i, 0] - keys[j, 0] for i, j in pairs])) if pairs else 0.0
    moved = frame_f1(held, earlier(piece.labels, late_s)), frame_f1(sounding, earlier(piece.with_pedal, late_s))
    values = (note, precision, recall, wide, offset, velocity, frames[0], offset_pedal, frames[1], *moved)
    return dict(zip(COLUMNS, (float(value) for value in values), strict=True)) | {LATE: 1000.0 * late_s}


def earlier(labels: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """The same notes [N, 4], but not from before the recording."""
    return np.column_stack([np.maximum(labels[:, :2] - seconds, 0.0), labels[:, 2:]])


def rows_of(found: Found, seconds: Mapping[str, float], audio_s: float) -> list[Row]:
    """A row for each transcriber that heard all pieces."""
    rows: list[Row] = [("transcriber", *COLUMNS, "note, 95 %", "audio/CPU")]
    for name, given in found.items():
        scores = [score for score in given if score is not None]
        if len(scores) == len(given):
            notes = bootstrap_mean(np.array([score["note"] for score in scores]))
            interval = f"[{notes.low:.3f}, {notes.high:.3f}]"
            rows.append((name, *means_of(scores), interval, audio_s / max(seconds[name], 1e-9)))
    return rows


def means_of(scores: Sequence[Mapping[str, float]]) -> list[float]:
    """Of every column."""
    return [float(np.mean([score[column] for score in scores])) for column in COLUMNS]


def pairs_with(found: Found, name: str) -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
    """The model's scores and another transcriber's of the pieces that both heard."""
    return [(own, peer) for own, peer in zip(found["ours"], found.get(name, []), strict=name in found) if own and peer]


def partial_rows(found: Found) -> list[Row]:
    """Two rows for each transcriber that heard some pieces only: the model and it, on these."""
    rows: list[Row] = [("pieces", "transcriber", *COLUMNS)]
    for name, given in found.items():
        pairs = pairs_with(found, name)
        if len(pairs) < len(given):
            rows.append((len(pairs), "ours", *means_of([own for own, _ in pairs])))
            rows.append((len(pairs), name, *means_of([peer for _, peer in pairs])))
    return rows


def piece_rows(found: Found, pieces: Sequence[Piece]) -> list[Row]:
    """Note F1 at 50 and 100 ms of each piece, and how late its labels are."""
    rows: list[Row] = [("piece", *(f"{name} {at}" for name in found for at in ("50 ms", "100 ms", "late, ms")))]
    for index, piece in enumerate(pieces):
        scores = [given[index] for given in found.values()]
        values = [score[column] if score else "" for score in scores for column in ("note", "note_100ms", LATE)]
        rows.append((piece.path.stem.removeprefix("MAPS_MUS-"), *values))
    return rows


def claims(found: Found) -> dict[str, bool]:
    """What the issue asks for, and that no peer of the small ones is as good."""
    own = dict(zip(COLUMNS, means_of([score for score in found["ours"] if score]), strict=True))
    held = {f"{column} F1 is at least {mark}": own[column] >= mark for column, mark in TARGETS.items()}
    for name in ("basic-pitch", "madmom"):
        pairs = pairs_with(found, name)
        if pairs:
            where = f", on the {len(pairs)} pieces that it was run on" if len(pairs) < len(found[name]) else ""
            gain = np.mean([ours["note"] - theirs["note"] for ours, theirs in pairs])
            held[f"note F1 is above that of {name}{where}"] = bool(gain > 0)
    return held


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--weights", type=Path, help="a checkpoint's folder; else the committed one")
    options.add_argument("--split", choices=("dev", "valid"), default="dev")
    options.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    options.add_argument("--cache", type=Path, default=Path("corpus/peers"), help="what peers heard")
    args: argparse.Namespace = options.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    folder, files = ("dev", "*.tsv") if args.split == "dev" else ("train", f"*_{HELD_OUT_PIANO}.tsv")
    paths = sorted(need(args.data / "maps" / folder, "MAPS dev").glob(files))
    if args.split == "valid":
        paths = [path for path in paths if maps_title(path) not in MAPS_TITLES]  # of the test
    paths = paths[: args.limit or None]
    pieces = list_pieces(paths, need(args.data / "symbolic", "The scores"))
    folder = args.weights or Path(stretto_transcriber.__path__[0]).parent / "weights" / "onsets_frames"
    model, dtype = read_model(folder)
    heard = everybody(args, model, pieces)
    found = {
        name: [None if notes is None else scores_of(notes, piece) for notes, piece in zip(tables, pieces, strict=True)]
        for name, (tables, _) in heard.items()
    }
    publish(outcome(args.split, found, {name: cost for name, (_, cost) in heard.items()}, pieces, dtype), args)


def everybody(args: argparse.Namespace, model: OnsetsFrames, pieces: Sequence[Piece]) -> dict[str, Heard]:
    """What the model heard, and every peer that can be run or has run before."""
    heard = {"ours": own_notes(model, pieces)}
    given = dict(peer.split("=", 1) for peer in args.peer)
    for name in ("basic-pitch", "madmom", "transkun"):
        theirs = peer_notes(name, given.get(name, ""), args.cache, pieces)
        if any(notes is not None for notes in theirs[0]):
            heard[name] = theirs
        else:
            print(f"{name}: not run; give --peer {name}=PYTHON", file=sys.stderr)
    return heard


def outcome(split: str, found: Found, seconds: Mapping[str, float], pieces: Sequence[Piece], dtype: str) -> Outcome:
    """The report."""
    audio_s = sum(piece.length_s for piece in pieces)
    rows = rows_of(found, seconds, audio_s)
    numbers = {str(row[0]): dict(zip(map(str, rows[0][1:]), row[1:], strict=True)) for row in rows[1:]}
    partial = partial_rows(found)
    num_midi = sum(piece.has_midi for piece in pieces)
    where = "maps/dev, 19 Disklavier recordings" if split == "dev" else "MAPS, the sampled piano held out"
    return Outcome(
        name="transcription",
        protocol=PROTOCOL,
        data=f"{where}: {len(pieces)} pieces, {audio_s / 60:.1f} min, {num_midi} with MIDI files; ours in {dtype}",
        tables=[
            Table("Mean over pieces", rows),
            *([Table("On the pieces that a peer was run on", partial)] if len(partial) > 1 else []),
            Table("By piece, note F1", piece_rows(found, pieces)),
            Table("Published on MAPS ENSTDk (60 pieces)", PUBLISHED),
        ],
        numbers={"pieces": len(pieces), "scores": numbers, "on_some_pieces": [list(row) for row in partial[1:]]},
        passed=claims(found) if split == "dev" else {},
    )


if __name__ == "__main__":
    main()
