"""One analysed piece as one `.npz`: the score, its analysis, and what is known of where they are from.

The arrays of `Score` under their own names; the labels as parallel arrays [L] with `label_` before the name of the
field; `meta` a JSON object. Nothing is pickled. Needs numpy alone, so that training machines can read it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stretto_harmony.scores.labels import Analysis, ChordType, HarmonyLabel, Key
from stretto_harmony.scores.score import Score, array_names


def write_piece(path: Path, score: Score, analysis: Analysis, meta: dict[str, Any]) -> None:
    """Write the piece to `path`, whose folder must be there."""
    labels = analysis.labels
    keys = np.array([(label.key.tonic, label.key.is_minor) for label in labels], np.int64).reshape(-1, 2)
    tonicised = np.array([(label.tonicised.tonic, label.tonicised.is_minor) for label in labels], np.int64)
    arrays: dict[str, Any] = {
        **{name: getattr(score, name) for name in array_names()},
        "measure_number": np.array(score.measure_number, np.str_),
        "label_start": np.array([label.start for label in labels], np.int64),
        "label_end": np.array([label.end for label in labels], np.int64),
        "label_key": keys,
        "label_tonicised": tonicised.reshape(-1, 2),
        "label_root": np.array([label.root for label in labels], np.int64),
        "label_quality": np.array([label.quality.value for label in labels], np.str_),
        "label_inversion": np.array([label.inversion for label in labels], np.int64),
        "label_confidence": np.array([label.confidence for label in labels], np.float64),
        "label_numeral": np.array([label.numeral for label in labels], np.str_),
        "meta": np.array(json.dumps(meta, ensure_ascii=False), np.str_),
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_piece(path: Path) -> tuple[Score, Analysis, dict[str, Any]]:
    """The score, the analysis and the meta of a piece that `write_piece` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        score = Score(
            **{name: arrays[name] for name in array_names()},
            measure_number=tuple(str(number) for number in arrays["measure_number"]),
        )
        columns = [
            arrays[f"label_{name}"].tolist()
            for name in ("start", "end", "key", "numeral", "tonicised", "root", "quality", "inversion", "confidence")
        ]
        meta = json.loads(str(arrays["meta"]))
    labels = tuple(
        HarmonyLabel(
            start, end, _key(key), str(numeral), _key(tonicised), root, ChordType(quality), inversion, confidence
        )
        for start, end, key, numeral, tonicised, root, quality, inversion, confidence in zip(*columns, strict=True)
    )
    return score, Analysis(labels), meta


def _key(columns: list[int]) -> Key:
    return Key(columns[0], bool(columns[1]))
