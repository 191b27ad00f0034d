"""Tempo words and moods, as rules over the true attributes; `None` where the attributes contradict each other."""

from __future__ import annotations

TEMPO_WORDS = ((60.0, "very slow"), (82.0, "slow"), (112.0, "moderate"), (142.0, "fast"), (1e9, "very fast"))


def tempo_word(bpm: float, onsets_per_s: float) -> str | None:
    """The word for a tempo, unless the busiest part makes it sound otherwise."""
    word = next(word for limit, word in TEMPO_WORDS if bpm < limit)
    if word in ("very slow", "slow") and onsets_per_s > 5.0:
        return None
    if word in ("fast", "very fast") and onsets_per_s < 1.4:
        return None
    return word


def mood(mode: str | None, word: str | None, dynamics: str, *, drums_only: bool) -> str | None:
    """A mood class by mode, tempo and dynamics: the keys of `vocabulary.MOODS`."""
    slow, fast = word in ("very slow", "slow"), word in ("fast", "very fast")
    if drums_only or mode is None:
        if fast and dynamics != "soft":
            return "energetic"
        return "relaxed" if slow and dynamics != "loud" else None
    if mode == "major":
        if fast:
            return "happy"
        if dynamics == "loud":
            return "bold"
        return "calm" if slow else "warm"
    if fast:
        return "tense" if dynamics != "soft" else None
    return "sad" if slow or dynamics == "soft" else "dark" if dynamics == "loud" else "melancholic"
