"""A JSON object of plain values: the title, the analyst, and a list `labels`, each with all that is known of it."""

from __future__ import annotations

import json
from typing import Any

from stretto_harmony.scores import pitch
from stretto_harmony.scores.labels import HarmonyLabel
from stretto_harmony.scores.score import TICKS_PER_QUARTER
from stretto_harmony.writers.written import WrittenAnalysis, numeral_of


def write_json(analysis: WrittenAnalysis) -> bytes:
    """The labels as JSON, in UTF-8; times in quarter notes from the start, beats from 1."""
    labels = [
        {
            "measure": analysis.score.measure_number[measure],
            "measure_index": measure,
            "beat": float(beat),
            **_as_plain(label),
        }
        for measure, beat, label in analysis.placed()
    ]
    content = {"title": analysis.title, "analyst": analysis.analyst, "labels": labels}
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def _as_plain(label: HarmonyLabel) -> dict[str, Any]:
    return {
        "start_quarters": label.start / TICKS_PER_QUARTER,
        "end_quarters": label.end / TICKS_PER_QUARTER,
        "key": label.key.name,
        "numeral": numeral_of(label),
        "tonicised_key": label.tonicised.name,
        "root": pitch.spelled_name(label.root),
        "quality": label.quality.value,
        "inversion": label.inversion,
        "bass": pitch.spelled_name(label.bass),
        "tones": [pitch.spelled_name(tone) for tone in label.tones],
        "confidence": round(label.confidence, 6),
    }
