"""What a melody encoder learns from, and what it makes of a corpus, shard by shard; what exists is not made again.

`python services/embedding/recipes/prepare_melody.py pairs --data DIR --corpus corpus/v1 --out corpus/melody`

For shards of a rendered corpus (all held-out ones and `--shards` training ones of each repertoire but the ensembles),
`pairs_{split}_{shard}.npz`: the spectra uint8 of each clip `mixes` [N, T, P] and of its melody alone, performed anew,
`covers` [N, R, T, P], and `classes` int8 [N, T], the melody's pitch class in each frame, -1 where there is none. T is
10 s.

`python services/embedding/recipes/prepare_melody.py codes --corpus corpus/v1 --weights DIR --out corpus/features`

For every shard, `melody_{split}_{shard}.npy`: codes int16 [N, K, U] of the exported encoder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_embedding.models.melody import (
    FRAME_RATE_HZ,
    SAMPLE_RATE_HZ,
    MelodyEncoder,
    pad_to_columns,
    pitch_spectrum,
)
from stretto_embedding.models.melody_weights import load_melody_encoder
from stretto_shared.training.corpus import melodies
from stretto_shared.training.corpus.clips import arrangement_of
from stretto_shared.training.corpus.library import ScoreLibrary, read_libraries, unpack
from stretto_shared.training.corpus.plans import ENSEMBLE, REPERTOIRES
from stretto_shared.training.corpus.records import CLIP_SAMPLES, read_records, shard_paths
from stretto_shared.training.corpus.render import SOUNDFONTS, FluidSynthesizer, Synthesizer

PAIR_S = 10
NUM_COVERS = 2


def write_pairs(
    library: ScoreLibrary,
    synthesizers: Sequence[Synthesizer],
    corpus: Path,
    split: str,
    shard: int,
    out: Path,
    seed: int,
) -> None:
    """The pairs of one shard; each cover is by one of the synthesizers."""
    audio_path, records_path = shard_paths(corpus, split, shard)
    mixes, covers, classes = [], [], []
    for clip, record in zip(np.load(audio_path, mmap_mode="r"), read_records(records_path), strict=True):
        number = int(record.clip_id.rsplit("-", 1)[1])
        rng = np.random.default_rng([seed, shard, number])
        melody = melodies.melody_of(arrangement_of(library, record, seed))
        mixes.append(stored_spectrum(clip.astype(np.float32) / 32768))
        drawn = rng.integers(len(synthesizers), size=NUM_COVERS)
        performed = [melodies.perform(melody, synthesizers[voice], CLIP_SAMPLES, rng) for voice in drawn]
        covers.append(np.stack([stored_spectrum(samples) for samples in performed]))
        classes.append(melodies.pitch_classes(melody, PAIR_S * FRAME_RATE_HZ, FRAME_RATE_HZ))
    arrays = {"mixes": np.stack(mixes), "covers": np.stack(covers), "classes": np.stack(classes)}
    _write(out, lambda file: np.savez(file, **arrays))


def stored_spectrum(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The first ten seconds' spectrum [T, P] in steps of 1/255."""
    audio = torch.from_numpy(np.ascontiguousarray(samples[: PAIR_S * SAMPLE_RATE_HZ]))[None]
    spectrum: NDArray[np.uint8] = (pitch_spectrum(audio)[0] * 255).round().to(torch.uint8).numpy()
    return spectrum


@torch.inference_mode()
def write_codes(audio: Path, encoder: MelodyEncoder, out: Path) -> None:
    """The codes of one shard."""
    clips = np.load(audio, mmap_mode="r")
    codes = []
    for clip in clips:
        spectrum = pitch_spectrum(pad_to_columns(torch.from_numpy(clip.astype(np.float32) / 32768)[None]))
        codes.append(encoder.quantizer.encode(encoder(spectrum).embeddings)[0].to(torch.int16).numpy())
    _write(out, lambda file: np.save(file, np.stack(codes)))


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        write(file)
    part.replace(path)


def make_pairs(args: argparse.Namespace) -> None:
    """The pairs of the held-out shards, and of the first training shards."""
    libraries = read_libraries(unpack(args.data, args.corpus.parent / "scores"))
    synthesizers = [FluidSynthesizer(font.path, SAMPLE_RATE_HZ) for font in SOUNDFONTS if font.path.exists()]
    for split in ("valid", "train", "test"):  # a run that is stopped early has what training needs
        library = libraries[split]
        for repertoire in REPERTOIRES.values():
            if repertoire is ENSEMBLE:  # its scores take minutes to read, and its melodies are no surer
                continue
            first = repertoire.first_shard
            numbers = [int(path.stem.rsplit("_", 1)[1]) for path in args.corpus.glob(f"clips_{split}_*.jsonl")]
            own = sorted(number for number in numbers if first <= number < first + 1000)
            for shard in own[: args.shards] if split == "train" else own[: args.heldout_shards]:
                out = args.out / f"pairs_{split}_{shard:04d}.npz"
                if not out.exists():
                    write_pairs(library, synthesizers, args.corpus, split, shard, out, args.seed)
                    print(out.name, flush=True)


def make_codes(args: argparse.Namespace) -> None:
    """The codes of every shard."""
    encoder = load_melody_encoder(args.weights)
    audios = sorted(args.corpus.glob("audio_*.npy"), key=lambda path: ("_train_" in path.name, path.name[-6:]))
    for audio in audios:  # the held-out shards, then those of training with the repertoires in turn
        out = args.out / f"{audio.stem.replace('audio', 'melody', 1)}.npy"
        if not out.exists():
            write_codes(audio, encoder, out)
            print(out.name, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    pairs = commands.add_parser("pairs")
    pairs.add_argument("--data", type=Path, required=True, help="folder that holds symbolic/*.tar.xz")
    pairs.add_argument("--shards", type=int, default=14, help="training shards of each repertoire")
    pairs.add_argument("--heldout-shards", type=int, default=1, help="shards of valid, and of test, of each repertoire")
    pairs.add_argument("--seed", type=int, default=0)
    pairs.set_defaults(run=make_pairs)
    codes = commands.add_parser("codes")
    codes.add_argument("--weights", type=Path, required=True, help="the exported encoder, a folder")
    codes.set_defaults(run=make_codes)
    for command in (pairs, codes):
        command.add_argument("--corpus", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    args.run(args)


if __name__ == "__main__":
    main()
