"""Whether the harmony readers understand the corpora: numerals, alignment, and the spelling and metre of bare notes.

    python evals/quality/harmony_readers.py --data ../shared/data [--corpus corpus/harmony] [--limit 8]

`--limit` takes one piece of that many for spelling and metre. Cost: two minutes of one core.
"""

from __future__ import annotations

import csv
import io
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from findings import Findings
from harness import Outcome, Table, need, parser, publish
from stretto_harmony.readers.metre import infer_metre
from stretto_harmony.readers.romantext import read_events
from stretto_harmony.readers.spelling import spell
from stretto_harmony.scores.labels import ChordType, key_of_name
from stretto_harmony.scores.numerals import Chord, Notation, applied_key, figure_of, parse
from stretto_harmony.scores.packed import read_piece
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score
from stretto_shared.metrics.bootstrap import bootstrap_mean

PROTOCOL = (
    "Numerals: every figure of every analysis, parsed in its key; 'read back' when the figure that we print for the "
    "chord is parsed as the same chord. DCML's own columns: root and type against ours, but for cadential six-fours, "
    "whose root is the dominant's there. Alignment: the share of chord tones in the packed pieces' sounding time. "
    "Spelling: notes of the packed pieces spelled from MIDI pitch with the first key signature, the same name. Metre: "
    "from notes alone; bars as long as the middle measure's, and also the first downbeat at its place. Intervals: 95 % "
    "bootstrap over pieces."
)
SOURCES = ("augmentednet", "dcml", "wir")
DCML_TYPES = {
    "M": ChordType.MAJOR, "m": ChordType.MINOR, "o": ChordType.DIMINISHED, "+": ChordType.AUGMENTED,
    "MM7": ChordType.MAJOR_SEVENTH, "Mm7": ChordType.DOMINANT_SEVENTH, "mM7": ChordType.MINOR_MAJOR_SEVENTH,
    "mm7": ChordType.MINOR_SEVENTH, "o7": ChordType.DIMINISHED_SEVENTH, "%7": ChordType.HALF_DIMINISHED_SEVENTH,
    "+7": ChordType.AUGMENTED_SEVENTH, "+M7": ChordType.AUGMENTED_MAJOR_SEVENTH, "It": ChordType.ITALIAN_SIXTH,
    "Ger": ChordType.GERMAN_SIXTH, "Fr": ChordType.FRENCH_SIXTH,
}  # fmt: skip


@dataclass
class Tally:
    """Figures of one corpus: how many there are, are parsed, read back, and agree with its own columns."""

    figures: int = 0
    parsed: int = 0
    read_back: int = 0
    compared: int = 0
    agreeing: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def take(self, figure: str, key_name: str, local: str, notation: Notation) -> Chord | None:
        """Count one figure; the chord when it can be parsed."""
        self.figures += 1
        try:
            key = applied_key(local, key_of_name(key_name), notation) if local else key_of_name(key_name)
            chord = parse(figure, key, notation)
        except ValueError:
            self.refused[figure] += 1
            return None
        printed = figure_of(key, chord.tonicised, chord.root, chord.quality, chord.inversion, notation)
        again = parse(printed, key, notation)
        self.parsed += 1
        self.read_back += (again.root, again.quality, again.inversion) == (chord.root, chord.quality, chord.inversion)
        return chord


def files(archive: Path, ending: str) -> Iterator[str]:
    """The texts in an archive whose names end so."""
    with tarfile.open(archive) as opened:
        for member in opened:
            content = opened.extractfile(member) if member.name.endswith(ending) else None
            if content is not None:
                yield content.read().decode("utf-8", errors="replace")


def tally_romantext(archive: Path) -> Tally:
    """Every figure of When in Rome."""
    tally = Tally()
    for text in files(archive, "/analysis.txt"):
        for event in read_events(text):
            if event.key is not None:
                tally.take(event.figure, event.key.name, "", Notation.ROMANTEXT)
    return tally


def tally_dcml(archive: Path) -> Tally:
    """Every label of the DCML corpora, and whether root and type are those of its columns."""
    tally = Tally()
    for text in files(archive, ".harmonies.tsv"):
        for row in csv.DictReader(io.StringIO(text), delimiter="\t"):
            if not row["chord"] or row["chord"] == "@none":
                continue
            chord = tally.take(row["chord"], row["globalkey"], row["localkey"], Notation.DCML)
            if chord is None or "64" in (row["changes"] or ""):
                continue
            tonic = applied_key(row["localkey"], key_of_name(row["globalkey"]), Notation.DCML).tonic
            tally.compared += 1
            tally.agreeing += (chord.root - tonic, chord.quality) == (int(row["root"]), DCML_TYPES[row["chord_type"]])
    return tally


def spelled_right(score: Score) -> float:
    """The share of notes that get their written name back from their MIDI pitch."""
    return float((spell(score.midi, int(score.key_signature[0])) == score.fifths).mean())


def metre_right(score: Score) -> tuple[bool, bool]:
    """Whether the bars are as long as written, and whether they also begin where they do."""
    first = int(score.onset[0])
    found = infer_metre(
        (score.onset - first) / TICKS_PER_QUARTER, score.duration / TICKS_PER_QUARTER, np.asarray(score.midi)
    )
    middle = score.num_measures // 2
    bar = 4 * int(score.numerator[middle]) / int(score.denominator[middle])
    downbeats = score.measure_start[(score.measure_start >= first) & (score.measure_offset == 0)]
    is_long = found.numerator == bar
    ahead = (int(downbeats[0]) - first) / TICKS_PER_QUARTER - found.pickup if downbeats.size else 0.5
    return is_long, is_long and ahead % bar == 0


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--corpus", type=Path, default=Path("corpus/harmony"), help="what prepare_harmony.py wrote")
    args = options.parse_args()
    harmony = args.data / "harmony"
    tallies = {
        "When in Rome": tally_romantext(need(harmony / "when_in_rome.tar.xz", "When in Rome")),
        "DCML": tally_dcml(need(harmony / "dcml.tar.xz", "DCML")),
    }
    paths = {source: sorted((need(args.corpus, "The harmony corpus") / source).rglob("*.npz")) for source in SOURCES}
    findings = Findings()
    rows = [("", "figures", "parsed", "read back", "compared", "agree with its columns")]
    for name, tally in tallies.items():
        rows.append((name, *map(str, (tally.figures, tally.parsed, tally.read_back, tally.compared, tally.agreeing))))
        findings.numbers[name] = {key: value for key, value in vars(tally).items() if key != "refused"}
        findings.passed[f"{name}: 999 of 1,000 figures are parsed"] = tally.parsed >= 0.999 * tally.figures
        findings.passed[f"{name}: every figure reads back"] = tally.read_back == tally.parsed
    findings.tables.append(Table("Numerals", rows))
    refused = Counter[str]()
    for tally in tallies.values():
        refused += tally.refused
    findings.tables.append(Table("Refused most often", [("figure", "times"), *refused.most_common(10)]))
    shares, spelled, metres, downbeats = {}, [], [], []
    for source, listed in paths.items():
        metas = [read_piece(path)[2] for path in listed]
        shares[f"chord tones, {source}"] = bootstrap_mean(np.array([meta["chord_tone_share"] for meta in metas]))
    for path in paths["dcml"][:: args.limit or 8]:
        score = read_piece(path)[0]
        spelled.append(spelled_right(score))
        is_long, is_placed = metre_right(score)
        metres.append(float(is_long))
        downbeats.append(float(is_placed))
    findings.add_intervals("alignment", "Share of chord tones in the sounding time, by piece", shares)
    heard = {"spelling": spelled, "bars": metres, "bars and downbeats": downbeats}
    findings.add_intervals(
        "heard", "From MIDI alone, DCML", {name: bootstrap_mean(np.array(values)) for name, values in heard.items()}
    )
    data = f"{sum(map(len, paths.values()))} packed pieces; spelling and metre on {len(spelled)} of DCML's"
    publish(Outcome("harmony_readers", PROTOCOL, data, findings.tables, findings.numbers, findings.passed), args)


if __name__ == "__main__":
    main()
