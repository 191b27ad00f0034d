"""What the corpus knows of a clip: the true attributes from which it was made, and the captions that state them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLE_RATE_HZ = 24_000
CLIP_FRAMES = 512
HOP_LENGTH = 480
CLIP_SAMPLES = CLIP_FRAMES * HOP_LENGTH
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class InstrumentUse:
    """One sounding part: its role, its General MIDI program (0-based; a drum kit's program for drums) and its names."""

    role: str
    program: int
    family: str
    name: str


@dataclass(frozen=True)
class ClipRecord:
    """The attributes of one clip. `None` means: not known, or not clear enough to be stated in a caption.

    Args:
        captions: Made with the training templates.
        heldout_captions: Made with templates that no training caption uses; only on valid and test clips.
    """

    clip_id: str
    split: str
    source: str
    piece: str
    start_s: float = 0.0
    instruments: tuple[InstrumentUse, ...] = ()
    tempo_bpm: float | None = None
    tempo_word: str | None = None
    key_tonic: str | None = None
    key_mode: str | None = None
    mood: str | None = None
    texture: str | None = None
    genre: str | None = None
    dynamics: str | None = None
    register: str | None = None
    room: str | None = None
    soundfont: str | None = None
    captions: tuple[str, ...] = ()
    heldout_captions: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(line: str) -> ClipRecord:
        fields: Mapping[str, Any] = json.loads(line)
        return ClipRecord(
            **{
                **fields,
                "instruments": tuple(InstrumentUse(**use) for use in fields["instruments"]),
                "captions": tuple(fields["captions"]),
                "heldout_captions": tuple(fields["heldout_captions"]),
            }
        )


def shard_paths(folder: Path, split: str, shard: int) -> tuple[Path, Path]:
    """The audio file (int16 [N, S]) and the records file (JSON lines) of one shard."""
    return folder / f"audio_{split}_{shard:04d}.npy", folder / f"clips_{split}_{shard:04d}.jsonl"


def write_records(path: Path, records: Iterable[ClipRecord]) -> None:
    """Write one JSON line per record, in place at once."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(record.to_json() + "\n" for record in records), encoding="utf-8")
    partial.replace(path)


def read_records(path: Path) -> list[ClipRecord]:
    """The records of one shard, in the order of its clips."""
    return [ClipRecord.from_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
