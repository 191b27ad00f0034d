"""Render the corpus into shards with several processes; finished shards are kept, so a stopped run can be resumed."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stretto_shared.training.corpus import music21_scores
from stretto_shared.training.corpus.clips import describe_again, make_clip
from stretto_shared.training.corpus.library import ScoreLibrary, read_libraries, unpack
from stretto_shared.training.corpus.plans import BALANCED, ENSEMBLE, Repertoire
from stretto_shared.training.corpus.records import (
    CLIP_SAMPLES,
    SAMPLE_RATE_HZ,
    read_records,
    shard_paths,
    write_records,
)
from stretto_shared.training.corpus.render import SOUNDFONTS, FluidSynthesizer, Synthesizer

_log = logging.getLogger(__name__)

CLIPS_PER_SHARD = 100
FIRST_SHARDS = 15


@dataclass(frozen=True)
class Task:
    """One shard to make: clips `first` to `first + count` of a split."""

    split: str
    shard: int
    first: int
    count: int
    repertoire: Repertoire = BALANCED


def tasks(num_train: int, num_heldout: int, repertoire: Repertoire) -> list[Task]:
    """Shards in the order in which they are worth having: some of train, the held-out ones, the rest of train."""
    train, valid, test = (
        _shards(split, count, repertoire)
        for split, count in (("train", num_train), ("valid", num_heldout), ("test", num_heldout))
    )
    return train[:FIRST_SHARDS] + valid + test + train[FIRST_SHARDS:]


def _shards(split: str, count: int, repertoire: Repertoire) -> list[Task]:
    numbers = range(-(-count // CLIPS_PER_SHARD))
    return [
        Task(
            split,
            repertoire.first_shard + number,
            CLIPS_PER_SHARD * number,
            min(CLIPS_PER_SHARD, count - CLIPS_PER_SHARD * number),
            repertoire,
        )
        for number in numbers
    ]


def render_corpus(
    data: Path, out: Path, *, num_train: int, num_heldout: int, seed: int, num_workers: int, repertoire: Repertoire
) -> None:
    """Render every missing shard into `out`. The file READY says that the first shards may be read."""
    out.mkdir(parents=True, exist_ok=True)
    with_music21 = bool(repertoire.sources & set(music21_scores.SOURCES))
    libraries = read_libraries(unpack(data, out.parent / "scores"), with_music21=with_music21)
    missing = [
        task
        for task in tasks(num_train, num_heldout, repertoire)
        if not shard_paths(out, task.split, task.shard)[1].exists()
    ]
    _log.info(f"{len(missing)} shards to render")
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_work, args=(libraries, out, missing[worker::num_workers], seed))
        for worker in range(num_workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode != 0:
            raise RuntimeError(
                f"A render worker ended with exit code {worker.exitcode}. Run the command again to resume."
            )


def recaption(data: Path, out: Path, seed: int) -> int:
    """Describe and caption every rendered clip anew, after a change of the rules; return their number."""
    paths = sorted(out.glob("clips_*.jsonl"))
    ensemble_shards = range(ENSEMBLE.first_shard, ENSEMBLE.first_shard + 1000)
    with_music21 = any(int(path.stem.rsplit("_", 1)[1]) in ensemble_shards for path in paths)
    libraries = read_libraries(unpack(data, out.parent / "scores"), with_music21=with_music21)
    count = 0
    for path in paths:
        records = [describe_again(libraries[record.split], record, seed) for record in read_records(path)]
        write_records(path, records)
        count += len(records)
    return count


def _work(libraries: Mapping[str, ScoreLibrary], out: Path, share: Sequence[Task], seed: int) -> None:
    synthesizers: dict[str, Synthesizer] = {
        font.name: FluidSynthesizer(font.path, SAMPLE_RATE_HZ) for font in SOUNDFONTS if font.path.exists()
    }
    started, rendered_s = time.monotonic(), 0.0
    for task in share:
        write_shard(libraries[task.split], synthesizers, out, task, seed)
        rendered_s += task.count * CLIP_SAMPLES / SAMPLE_RATE_HZ
        speed = rendered_s / (time.monotonic() - started)
        _log.info(
            f"{task.split} shard {task.shard}: {rendered_s / 3600:.2f} h by this worker at {speed:.1f} x real time",
        )


def write_shard(
    library: ScoreLibrary, synthesizers: Mapping[str, Synthesizer], out: Path, task: Task, seed: int
) -> None:
    """Make one shard; its records file appears last, and says that the audio is complete."""
    audio_path, records_path = shard_paths(out, task.split, task.shard)
    clips = [
        make_clip(library, synthesizers, task.split, seed, task.first + index, task.repertoire)
        for index in range(task.count)
    ]
    partial = audio_path.with_name("." + audio_path.name)
    np.save(partial, np.stack([clip.samples for clip in clips]))
    partial.replace(audio_path)
    write_records(records_path, [clip.record for clip in clips])
    if task.split == "train" and task.shard >= FIRST_SHARDS:
        (out / "READY").touch()
