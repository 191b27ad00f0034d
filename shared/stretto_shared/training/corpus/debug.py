"""A tiny corpus made of nothing but code: scores by rule, symusic's synthesizer, the SoundFont inside `pretty_midi`.

For tests and for the one-minute recipes. The same arranger, captions and shard format as the real corpus.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stretto_shared.training.corpus.accompaniment import accompany, roots
from stretto_shared.training.corpus.build import Task, write_shard
from stretto_shared.training.corpus.library import ScoreLibrary
from stretto_shared.training.corpus.records import SAMPLE_RATE_HZ, SPLITS
from stretto_shared.training.corpus.render import SymusicSynthesizer, bundled_soundfont
from stretto_shared.training.corpus.scores import Chord, Notes, Piece, sorted_notes

NUM_BARS = 24
_MAJOR, _MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 0), (5, 3, 0, 4))


def build_debug_corpus(folder: Path, num_clips: int, seed: int) -> None:
    """Write `num_clips` training clips and a few held-out ones; takes about 0.05 s a clip."""
    folder.mkdir(parents=True, exist_ok=True)
    synthesizers = {"timgm6mb": SymusicSynthesizer(bundled_soundfont(), SAMPLE_RATE_HZ)}
    for split, count in (("train", num_clips), ("valid", max(2, num_clips // 8)), ("test", max(2, num_clips // 8))):
        write_shard(debug_library(split), synthesizers, folder, Task(split, 0, 0, count), seed)


def debug_library(split: str, num_pieces: int = 4) -> ScoreLibrary:
    """Pieces of three sources' shapes: songs with chord symbols, trios, and drummers; each split has its own."""
    songs, trios, drummers = [], [], []
    for index in range(num_pieces):
        rng = np.random.default_rng([SPLITS.index(split), index])
        name = f"{split}-{index}"
        bars = np.arange(0.0, 4.0 * NUM_BARS, 4.0)
        chords = _chords(rng)
        melody, drums = _melody(chords, rng), _drums(rng)
        harmony = accompany(chords, "broken", 58.0, rng)
        tempo = float(rng.uniform(80.0, 130.0))
        songs.append(Piece("pop909", name, {"melody": melody, "piano": harmony}, tempo, bars, "pop", chords))
        trio = {"melody": melody, "bass": roots(chords, rng), "drums": drums}
        trios.append(Piece("schmubert", name, trio, tempo, bars, tempo_is_free=True))
        drummers.append(Piece("groove", name, {"drums": drums}, tempo, bars, "rock"))
    return ScoreLibrary({"pop909": songs, "schmubert": trios, "groove": drummers})


def _chords(rng: np.random.Generator) -> tuple[Chord, ...]:
    tonic, scale = int(rng.integers(12)), _MAJOR if rng.random() < 0.5 else _MINOR
    progression = _PROGRESSIONS[int(rng.integers(len(_PROGRESSIONS)))]
    return tuple(
        Chord(
            4.0 * bar,
            4.0 * bar + 4.0,
            tuple((tonic + scale[(progression[bar % 4] + step) % 7]) % 12 for step in (0, 2, 4)),
        )
        for bar in range(NUM_BARS)
    )


def _melody(chords: tuple[Chord, ...], rng: np.random.Generator) -> Notes:
    rows = []
    for chord in chords:
        for beat, length in ((0.0, 1.0), (1.0, 0.5), (1.5, 0.5), (2.0, 1.0), (3.0, 1.0)):
            pitch = 72 + (int(rng.choice(chord.pitch_classes)) + 6) % 12 - 6
            rows.append((chord.start_beat + beat, length, float(pitch), float(rng.integers(70, 100))))
    return sorted_notes(rows)


def _drums(rng: np.random.Generator) -> Notes:
    kick, snare, hat = 36.0, 38.0, 42.0
    rows = []
    for beat in range(4 * NUM_BARS):
        rows.append((float(beat), 0.25, kick if beat % 2 == 0 else snare, 100.0))
        rows += [(beat + half, 0.25, hat, float(rng.integers(60, 90))) for half in (0.0, 0.5)]
    return sorted_notes(rows)
