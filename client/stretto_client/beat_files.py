"""`.beats` files, the field's own: a line a beat, its seconds, a tab and its place in the bar; or all of it as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from stretto_shared.errors import InvalidInput

from stretto_client.files import whole_file
from stretto_client.values import TrackedBeats

SUFFIXES = (".beats", ".json")


def check_beats_path(path: Path) -> None:
    """Refuse a file name that would hide what the file is.

    Raises:
        InvalidInput: If the suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        known = " or ".join(SUFFIXES)
        raise InvalidInput("path", f"expected a file that ends in {known}, got {str(path)!r}. Rename it.")


def write_beats(path: Path, beats: TrackedBeats) -> None:
    """Write beats in the form that the name asks for."""
    check_beats_path(path)
    text = beats_as_json(beats) if path.suffix.lower() == ".json" else beats_as_lines(beats)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def beats_as_lines(beats: TrackedBeats) -> str:
    """`0.480<tab>1` and so on; without the second column where the model tells no bars."""
    if not beats.beat_in_bar.size:
        return "".join(f"{time_s:.3f}\n" for time_s in beats.beat_s)
    return "".join(f"{time_s:.3f}\t{place}\n" for time_s, place in zip(beats.beat_s, beats.beat_in_bar))


def beats_as_json(beats: TrackedBeats) -> str:
    """Every field of the beats as the server tells it, and the id of the model."""
    facts = {
        "beat_s": beats.beat_s.round(6).tolist(),
        "beat_in_bar": beats.beat_in_bar.tolist(),
        "tempo_bpm": beats.tempo_bpm.round(3).tolist(),
        "time_signature_numerator": beats.numerator,
        "onset_s": beats.onset_s.round(6).tolist(),
        "model": None if beats.model is None else beats.model.model_id,
    }
    return json.dumps(facts, indent=2) + "\n"
