"""Pack the piano corpus into a few small archives, for a training machine that is far away.

`python services/transcriber/recipes/pack_piano.py --corpus corpus/piano --originals ../shared/data/maps/train
--out corpus/packed --mib 57 57`

writes `OUT/piano_1.tar` and so on, of at most so many MiB each; unpacked into one folder they are a corpus that
`train_transcriber.py` reads. Files of MAPS go in as they were published, renders as Vorbis, as many as there is room
for, in order of their names, which is that of the draw; of validation clips, the beginnings.

Vorbis and not Opus: its long blocks suit a piano. The notes that a trained model hears in four clips of validation,
30 s each, score .926 (with ends .689) as rendered, .918 (.680) as Vorbis of quality .3, .908 (.657) of .1, and .909
(.653) as Opus of the size of the latter.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from piano_clips import SAMPLE_RATE_HZ, Clip, list_clips, read_beginning

Member = tuple[str, bytes]
_BLOCK = 16_000
_TAR_BLOCK = 512


def vorbis(samples: NDArray[np.float32], quality: float) -> bytes:
    """Audio [S] as Ogg Vorbis of a quality from 0 to 1."""
    data = io.BytesIO()
    with soundfile.SoundFile(
        data, "w", SAMPLE_RATE_HZ, 1, "VORBIS", format="OGG", compression_level=1.0 - quality
    ) as file:
        for start in range(0, len(samples), _BLOCK):  # libsndfile fails on long arrays
            file.write(samples[start : start + _BLOCK])
    return data.getvalue()


def labels(notes: NDArray[np.float32]) -> bytes:
    """Notes as the file that lies beside a clip."""
    data = io.BytesIO()
    np.save(data, notes)
    return data.getvalue()


def members(clip: Clip, split: str, original: Path | None, quality: float) -> list[Member]:
    """A whole clip: as it was published, or as Vorbis."""
    audio, ending = original, original.suffix if original else ".ogg"
    data = audio.read_bytes() if audio else vorbis(read_beginning(clip, clip.num_samples), quality)
    name = f"{split}/{clip.path.stem}"
    return [(name + ending, data), (f"{name}.npy", labels(clip.notes))]


def beginning(clip: Clip, seconds: float) -> list[Member]:
    """The beginning of a validation clip."""
    length = min(clip.num_samples, round(seconds * SAMPLE_RATE_HZ))
    name = f"valid/{clip.path.stem}"
    notes = clip.notes[clip.notes[:, 0] < seconds]
    return [(f"{name}.ogg", vorbis(read_beginning(clip, length), 0.6)), (f"{name}.npy", labels(notes))]


def packed(corpus: Path, originals: Path, quality: float, valid_s: float) -> Iterator[list[Member]]:
    """What is to be packed, the first the most wanted."""
    clips = list_clips(corpus / "train")
    published = {path.stem: path for path in originals.iterdir() if path.suffix in (".opus", ".flac")}
    for clip in list_clips(corpus / "valid"):
        yield beginning(clip, valid_s)
    for clip in sorted(clips, key=lambda clip: clip.path.stem not in published):
        yield members(clip, "train", published.get(clip.path.stem), quality)


def write(parts: Sequence[Path], sizes: Sequence[int], groups: Iterator[list[Member]]) -> int:
    """Fill archives one after the other, each up to its size in bytes; how many groups are in them."""
    count, group = 0, next(groups, None)
    for path, size in zip(parts, sizes, strict=True):
        used = 2 * 10_240  # the end of an archive
        with tarfile.open(path, "w") as archive:
            while group is not None:
                needed = sum(len(data) + 2 * _TAR_BLOCK for _, data in group)
                if used + needed > size:
                    break
                for name, data in group:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
                used, count, group = used + needed, count + 1, next(groups, None)
    return count


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="what render_piano.py wrote")
    parser.add_argument("--originals", type=Path, required=True, help="maps/train")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mib", type=float, nargs="+", required=True, help="of each archive, at most")
    parser.add_argument("--quality", type=float, default=0.2, help="of Vorbis")
    parser.add_argument("--valid-s", type=float, default=30.0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts = [args.out / f"piano_{number + 1}.tar" for number in range(len(args.mib))]
    sizes = [round(mib * 2**20) for mib in args.mib]
    count = write(parts, sizes, packed(args.corpus, args.originals, args.quality, args.valid_s))
    print(f"{count} clips, {sum(path.stat().st_size for path in parts) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
