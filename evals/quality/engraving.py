"""Whether performances are written down as their scores are, beside rounding to sixteenths.

For compositions of ASAP that nothing was tuned on: a pianist's MIDI recording with its annotated beats and bars is
engraved, and compared with the score's MIDI file, note by note. Where DCML has the piece too (`evals/dcml_voices.py`),
voices, spelling and written lengths are compared with its edition.

    python evals/quality/engraving.py --data ../shared/data [--limit 2] [--split valid]

`--limit` is how many performances of each composition. Cost: a minute or two of one core with one of each.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
from asap_pairs import Pair, place_in_beats, read_pairs
from dcml_voices import Writing, read_notes, writing_of
from findings import Findings
from harness import Outcome, Row, Table, need, parser, publish
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_transcriber.models.engraving import EngravedScore, engrave

TOLERANCE_BEATS = 0.011
"""Files place tuplets by whole ticks; the finest places that are told apart are a fortieth of a beat apart."""
MIDDLE_C = 60
KRUMHANSL_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
KRUMHANSL_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)

PROTOCOL = (
    "ASAP compositions by hash of the folder's name. Given: the performance's notes (key held, no pedal) and its "
    "annotated beats and downbeats. Beat i of the performance is beat i of the score; notes of a pitch are matched in "
    "order by the alignment of least difference in place, a beat at most, and shares are of the matched notes. Place: "
    "the same place on the beats as in the score's MIDI, within 0.011 beats. Value: the same length within 0.02 beats, "
    "where scores' MIDI halves staccato notes; 'edition' is against DCML's written lengths. Staff: the file's track. "
    "Time and key signature: as annotated, bar by bar. Voices: F1 of links from a note to those that follow it in its "
    "voice, against DCML's edition; spelling: the same name. Naive: places and lengths rounded to quarters of a beat, "
    "staves parted at middle C, a voice each, the numerator counted and the denominator 4, the key of Krumhansl's "
    "profiles over the piece, the spelling nearest to the true key signature. Intervals: 95 % bootstrap over "
    "compositions."
)

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reading:
    """What somebody made of a performance: arrays by performed note [N], and by annotated beat [B].

    `onset_beat` is not a number for a note that was left out.
    """

    onset_beat: Array
    duration_beat: Array
    staff: Ints
    voice: Ints
    fifths: Ints
    signatures: list[tuple[int, int]]
    sharps: Ints


def read_engraved(engraved: EngravedScore, num_notes: int, num_beats: int) -> Reading:
    """Ours."""
    onset, duration = np.full(num_notes, np.nan), np.full(num_notes, np.nan)
    staff, voice, fifths = (np.zeros(num_notes, np.int64) for _ in range(3))
    beat, first = engraved.bars[0].beat, engraved.bars[0].first_beat
    for note in engraved.notes:
        onset[note.source] = first + float(note.onset / beat)
        duration[note.source] = float(note.duration / beat)
        staff[note.source], voice[note.source], fifths[note.source] = note.staff, note.voice, note.spelling_fifths
    starts = [bar.first_beat for bar in engraved.bars]
    bars = [engraved.bars[i] for i in np.searchsorted(starts, np.arange(num_beats), side="right") - 1]
    signatures = [(bar.numerator, bar.denominator) for bar in bars]
    return Reading(
        onset, duration, staff, voice, fifths, signatures, np.array([bar.signature_fifths for bar in bars])
    )  # fmt: skip


def read_naively(pair: Pair) -> Reading:
    """The baseline."""
    score = pair.performance
    begin, end = (place_in_beats(times, score.beat_s) for times in (score.onset_s, score.offset_s))
    onset = np.round(begin * 4) / 4
    duration = np.maximum(np.round((end - begin) * 4) / 4, 0.25)
    downbeats = np.flatnonzero(score.beat_in_bar == 1)
    length = np.diff(np.append(downbeats, downbeats[-1] + (np.diff(downbeats)[-1] if len(downbeats) > 1 else 1)))
    bar = np.clip(np.searchsorted(downbeats, np.arange(len(score.beat_s)), side="right") - 1, 0, None)
    sharps = krumhansl_sharps(score.pitch_midi, score.duration_s)
    return Reading(
        onset,
        duration,
        np.where(score.pitch_midi < MIDDLE_C, 2, 1),
        np.ones(score.num_notes, np.int64),
        nearest_spelling(score.pitch_midi, pair, onset),
        [(int(length[index]), 4) for index in bar],
        np.full(len(score.beat_s), sharps),
    )


def krumhansl_sharps(pitch: NDArray[np.int32], duration: Array) -> int:
    """Sharps of the key whose profile correlates best with the pitch classes, flats below 0."""
    counts = np.bincount(pitch % 12, weights=duration, minlength=12)
    fits = [
        (np.corrcoef(np.roll(profile, tonic), counts)[0, 1], (tonic + shift) % 12)
        for profile, shift in ((KRUMHANSL_MAJOR, 0), (KRUMHANSL_MINOR, 3))
        for tonic in range(12)
    ]
    return int(7 * max(fits)[1] + 5) % 12 - 5


def nearest_spelling(pitch: NDArray[np.int32], pair: Pair, onset: Array) -> Ints:
    """Places on the line of fifths nearest to the middle of the annotated key signature."""
    beat = np.clip(np.floor(onset).astype(int), 0, len(pair.reference.sharps) - 1)
    centre = pair.reference.sharps[beat] + 2
    return centre - 6 + (7 * pitch - centre + 6) % 12


def compare(pair: Pair, reading: Reading, writing: Writing | None) -> dict[str, float]:
    """Shares of what is right."""
    ours, theirs = pair.matches.T
    reference = pair.reference
    is_placed = np.abs(reading.onset_beat[ours] - reference.onset_beat[theirs]) < TOLERANCE_BEATS
    off = np.abs(reading.duration_beat[ours] - reference.duration_beat[theirs])
    bars = np.flatnonzero(reference.beat_in_bar == 1)
    found = {
        "place": float(is_placed.mean()),
        "value": float((off < 0.02).mean()),
        "numerator": float(np.mean([reading.signatures[b][0] == reference.signatures[b][0] for b in bars])),
        "denominator": float(np.mean([reading.signatures[b][1] == reference.signatures[b][1] for b in bars])),
        "time signature": float(np.mean([reading.signatures[b] == reference.signatures[b] for b in bars])),
        "key signature": float((reading.sharps[bars] == reference.sharps[bars]).mean()),
    }
    if reference.staff.all():
        found["staff"] = float((reading.staff[ours] == reference.staff[theirs]).mean())
    if writing is not None:
        known = writing.is_known[theirs]
        mine, other = ours[known], theirs[known]
        beat = np.clip(np.floor(reference.onset_beat[other]).astype(int), 0, len(reference.beat_quarter) - 2)
        written = writing.duration_quarter[other] / np.diff(reference.beat_quarter)[beat]
        found["value, edition"] = float((np.abs(reading.duration_beat[mine] - written) < 0.02).mean())
        found["spelling, edition"] = float((reading.fifths[mine] == writing.fifths[other]).mean())
        own = links(reading.onset_beat[mine], reading.staff[mine], reading.voice[mine])
        true = links(np.round(reference.onset_beat[other], 2), writing.staff[other], writing.voice[other])
        found["voices, edition"] = 2 * len(own & true) / max(1, len(own) + len(true))
    return found


def links(onset: Array, staff: Ints, voice: Ints) -> set[tuple[int, int]]:
    """Pairs of notes that follow each other in a voice, by their places in the arrays."""
    found: set[tuple[int, int]] = set()
    for number in np.unique(staff * 10 + voice):
        mine = np.flatnonzero((staff * 10 + voice == number) & ~np.isnan(onset))
        chords = [mine[onset[mine] == at].tolist() for at in np.unique(onset[mine])]
        found.update((a, b) for before, after in zip(chords, chords[1:]) for a in before for b in after)
    return found


def by_composition(rows: Sequence[tuple[str, Mapping[str, float]]], measure: str) -> Array:
    """The mean over performances of each composition that has the measure."""
    values: dict[str, list[float]] = {}
    for composition, row in rows:
        if measure in row:
            values.setdefault(composition, []).append(row[measure])
    return np.array([np.mean(each) for each in values.values()])


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--split", default="test", help="test, valid or train")
    args = options.parse_args()
    archive = need(args.data / "symbolic" / "asap.tar.xz", "ASAP")
    pairs = list(read_pairs(archive, args.split, args.limit or 1))
    edition = read_notes(need(args.data / "harmony" / "dcml.tar.xz", "DCML"), {pair.composition for pair in pairs})
    ours: list[tuple[str, dict[str, float]]] = []
    naive: list[tuple[str, dict[str, float]]] = []
    matched: list[float] = []
    for pair in pairs:
        writing = writing_of(pair.reference, edition[pair.composition]) if pair.composition in edition else None
        engraved = engrave(pair.performance)
        mine = read_engraved(engraved, pair.performance.num_notes, len(pair.performance.beat_s))
        ours.append((pair.composition, compare(pair, mine, writing)))
        naive.append((pair.composition, compare(pair, read_naively(pair), writing)))
        matched.append(len(pair.matches) / pair.performance.num_notes)
    findings = Findings()
    measures = list(dict.fromkeys(name for _, row in ours for name in row))
    table: list[Row] = [("", "ours", "95 %", "naive", "95 %", "compositions")]
    gains = {}
    for measure in measures:
        values = [by_composition(rows, measure) for rows in (ours, naive)]
        if len(values[0]) < 2:
            continue
        intervals = [bootstrap_mean(each) for each in values]
        gains[measure] = bootstrap_mean(values[0] - values[1])
        cells = [cell for each in intervals for cell in (each.mean, f"[{each.low:.3f}, {each.high:.3f}]")]
        table.append((measure, *cells, len(values[0])))
        findings.numbers[measure] = {
            name: [each.mean, each.low, each.high] for name, each in zip(("ours", "naive"), intervals)
        }
    findings.tables.append(Table("Right, share of matched notes or of bars", table))
    findings.add_intervals("gains", "Gain over the naive reading, paired by composition", gains)
    rows: list[Row] = [("", *measures[:7], "naive place")]
    for (composition, row), (_, plain) in zip(ours, naive):
        rows.append((composition, *(row.get(name, "-") for name in measures[:7]), plain["place"]))
    findings.tables.append(Table("By performance", rows))
    for measure in ("place", "value", "time signature", "key signature", "staff", "voices, edition"):
        if measure in gains:
            findings.claim_above(f"{measure}: above the naive reading", gains[measure])
    findings.numbers["matched_share"] = float(np.mean(matched))
    data = (
        f"{len(pairs)} performances of {len({pair.composition for pair in pairs})} compositions of ASAP, {args.split}; "
        f"{np.mean(matched):.1%} of performed notes matched; {len(edition)} of them in DCML's editions"
    )
    publish(Outcome("engraving", PROTOCOL, data, findings.tables, findings.numbers, findings.passed), args)


if __name__ == "__main__":
    main()
