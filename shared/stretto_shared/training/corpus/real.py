"""Real recordings for the codecs: MAPS (sampled pianos, train part) and the music of Debian's games.

Sources: MAPS, CC BY-NC-SA, FLAC and TSV in jongwook/onsets-and-frames; Debian packages wesnoth-1.16-music (GPL-2+),
singularity-music (CC BY-SA 3.0), hyperrogue-music (CC BY-SA 3.0), warzone2100-music (GPL-2+ and
CC BY-SA 3.0). MAPS' real Disklavier recordings are for evaluation only and are not touched here. Each recording is
mixed to mono, resampled to 24 kHz and cut into clips without overlap; a recording belongs to one split.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from stretto_shared.dsp.resampling import MonoResampler
from stretto_shared.training.corpus.records import (
    CLIP_SAMPLES,
    SAMPLE_RATE_HZ,
    SPLITS,
    ClipRecord,
    shard_paths,
    write_records,
)
from stretto_shared.training.corpus.splits import stable_unit

_log = logging.getLogger(__name__)

GAME_MUSIC = {
    "wesnoth": Path("/usr/share/games/wesnoth/1.16/data/core/music"),
    "singularity": Path("/usr/share/games/singularity/music"),
    "hyperrogue": Path("/usr/share/hyperrogue/music"),
    "warzone2100": Path("/usr/share/games/warzone2100/music"),
}
MAPS_TRAIN_CAP_S = 3 * 3600.0
HELDOUT_FRACTION = 0.08
SILENCE_RMS = 0.003


def read_mono(path: Path) -> NDArray[np.float32]:
    """Decode a file to mono float32 [S] at 24 kHz, block by block."""
    with soundfile.SoundFile(str(path)) as source:
        resampler = MonoResampler(source.samplerate, SAMPLE_RATE_HZ)
        blocks = source.blocks(blocksize=source.samplerate * 10, dtype="float32", always_2d=True)
        return np.concatenate([*(resampler.push(block.T) for block in blocks), resampler.flush()])


def recordings(data: Path) -> Iterator[tuple[str, str, Path, str]]:
    """Yield (source, piece, path, split) in a stable order; pieces of MAPS are grouped by title, not by piano."""
    by_source = {
        name: [(path.relative_to(folder).with_suffix("").as_posix(), path) for path in audio_files(folder)]
        for name, folder in GAME_MUSIC.items()
    }
    maps = sorted((data / "maps" / "train").glob("*.opus"), key=lambda path: stable_unit(path.stem))
    by_source["maps"] = [(path.stem.removeprefix("MAPS_MUS-").rsplit("_", 1)[0], path) for path in maps]
    for source, files in by_source.items():
        pieces = sorted({piece for piece, _ in files}, key=lambda piece: stable_unit(f"real/{source}/{piece}"))
        num_heldout = max(1, round(HELDOUT_FRACTION * len(pieces)))
        splits = dict.fromkeys(pieces[:num_heldout], "test") | dict.fromkeys(
            pieces[num_heldout : num_heldout + max(1, num_heldout // 2)], "valid"
        )
        for piece, path in files:
            yield source, piece, path, splits.get(piece, "train")


def audio_files(folder: Path) -> list[Path]:
    """Every Vorbis, Opus or FLAC file below the folder, none if the package is not installed."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix in {".ogg", ".opus", ".flac"} and not path.is_symlink()
    )


def prepare(data: Path, out: Path) -> dict[str, float]:
    """Write the shards, one per recording, and return the hours per split. Recordings already written are kept."""
    out.mkdir(parents=True, exist_ok=True)
    hours = dict.fromkeys(SPLITS, 0.0)
    shards = dict.fromkeys(SPLITS, 0)
    maps_s = 0.0
    for source, piece, path, split in recordings(data):
        if source == "maps" and split == "train" and maps_s > MAPS_TRAIN_CAP_S:
            continue
        audio_path, records_path = shard_paths(out, split, shards[split])
        shards[split] += 1
        if not records_path.exists():
            write_recording(audio_path, records_path, source, piece, path, split)
        clip_s = np.load(audio_path, mmap_mode="r").shape[0] * CLIP_SAMPLES / SAMPLE_RATE_HZ
        maps_s += clip_s if source == "maps" and split == "train" else 0.0
        hours[split] += clip_s / 3600.0
        _log.info(
            f"{source} {piece} {split} {clip_s / 60:.1f} min; hours { ({k: round(v, 2) for k, v in hours.items()}) }",
        )
    return hours


def write_recording(audio_path: Path, records_path: Path, source: str, piece: str, path: Path, split: str) -> None:
    """Cut one recording into clips, leave out the silent ones, and write its shard."""
    samples = read_mono(path)
    clips = samples[: len(samples) // CLIP_SAMPLES * CLIP_SAMPLES].reshape(-1, CLIP_SAMPLES)
    kept = [index for index, clip in enumerate(clips) if float(np.sqrt(np.mean(clip**2))) > SILENCE_RMS]
    np.save(audio_path, np.rint(np.clip(clips[kept], -1.0, 1.0) * 32767.0).astype(np.int16))
    write_records(
        records_path,
        [
            ClipRecord(
                f"real-{source}-{path.stem}-{index:03d}",
                split,
                source,
                piece,
                start_s=index * CLIP_SAMPLES / SAMPLE_RATE_HZ,
            )
            for index in kept
        ],
    )
