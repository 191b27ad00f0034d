"""Render the piano corpus: excerpts of performances by several sampled pianos, each tuned in its own way, with labels.

`python services/transcriber/recipes/render_piano.py --data ../shared/data --salamander corpus/piano/salamander.sf2
--out corpus/piano --hours 24`

`--data` holds `maps/train` (the sampled pianos of MAPS, FLAC or Opus and TSV) and `symbolic/{asap,pianomidi,pop909}`
or their archives. A clip is `OUT/SPLIT/NAME.wav`, 16 kHz mono int16, with `NAME.npy`, float32 [N, 5] of onset_s,
offset_s, pitch_midi, velocity, release_s. Offsets are pedal-extended (`sounding_ends`), releases are of keys. What
MAPS publishes are releases of keys, though its pianos were played with the pedal: the pedal comes from the MIDI file of
the same title, which is piano-midi.de's. MAPS is train, but for one of its pianos, `HELD_OUT_PIANO`, which is for
validation. Sampled pianos play a sequence to the tick and real ones do not: `--spread-ms` lets each stroke and release
be off, and `--held-out --only pianomidi` renders so what the held-out piano plays, to validate on.

FluidSynth renders at 16 kHz at once: from 32 kHz, decimated, every band of 1 kHz has the same energy within 2 dB.
"""

from __future__ import annotations

import argparse
import dataclasses
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from piano_performances import (
    ARCHIVES,
    MAPS_TITLES,
    TAIL_S,
    Performance,
    Piece,
    excerpt,
    list_pieces,
    perturbed,
    read_performance,
    reproduced,
    sounding_ends,
    with_pedal,
)
from piano_synthesizer import GRAIN_S, SAMPLE_RATE_HZ, PianoSynthesizer, drawn_tuning

HELD_OUT_PIANO = "AkPnCGdD"
MIN_NOTES = 20


@dataclass(frozen=True)
class Voice:
    """One preset of one SoundFont, and how often it plays."""

    soundfont: Path
    program: int
    share: float


def voices(salamander: Path, share: float) -> list[Voice]:
    """The pianos of the corpus; `share` is how often the Salamander plays, against .65 of the others together."""
    fluid = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
    muse = Path("/usr/share/sounds/sf3/MuseScore_General.sf3")
    tim = Path("/usr/share/sounds/sf2/TimGM6mb.sf2")
    return [
        Voice(salamander, 0, share),
        Voice(muse, 0, 0.25),
        Voice(fluid, 0, 0.17),
        Voice(fluid, 1, 0.08),
        Voice(tim, 0, 0.1),
        Voice(tim, 1, 0.05),
    ]


def unpacked(symbolic: Path, target: Path, sources: Iterable[str] = ARCHIVES) -> Path:
    """`symbolic` itself if its archives are unpacked there, otherwise `target` with those of some sources unpacked."""
    if (symbolic / "asap").is_dir():
        return symbolic
    for source in sources:
        with tarfile.open(symbolic / f"{ARCHIVES[source]}.tar.xz") as archive:
            archive.extractall(target, filter="data")
    return target


def write_clip(folder: Path, name: str, audio: NDArray[np.float32], notes: NDArray[np.float64]) -> None:
    """One clip with its labels; the labels come last, so that a clip with labels is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.wav", audio, SAMPLE_RATE_HZ, subtype="PCM_16")
    np.save(folder / f"{name}.npy", notes[np.lexsort((notes[:, 2], notes[:, 0]))].astype(np.float32))


def drawn_excerpt(whole: Performance, random: np.random.Generator) -> Performance:
    """One to two minutes of a performance, one in five from its beginning."""
    length_s = random.uniform(60.0, 120.0)
    start_s = random.uniform(0.0, max(0.0, whole.notes[-1, 0] - length_s)) if random.random() < 0.8 else 0.0
    return excerpt(whole, float(max(0.0, start_s)), length_s)


def render_piece(
    synth: PianoSynthesizer,
    piece: Piece,
    random: np.random.Generator,
    folder: Path,
    name: str,
    *,
    is_whole: bool,
    spread_s: float,
) -> float:
    """Render one excerpt, or all; its seconds, or 0 if there was too little in it."""
    played = read_performance(piece.path)
    if len(played.notes) >= MIN_NOTES and not is_whole:
        played = drawn_excerpt(played, random)
    if len(played.notes) < MIN_NOTES:
        return 0.0
    played = perturbed(played, random)
    if spread_s:
        played = reproduced(played, random, spread_s)
    played = on_grain(played)
    total_s = float(min(played.notes[-1, 1], played.notes[-1, 0] + 5.0)) + TAIL_S
    audio = synth.render(played, total_s, drawn_tuning(random))
    peak = float(np.abs(audio).max())
    if peak < 1e-4:
        return 0.0
    ends = sounding_ends(played, total_s)
    notes = np.column_stack([played.notes[:, 0], ends, played.notes[:, 2:4], np.minimum(played.notes[:, 1], ends)])
    notes = notes[notes[:, 1] > notes[:, 0]]
    write_clip(folder, name, audio * np.float32(random.uniform(0.3, 0.9) / peak), notes)
    return total_s


def on_grain(performance: Performance) -> Performance:
    """Times as the synthesizer keeps them."""
    notes, pedal = performance.notes.copy(), performance.pedal.copy()
    notes[:, :2] = np.round(notes[:, :2] / GRAIN_S) * GRAIN_S
    notes[:, 1] = np.maximum(notes[:, 1], notes[:, 0] + GRAIN_S)
    pedal[:, 0] = np.round(pedal[:, 0] / GRAIN_S) * GRAIN_S
    return Performance(notes, pedal)


def maps_title(path: Path) -> str:
    """The title of a file of MAPS, as piano-midi.de names it."""
    return path.stem.removeprefix("MAPS_MUS-").rpartition("_")[0]


def maps_labels(path: Path, midi: dict[str, Path]) -> NDArray[np.float64] | None:
    """The labels of a file of MAPS with the ends that the pedal gives; None without the MIDI file that it played."""
    title = maps_title(path)
    return with_pedal(np.loadtxt(path, ndmin=2), read_performance(midi[title])) if title in midi else None


def clip_labels(path: Path, midi: dict[str, Path]) -> NDArray[np.float64] | None:
    """The same with the ends as published as its last column [N, 5]."""
    extended = maps_labels(path, midi)
    if extended is None:
        return None
    published = np.loadtxt(path, ndmin=2)
    released = published[np.lexsort((published[:, 2], published[:, 0])), 1]
    return np.column_stack([extended, np.minimum(released, extended[:, 1])])


def convert_maps(source: Path, symbolic: Path, out: Path) -> float:
    """MAPS's sampled pianos as clips, but for what its Disklavier recordings play, too; their hours."""
    total = 0
    midi = {path.stem: path for path in (symbolic / "pianomidi").rglob("*.mid")}
    for labels in sorted(source.glob("*.tsv")):
        if maps_title(labels) in MAPS_TITLES:
            print(f"{labels.stem}: a title of the test; left out", flush=True)
            continue
        notes = clip_labels(labels, midi)
        if notes is None:
            print(f"{labels.stem}: not the MIDI file of this title; left out", flush=True)
            continue
        audio_path = next(path for path in source.glob(f"{labels.stem}.*") if path.suffix != ".tsv")
        split = "valid" if labels.stem.endswith(HELD_OUT_PIANO) else "train"
        audio, rate = soundfile.read(audio_path, dtype="float32")
        if rate != SAMPLE_RATE_HZ:
            import soxr

            audio = soxr.resample(audio, rate, SAMPLE_RATE_HZ)
        write_clip(out / split, labels.stem, audio, notes)
        total += len(audio)
    return total / SAMPLE_RATE_HZ / 3600


def of_held_out_piano(pieces: Iterable[Piece], source: Path) -> list[Piece]:
    """The pieces of piano-midi.de that MAPS' held-out piano plays and its recordings do not, for validation."""
    titles = {maps_title(path) for path in source.glob(f"*_{HELD_OUT_PIANO}.tsv")} - MAPS_TITLES
    names = {f"pianomidi_{title}" for title in titles}
    return [dataclasses.replace(piece, split="valid") for piece in pieces if piece.name in names]


def render_all(
    pieces: Sequence[Piece],
    choices: list[Voice],
    out: Path,
    hours: float,
    seed: int,
    *,
    is_whole: bool = False,
    spread_s: float = 0.0,
) -> None:
    """Excerpts of all pieces in turn, or all of each, each round by other voices, until there are enough hours.

    Pieces for validation are played once; a round that plays nothing is the last.
    """
    random = np.random.default_rng(seed)
    synths = {voice: PianoSynthesizer(voice.soundfont, voice.program) for voice in choices}
    shares = np.array([voice.share for voice in choices])
    started, total_s, number = time.monotonic(), 0.0, 0
    before_s = -1.0
    while before_s < total_s < hours * 3600:
        before_s = total_s
        for index in random.permutation(len(pieces)):
            piece, number = pieces[index], number + 1
            voice = choices[random.choice(len(choices), p=shares / shares.sum())]
            if piece.split == "test" or (piece.split == "valid" and number > len(pieces)):
                continue
            name = f"{number:05}_{voice.soundfont.stem}{voice.program}_{piece.name}"
            folder = out / piece.split
            total_s += render_piece(synths[voice], piece, random, folder, name, is_whole=is_whole, spread_s=spread_s)
            if number % 50 == 0:
                print(f"{number} tried, {total_s / 3600:.2f} h, {time.monotonic() - started:.0f} s", flush=True)
            if total_s >= hours * 3600:
                break


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--salamander", type=Path, required=True, help="what sampled_piano.py wrote")
    parser.add_argument("--salamander-share", type=float, default=0.35, help="against .65 of the others")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=24.0, help="of renders, besides MAPS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[*ARCHIVES], help="the pieces of one source, and no MAPS")
    parser.add_argument("--whole", action="store_true", help="whole pieces in the place of excerpts")
    parser.add_argument("--held-out", action="store_true", help="what MAPS' held-out piano plays, for validation")
    parser.add_argument("--spread-ms", type=float, default=0.0, help="how exact a piano plays: `reproduced`")
    args = parser.parse_args()
    if not 0.0 <= args.spread_ms <= 100.0:
        parser.error(f"--spread-ms: expected 0 to 100, got {args.spread_ms:g}.")
    with tempfile.TemporaryDirectory() as folder:
        symbolic = unpacked(args.data / "symbolic", Path(folder))
        if not (args.only or args.held_out):
            print(f"MAPS: {convert_maps(args.data / 'maps' / 'train', symbolic, args.out):.2f} h", flush=True)
        pieces = [piece for piece in list_pieces(symbolic) if not args.only or piece.name.startswith(f"{args.only}_")]
        if args.held_out:
            pieces = of_held_out_piano(pieces, args.data / "maps" / "train")
            if not pieces:
                raise SystemExit(f"--held-out: {args.data}/maps/train plays no piece of piano-midi.de that was listed.")
        if not pieces:
            wanted = args.only or ", ".join(ARCHIVES)
            raise SystemExit(f"--data {args.data}: expected pieces of {wanted} in symbolic/, found none.")
        choices = voices(args.salamander, args.salamander_share)
        spread_s = args.spread_ms / 1000.0
        render_all(pieces, choices, args.out, args.hours, args.seed, is_whole=args.whole, spread_s=spread_s)


if __name__ == "__main__":
    main()
