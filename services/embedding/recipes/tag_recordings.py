"""Give real recordings captions, so that the audio tower hears more than renders: what YAMNet surely hears, in words.

`python services/embedding/recipes/tag_recordings.py --recordings corpus/real --yamnet DIR --out DIR`

`--recordings` is what `stretto_shared.training.corpus real` wrote; only its train split is read, which holds neither
MAPS' Disklavier nor the game music of the evals. Of each clip YAMNet's mean class scores say which instruments sound (a
score of `SURE`, three at most), its genre and its mood; those become a `ClipRecord` without tempo and key, and the
corpus' own grammar makes its captions. A clip in which no instrument is sure is left out. Writes
`mel_real_{shard}.npy`, `text_real_{shard}.npz` and `clips_real_{shard}.jsonl`, as the features of the corpus are.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from stretto_embedding.loading import TextEncoder, load_default
from stretto_shared.dsp.log_mel import log_mel
from stretto_shared.training.corpus.captions import with_captions
from stretto_shared.training.corpus.instruments import names_of
from stretto_shared.training.corpus.records import (
    SAMPLE_RATE_HZ,
    ClipRecord,
    InstrumentUse,
    read_records,
    write_records,
)

sys.path.append(str(Path(__file__).resolve().parents[3] / "evals"))
from peers.yamnet import FAMILY_CLASSES, Yamnet
from peers.yamnet import SAMPLE_RATE_HZ as JUDGE_RATE_HZ

# Means over a clip of ten seconds are far below the scores of single patches: piano alone has .09 to .25.
SURE, SURE_GENRE, SURE_MOOD = 0.06, 0.05, 0.03
MAX_INSTRUMENTS = 3
SEED = 4

FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType({**FAMILY_CLASSES, "synth pad": ("Synthesizer",)})

# The program that stands for a class, so that a caption names no more than was heard.
PROGRAMS: Mapping[str, int] = MappingProxyType(
    {
        "Piano": 0, "Organ": 19, "Electronic organ": 17, "Hammond organ": 16, "Guitar": 25, "Electric guitar": 27,
        "Acoustic guitar": 25, "Steel guitar, slide guitar": 25, "Bowed string instrument": 48, "String section": 48,
        "Violin, fiddle": 40, "Cello": 42, "Orchestra": 48, "Choir": 52, "Vocal music": 52, "Chant": 52,
        "A capella": 52,
        "Brass instrument": 61, "French horn": 60, "Trumpet": 56, "Trombone": 57, "Saxophone": 65, "Flute": 73,
        "Mallet percussion": 12, "Marimba, xylophone": 12, "Glockenspiel": 9, "Vibraphone": 11, "Tubular bells": 14,
        "Harpsichord": 6, "Accordion": 21, "Harmonica": 22, "Harp": 46, "Bass guitar": 33, "Double bass": 32,
        "Drum": 0, "Drum kit": 0, "Drum machine": 25, "Snare drum": 0, "Bass drum": 0, "Percussion": 0, "Hi-hat": 0,
        "Synthesizer": 90,
    }
)  # fmt: skip
GENRES: Mapping[str, str] = MappingProxyType(
    {
        "Classical music": "classical", "Electronic music": "electronic", "Techno": "techno", "House music": "house",
        "Trance music": "trance", "Ambient music": "ambient", "New-age music": "new age", "Rock music": "rock",
        "Heavy metal": "heavy metal", "Jazz": "jazz", "Folk music": "folk", "Soundtrack music": "soundtrack",
        "Drum and bass": "drum and bass", "Traditional music": "traditional", "Opera": "opera",
    }
)  # fmt: skip
MOODS: Mapping[str, str] = MappingProxyType(
    {
        "Happy music": "happy", "Sad music": "sad", "Tender music": "warm", "Exciting music": "energetic",
        "Angry music": "tense", "Scary music": "dark",
    }
)  # fmt: skip


def instruments_heard(scores: Mapping[str, float]) -> tuple[InstrumentUse, ...]:
    """The families whose best class is sure, best first, each by that class."""
    best = {family: max(classes, key=lambda name: scores[name]) for family, classes in FAMILIES.items()}
    sure = sorted((f for f in best if scores[best[f]] >= SURE), key=lambda family: -scores[best[family]])
    uses = []
    for family in sure[:MAX_INSTRUMENTS]:
        program = PROGRAMS[best[family]]
        uses.append(
            InstrumentUse("drums" if family == "drums" else "chords", program, family, names_of(program, family)[0])
        )
    return tuple(uses)


def most_likely(scores: Mapping[str, float], words: Mapping[str, str], least: float) -> str | None:
    """The word of the class that is heard most, if it is heard at all."""
    best = max(words, key=lambda name: scores[name])
    return words[best] if scores[best] >= least else None


def tagged(record: ClipRecord, scores: Mapping[str, float]) -> ClipRecord | None:
    """The record with what is heard in it, and captions; None where no instrument is sure."""
    uses = instruments_heard(scores)
    if not uses:
        return None
    # The recordings of MAPS are of a piano alone; of others nobody says how many play.
    alone = record.source == "maps" and [use.family for use in uses] == ["piano"]
    described = dataclasses.replace(
        record,
        instruments=uses,
        genre=most_likely(scores, GENRES, SURE_GENRE),
        mood=most_likely(scores, MOODS, SURE_MOOD),
        texture="solo chords" if alone else None,
    )
    return with_captions(described, SEED)


def tag_shard(records: Path, audio: Path, yamnet: Yamnet) -> tuple[list[ClipRecord], list[NDArray[np.float16]]]:
    """The records and the spectrograms float16 [T, M] of the clips of one recording that have a sure instrument."""
    clips = np.load(audio, mmap_mode="r")
    kept, mels = [], []
    for record, clip in zip(read_records(records), clips, strict=True):
        samples = clip.astype(np.float32) / 32768
        judged = yamnet.scores(soxr.resample(samples, SAMPLE_RATE_HZ, JUDGE_RATE_HZ).astype(np.float64))
        described = tagged(record, dict(zip(yamnet.classes, judged.tolist(), strict=True)))
        if described is not None:
            kept.append(described)
            mels.append(log_mel(torch.from_numpy(samples)[None])[0].half().numpy())
    return kept, mels


def write_text(path: Path, records: Sequence[ClipRecord], encoder: TextEncoder) -> None:
    """Token states of the captions, as `prepare_features.py` lays them out."""
    states = encoder.encode([caption for record in records for caption in record.captions])
    ends = np.cumsum([0, *(len(each.states) for each in states)])
    count = len(records[0].captions)
    offsets = [ends[first * count : (first + 1) * count + 1] for first in range(len(records))]
    joined = np.concatenate([each.states for each in states]).astype(np.float16)
    np.savez(path, states=joined, offsets=np.stack(offsets), heldout=np.zeros(len(records), np.int64))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, required=True, help="folder of the corpus of real recordings")
    parser.add_argument("--yamnet", type=Path, required=True, help="folder of YAMNet's graph and class map")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    yamnet, encoder = Yamnet(args.yamnet), load_default()
    num_clips = 0
    for path in sorted(args.recordings.glob("clips_train_*.jsonl")):
        shard = path.stem.removeprefix("clips_train_")
        records_path = args.out / f"clips_real_{shard}.jsonl"
        if records_path.exists():
            continue
        records, mels = tag_shard(path, path.with_name(f"audio_train_{shard}.npy"), yamnet)
        if records:
            np.save(args.out / f"mel_real_{shard}.npy", np.stack(mels))
            write_text(args.out / f"text_real_{shard}.npz", records, encoder)
        write_records(records_path, records)
        num_clips += len(records)
        print(f"{shard}: {len(records)} clips, {num_clips} in all", flush=True)


if __name__ == "__main__":
    main()
