"""Whether the melody encoder finds a tune that somebody hums, beside chromagrams.

For held-out clips of the rendered corpus, each of another piece, the melody alone is hummed, and played by another
instrument (`stretto_shared.training.corpus.melodies`). Each of these asks for its clip among all of them, by the mean
cosine over aligned time of: the encoder's unit vectors; what its codes stand for, which is what language models read; a
soft chromagram (the encoder's own input, octaves folded); and MusicGen's chromagram, one pitch class a frame. Then
again from three seconds of it, which is what the encoder hears for two columns.

    python evals/quality/melody.py --data ../shared/data --corpus corpus/v1 [--limit 20]

Cost: a minute of one core for 100 clips, a third of it to read the scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
import stretto_embedding
from harness import Outcome, Row, Table, need, parser, publish, surely_above
from stretto_embedding.models.melody import (
    BINS_PER_OCTAVE,
    FRAME_RATE_HZ,
    NUM_OCTAVES,
    NUM_PITCH_CLASSES,
    MelodyEncoder,
    pad_to_columns,
    pitch_spectrum,
)
from stretto_embedding.models.melody_weights import load_melody_encoder
from stretto_shared.audio import Waveform
from stretto_shared.dsp.chroma import extract_chroma
from stretto_shared.features import CHROMA_FRAME_RATE_HZ
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_shared.training.corpus import melodies
from stretto_shared.training.corpus.clips import arrangement_of
from stretto_shared.training.corpus.library import ScoreLibrary, read_libraries, unpack
from stretto_shared.training.corpus.plans import ENSEMBLE
from stretto_shared.training.corpus.records import SAMPLE_RATE_HZ
from stretto_shared.training.corpus.render import SOUNDFONTS, FluidSynthesizer, Synthesizer, bundled_soundfont
from stretto_shared.training.corpus.scores import PITCH, Notes
from stretto_shared.training.dataset import AudioShards

DEFAULT_CLIPS = 100
MIN_MELODY = 0.5  # share of the clip in which its melody sounds
SEED = 1
FRAGMENT_S = (3.5, 6.5)
FRAGMENT_COLUMNS = (4, 6)  # what they hear begins and ends with the fragment
Array = NDArray[np.float64]

PROTOCOL = (
    "Test clips of the rendered corpus whose melody sounds in half of their time or more, each of another piece. "
    "Query: the melody alone, from the score, hummed or by another General MIDI instrument, in the clip's timing and "
    "key, in its octave or one beside. Recall: the query's own clip is the nearest, or among the ten nearest, by "
    "cosine summed over aligned time: of the whole clip, or of the three seconds from 3.5 s on. Intervals: 95 % "
    "bootstrap over queries; the claims are paired by query."
)


@dataclass(frozen=True, eq=False)
class Clip:
    """A held-out clip [S], whether more than one instrument plays it, and two performances of its melody."""

    samples: NDArray[np.float32]
    is_accompanied: bool
    queries: Mapping[str, NDArray[np.float32]]


def held_out(corpus: Path, library: ScoreLibrary, count: int) -> Iterator[Clip]:
    """Clips of different pieces, in the corpus' own order, spread over it."""
    shards = AudioShards(need(corpus, "The rendered corpus"), "test")
    font = next((font.path for font in SOUNDFONTS if font.path.exists()), bundled_soundfont())
    synthesizer = FluidSynthesizer(font, SAMPLE_RATE_HZ)
    seen: set[tuple[str, str]] = set()
    for index in np.random.default_rng(SEED).permutation(len(shards)):
        record, samples = shards.record(int(index)), shards.clip(int(index)).astype(np.float32) / np.float32(32768)
        if (record.source, record.piece) in seen or f"-{ENSEMBLE.name}-" in record.clip_id:
            continue
        melody = melodies.melody_of(arrangement_of(library, record, 0))
        if (melodies.pitch_classes(melody, 100, 100 * SAMPLE_RATE_HZ / len(samples)) >= 0).mean() < MIN_MELODY:
            continue
        seen.add((record.source, record.piece))
        yield Clip(samples, len(record.instruments) > 1, performances(melody, len(samples), synthesizer, int(index)))
        if len(seen) == count:
            return


def performances(
    melody: Notes, num_samples: int, synthesizer: Synthesizer, seed: int
) -> dict[str, NDArray[np.float32]]:
    """The melody hummed, and by another instrument."""
    rng = np.random.default_rng([SEED, seed])
    part = melodies.RenderPart(int(rng.choice(melodies.MELODIC_PROGRAMS)), False, melody.copy())
    part.notes[:, PITCH] = np.clip(part.notes[:, PITCH], melodies.LOWEST_PITCH, melodies.HIGHEST_PITCH)
    return {
        "hummed": melodies.hum(melody, num_samples, rng),
        "another instrument": synthesizer.render([part], num_samples),
    }


@dataclass(frozen=True)
class Hearing:
    """A way to hear a recording [S] as rows of unit length over time, silence as zeros.

    Args:
        hear: The rows of a recording.
        fragment: Those of them that hear `FRAGMENT_S`.
    """

    hear: Callable[[NDArray[np.float32]], Array]
    fragment: slice


def hearings(encoder: MelodyEncoder) -> dict[str, Hearing]:
    """The ways that are compared."""

    def vectors(samples: NDArray[np.float32]) -> Array:
        return encoder.embed(samples).astype(np.float64)

    def codes(samples: NDArray[np.float32]) -> Array:
        with torch.inference_mode():
            decoded = encoder.quantizer.decode(torch.from_numpy(encoder.encode(samples))[None])[0]
        return unit_rows(decoded.numpy().astype(np.float64))

    columns = slice(*FRAGMENT_COLUMNS)
    soft, hard = (slice(*(round(at_s * rate) for at_s in FRAGMENT_S)) for rate in (FRAME_RATE_HZ, CHROMA_FRAME_RATE_HZ))
    return {
        "encoder": Hearing(vectors, columns),
        "encoder's codes": Hearing(codes, columns),
        "soft chroma": Hearing(soft_chroma, soft),
        "chroma": Hearing(hard_chroma, hard),
    }


def soft_chroma(samples: NDArray[np.float32]) -> Array:
    """Loudness by pitch class [T, 12], centred on each frame's mean."""
    spectrum = pitch_spectrum(pad_to_columns(torch.from_numpy(samples)[None]))[0].double()
    semitones = spectrum.unflatten(1, (NUM_OCTAVES, NUM_PITCH_CLASSES, BINS_PER_OCTAVE // NUM_PITCH_CLASSES)).amax(3)
    classes = semitones.square().sum(1)
    return unit_rows((classes - classes.mean(1, keepdim=True)).numpy())


def hard_chroma(samples: NDArray[np.float32]) -> Array:
    """The loudest pitch class as a row [T, 12] with a single 1; zeros in silence."""
    classes = extract_chroma(Waveform(samples, SAMPLE_RATE_HZ)).pitch_classes
    rows = np.eye(NUM_PITCH_CLASSES)[np.maximum(classes, 0)]
    rows[classes < 0] = 0.0
    return rows


def unit_rows(rows: Array) -> Array:
    """Rows brought to unit length, but for those of none."""
    scaled: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return scaled


def ranks(queries: Sequence[Array], items: Sequence[Array]) -> NDArray[np.int64]:
    """For each query, how many other items are as near as its own or nearer: 0 is found. Cosines sum over time."""
    similarity = np.stack([q.ravel() for q in queries]) @ np.stack([i.ravel() for i in items]).T
    own = np.diagonal(similarity)[:, None]
    nearer: NDArray[np.int64] = (similarity >= own).sum(1) - 1
    return nearer


def report(clips: Sequence[Clip], found: Mapping[str, Mapping[str, NDArray[np.int64]]]) -> list[Row]:
    """Recall of each query and hearing; `found` holds ranks by kind of query, then by hearing."""
    accompanied = np.array([clip.is_accompanied for clip in clips])
    rows: list[Row] = [("query", "heard by", "R@1", "95 %", "R@10", "R@1 solo", "R@1 accompanied")]
    for kind, by_hearing in found.items():
        for name, rank in by_hearing.items():
            first = bootstrap_mean(rank == 0)
            parts = [float((rank[part] == 0).mean()) if part.any() else "-" for part in (~accompanied, accompanied)]
            interval = f"[{first.low:.2f}, {first.high:.2f}]"
            rows.append((kind, name, first.mean, interval, float((rank < 10).mean()), *parts))
    return rows


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--corpus", type=Path, default=Path("corpus/v1"), help="the rendered corpus")
    options.add_argument("--weights", type=Path, help="an exported melody encoder, a folder; else the committed one")
    args: argparse.Namespace = options.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    folder = args.weights or Path(stretto_embedding.__path__[0]).parent / "weights" / "melody"
    encoder = load_melody_encoder(folder)
    need(args.data / "symbolic", "The scores")
    library = read_libraries(unpack(args.data, args.corpus.parent / "scores"))["test"]
    clips = list(held_out(args.corpus, library, args.limit or DEFAULT_CLIPS))
    found: dict[str, dict[str, NDArray[np.int64]]] = {}
    for name, hearing in hearings(encoder).items():
        items = [hearing.hear(clip.samples) for clip in clips]
        for kind in clips[0].queries:
            asked = [hearing.hear(clip.queries[kind]) for clip in clips]
            found.setdefault(kind, {})[name] = ranks(asked, items)
            parts = ([rows[hearing.fragment] for rows in each] for each in (asked, items))
            found.setdefault(f"{kind}, 3 s", {})[name] = ranks(*parts)
    gains = {
        f"{kind}: {name} above {other}": bootstrap_mean(
            (by[name] == 0).astype(np.float64) - (by[other] == 0).astype(np.float64)
        )
        for kind, by in found.items()
        for name in ("encoder", "encoder's codes")
        for other in ("soft chroma", "chroma")
    }
    publish(
        Outcome(
            "melody",
            PROTOCOL,
            f"{len(clips)} test clips of the rendered corpus, {sum(c.is_accompanied for c in clips)} of them "
            "with accompaniment; chance is one of the clips",
            [
                Table(f"Recall among {len(clips)} clips", report(clips, found)),
                Table(
                    "Paired gain in R@1",
                    [("", "gain", "95 %"), *((k, g.mean, f"[{g.low:.2f}, {g.high:.2f}]") for k, g in gains.items())],
                ),
            ],
            {
                "recall_at_1": {k: {n: float((r == 0).mean()) for n, r in by.items()} for k, by in found.items()},
                "recall_at_10": {k: {n: float((r < 10).mean()) for n, r in by.items()} for k, by in found.items()},
                "gains": {k: [g.mean, g.low, g.high] for k, g in gains.items()},
            },
            {f"{label}": surely_above(gain) for label, gain in gains.items()},
        ),
        args,
    )


if __name__ == "__main__":
    main()
