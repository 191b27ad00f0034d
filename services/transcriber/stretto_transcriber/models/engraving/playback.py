"""An engraved score as a `Score`, played as written at one tempo."""

from __future__ import annotations

import numpy as np
from stretto_shared.errors import InvalidInput
from stretto_shared.score import MAX_TEMPO_BPM, MIN_TEMPO_BPM, Key, Part, Score, Tempo, TimeSignature

from stretto_transcriber.models.engraving.engraved import EngravedScore

PARTS = (Part("Piano, upper staff"), Part("Piano, lower staff"))


def to_score(engraved: EngravedScore, tempo_bpm: float | None = None) -> Score:
    """The score in seconds, one part a staff, with beats, bars, keys and spelling.

    Args:
        engraved: What was written.
        tempo_bpm: Quarter notes a minute; left out, `engraved.tempo_bpm`.

    Raises:
        InvalidInput: If the tempo is outside 1 to 1000, or the piece would take more than a day.
    """
    tempo = engraved.tempo_bpm if tempo_bpm is None else tempo_bpm
    if not MIN_TEMPO_BPM <= tempo <= MAX_TEMPO_BPM:
        raise InvalidInput(
            "tempo_bpm", f"expected {MIN_TEMPO_BPM:g} to {MAX_TEMPO_BPM:g} quarter notes a minute, got {tempo}."
        )
    quarter_s = 60.0 / tempo
    beats, places = [], []
    for index, bar in enumerate(engraved.bars):
        whole = int(bar.numerator * 4 / bar.denominator / bar.beat)
        first = max(0, whole - bar.num_beats) if index == 0 else 0
        beats += [float(bar.onset + number * bar.beat) * quarter_s for number in range(bar.num_beats)]
        places += [first + number + 1 for number in range(bar.num_beats)]
    notes = engraved.notes
    return Score(
        onset_s=np.array([float(note.onset) for note in notes]) * quarter_s,
        duration_s=np.array([float(note.duration) for note in notes]) * quarter_s,
        pitch_midi=np.array([note.pitch_midi for note in notes], np.int32),
        velocity=np.array([note.velocity for note in notes], np.int32),
        part_index=np.array([note.staff - 1 for note in notes], np.int32),
        parts=PARTS,
        spelling_fifths=np.array([note.spelling_fifths for note in notes], np.int32),
        beat_s=np.array(beats),
        beat_in_bar=np.array(places, np.int32),
        tempos=(Tempo(0.0, tempo),),
        time_signatures=tuple(_time_signatures(engraved, quarter_s)),
        keys=tuple(_keys(engraved, quarter_s)),
    )


def _time_signatures(engraved: EngravedScore, quarter_s: float) -> list[TimeSignature]:
    marks: list[TimeSignature] = []
    for bar in engraved.bars:
        if not marks or (marks[-1].numerator, marks[-1].denominator) != (bar.numerator, bar.denominator):
            marks.append(TimeSignature(float(bar.onset) * quarter_s, bar.numerator, bar.denominator))
    return marks


def _keys(engraved: EngravedScore, quarter_s: float) -> list[Key]:
    marks: list[Key] = []
    for bar in engraved.bars:
        if not marks or (marks[-1].tonic_fifths, marks[-1].is_minor) != (bar.tonic_fifths, bar.is_minor):
            marks.append(Key(float(bar.onset) * quarter_s, bar.tonic_fifths, bar.is_minor))
    return marks
