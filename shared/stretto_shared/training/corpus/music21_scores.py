"""music21's corpus as a source: quartets, madrigals, medieval polyphony, piano pieces, dance tunes and folk songs.

Parsing takes minutes, so it is done once, into JSON lines. A piece is a stretch of a score in which the beat
has one length; its rows count in such beats (a half note in 4/2, a dotted quarter in 6/8). Sources and their roles:

- `music21 tunes`: melody;
- `music21 keyboard`: right, left;
- `music21 duos`, `trios`, `quartets`, `quintets`: voice 1 (the highest) to voice 5.

A piece is called `{work}/{rest}`; what belongs to one work is in one split. See `shelves` for the licences.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stretto_shared.training.corpus.scores import ONSET, PITCH, Notes, Piece, sorted_notes, window
from stretto_shared.training.corpus.shelves import DUPLICATES, RESERVATIONS, SHELVES, Shelf, genre_of_tune
from stretto_shared.training.corpus.splits import stable_unit

_log = logging.getLogger(__name__)

TUNES, KEYBOARD = "music21 tunes", "music21 keyboard"
ENSEMBLES = {2: "music21 duos", 3: "music21 trios", 4: "music21 quartets", 5: "music21 quintets"}
SOURCES = (TUNES, KEYBOARD, *ENSEMBLES.values())
MIN_PIECE_S = 12.0
MIN_NOTES = 16
TEMPO_RANGE_BPM = (54.0, 144.0)
# The arranger plays a piece up to a quarter faster than it says: what is fast in the score is not to become a race.
MAX_TEMPO_BPM = 112.0
_PER_BOOK = 8
_STOP_WORDS = frozenset(
    {"the", "a", "an", "der", "die", "das", "s", "setting", "reel", "jig", "hornpipe", "strathspey"}
)


def corpus_folder() -> Path:
    """Where the music21 package keeps its scores."""
    return Path(str(_music21("music21").__file__)).parent / "corpus"


def _music21(module: str) -> Any:
    """A module of music21: imported on use, since that takes a second, and not shown to mypy, which it would stop."""
    return importlib.import_module(module)


def work_of(piece: str) -> str:
    """The work that a piece of this source belongs to."""
    return piece.rsplit("/", 1)[0]


def read_music21(cache: Path) -> list[Piece]:
    """Every piece of the shelves; a shelf that has been parsed before comes from the folder `cache`."""
    cache.mkdir(parents=True, exist_ok=True)
    pieces: list[Piece] = []
    for shelf in SHELVES:
        parsed = cache / f"{re.sub('[^a-z0-9]+', '_', shelf.pattern)}_{shelf.pieces}.jsonl"
        if not parsed.exists():
            partial = parsed.with_suffix(".partial")
            lines = [_to_json(piece) + "\n" for piece in read_shelf(corpus_folder(), shelf)]
            partial.write_text("".join(lines), encoding="utf-8")
            partial.replace(parsed)
        pieces += [_from_json(line) for line in parsed.read_text(encoding="utf-8").splitlines()]
    return pieces


def _to_json(piece: Piece) -> str:
    parts = {role: notes.round(5).tolist() for role, notes in piece.parts.items()}
    fields = (piece.source, piece.name, parts, piece.tempo_bpm, piece.bar_starts.round(5).tolist(), piece.genre)
    return json.dumps(fields, ensure_ascii=False)


def _from_json(line: str) -> Piece:
    source, name, parts, tempo_bpm, bar_starts, genre = json.loads(line)
    rows_by_role = {role: sorted_notes(rows) for role, rows in parts.items()}
    return Piece(source, name, rows_by_role, min(tempo_bpm, MAX_TEMPO_BPM), np.array(bar_starts), genre)


def read_shelf(corpus: Path, shelf: Shelf) -> list[Piece]:
    """The first pieces of a shelf, in an order drawn by name, that can be read and are long enough."""
    pieces: list[Piece] = []
    taken: set[str] = set()
    for name, text, path in sorted(_items(corpus, shelf), key=lambda item: stable_unit(f"{item[0]}/{item[2].name}")):
        if len(taken) >= shelf.pieces:
            break
        if name in taken:
            continue
        found = _read_item(path, text, name, shelf)
        if found:
            taken.add(name)
            pieces += found
    left_out = "" if len(taken) >= shelf.pieces else " (no more can be read)"
    _log.info(f"{shelf.pattern}: {len(taken)} scores, {len(pieces)} pieces{left_out}")
    return pieces


def _items(corpus: Path, shelf: Shelf) -> Iterator[tuple[str, str | None, Path]]:
    """Each score of a shelf: the start of its pieces' names, its ABC text if it is one of many in a file, its file."""
    for path in sorted(corpus.glob(shelf.pattern)):
        folder = path.relative_to(corpus).parts[0]
        if any(mark in str(path.relative_to(corpus)) for mark in DUPLICATES) or _reserved(path):
            continue
        if shelf.genre is not None:
            work = path.parent.name if path.parent.name != folder else path.stem
            movement = path.stem if path.parent.name != folder else "1"
            yield f"{folder} {_plain(work)}/{movement}", None, path
            continue
        tunes = re.split(r"(?m)^(?=X:)", path.read_text(encoding="utf-8", errors="replace"))[1:]
        tunes.sort(key=stable_unit)
        for tune in tunes[:_PER_BOOK]:
            title = re.search(r"(?m)^T:(.*)$", tune)
            if title and _plain(title[1]):
                yield f"{_plain(title[1])}/{folder}", tune, path


def _reserved(path: Path) -> bool:
    if path.suffix == ".mxl":
        with zipfile.ZipFile(path) as archive:
            text = b"".join(archive.read(name) for name in archive.namelist())
    else:
        text = path.read_bytes()
    return any(phrase.encode() in text.lower() for phrase in RESERVATIONS)


def _plain(title: str) -> str:
    """A title without accents, numbers of editions, articles and names of dances, so that two spellings meet."""
    title = re.sub(r"PMFC_\d+[-_]*\d*[ab]?-?", "", title)
    letters = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower().replace("'", "")
    words = re.findall(r"[a-z0-9]+", re.sub(r", s\. \d+|\(.*?\)", " ", letters))
    return "".join(word for word in words if word not in _STOP_WORDS)


def _read_item(path: Path, text: str | None, name: str, shelf: Shelf) -> list[Piece]:
    converter = _music21("music21.converter")
    genre = shelf.genre or genre_of_tune(path.parent.name, text or "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if text is None:
                score = converter.parse(path, forceSource=True)
                score = score.mergeScores() if hasattr(score, "mergeScores") else score
            else:
                score = converter.parse(text, format="abc", forceSource=True)
            return read_score(score, name, genre, shelf.notes_per_s)
    except Exception as error:  # music21 raises whatever its parsers meet; one score less is no harm
        _log.info(f"{path.name} cannot be read and is left out: {type(error).__name__}: {error}")
        return []


def read_score(score: Any, name: str, genre: str, notes_per_s: float) -> list[Piece]:
    """The stretches of one music21 score that are long enough; none if it is not for one to five parts."""
    keyboard = len(score.parts) == 2 and all("piano" in str(part.partName).lower() for part in score.parts)
    parts = [part.expandRepeats() for part in score.parts] if len(score.parts) == 1 else list(score.parts)
    rows = [_rows(part) for part in parts]
    if not keyboard:
        rows.sort(key=lambda notes: -float(np.median(notes[:, PITCH])) if len(notes) else 0.0)
    if len(rows) == 1:
        source, roles = TUNES, ["melody"]
    elif keyboard:
        source, roles = KEYBOARD, ["right", "left"]
    elif len(rows) in ENSEMBLES:
        source, roles = ENSEMBLES[len(rows)], [f"voice {number + 1}" for number in range(len(rows))]
    else:
        return []
    pieces: list[Piece] = []
    for start, bars, beat in _stretches(parts[0]):
        scale = np.array([1.0 / beat, 1.0 / beat, 1.0, 1.0])
        end = float(bars[-1])
        cut = {role: sorted_notes(window(notes, start, end) * scale) for role, notes in zip(roles, rows, strict=True)}
        if min(len(notes) for notes in cut.values()) < MIN_NOTES:
            continue
        tempo = _stated_tempo(parts[0], start, end, beat) or _natural_tempo(cut, notes_per_s)
        if (end - start) / beat * 60.0 / tempo >= MIN_PIECE_S:
            pieces.append(Piece(source, f"{name}-{len(pieces) + 1}", cut, tempo, (bars - start) / beat, genre))
    return pieces


def _rows(part: Any) -> Notes:
    """The sounding notes of a part, in quarter notes, tied notes as one; grace notes and chord symbols are dropped."""
    rows: list[list[float]] = []
    tied: dict[int, list[float]] = {}
    for item in part.flatten().notes:
        onset, length = float(item.offset), float(item.quarterLength)
        if length <= 0.0 or "Harmony" in item.classes or "Unpitched" in item.classes:
            continue
        for note in getattr(item, "notes", (item,)):
            pitch, tie = int(note.pitch.midi), note.tie.type if note.tie is not None else None
            row = tied.pop(pitch, None)
            if tie in ("continue", "stop") and row is not None and abs(row[0] + row[1] - onset) < 1e-3:
                row[1] += length
            else:
                row = [onset, length, float(pitch), 80.0]
                rows.append(row)
            if tie in ("start", "continue"):
                tied[pitch] = row
    return sorted_notes(rows)


def _stretches(part: Any) -> list[tuple[float, Any, float]]:
    """Runs of bars with one length of beat: (start, bar starts and the end of the last, beat), in quarter notes."""
    found: list[tuple[float, list[float], float]] = []
    beat = None
    for measure in part.getElementsByClass("Measure"):
        start = float(measure.offset)
        if measure.timeSignature is not None or beat is None:
            signature = measure.timeSignature or measure.getContextByClass("TimeSignature")
            new = float(signature.beatDuration.quarterLength) if signature is not None else None
            if new is not None and new != beat:
                found.append((start, [], new))
            beat = new or beat
        if found:
            found[-1][1].append(start)
    ends = [*(start for start, _, _ in found[1:]), float(part.highestTime)][: len(found)]
    return [(start, np.array([*bars, end]), beat) for (start, bars, beat), end in zip(found, ends, strict=True)]


def _stated_tempo(part: Any, start: float, end: float, beat: float) -> float | None:
    for mark in part.flatten().getElementsByClass("MetronomeMark"):
        if start <= float(mark.offset) < end and mark.number:
            bpm = float(mark.number) * float(mark.referent.quarterLength) / beat
            return float(np.clip(bpm, *TEMPO_RANGE_BPM))
    return None


def _natural_tempo(parts: dict[str, Notes], notes_per_s: float) -> float:
    """The tempo at which the busiest part has so many onsets a second."""
    per_beat = max(len(np.unique(notes[:, ONSET])) / max(1.0, np.ptp(notes[:, ONSET])) for notes in parts.values())
    return float(np.clip(60.0 * notes_per_s / per_beat, *TEMPO_RANGE_BPM))
