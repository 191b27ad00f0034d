"""What every request for music must keep to."""

from __future__ import annotations

from stretto_shared.errors import InvalidInput

MIN_DURATION_S = 0.1  # below half a sample there would be no music at all; this much can be heard
MAX_PROMPT_CHARACTERS = 2_000
MAX_PRIORITY = 9


def check_prompt(prompt: str, *, min_characters: int, field: str = "prompt") -> None:
    """Raise InvalidInput unless the prompt has a fitting length and, where it is required, a word."""
    if not min_characters <= len(prompt) <= MAX_PROMPT_CHARACTERS or (prompt and not prompt.strip()):
        raise InvalidInput(
            field,
            f"expected {min_characters} to {MAX_PROMPT_CHARACTERS} characters that are not all blank, "
            f"got {len(prompt)}. Describe the music in words.",
        )


def check_duration(duration_s: float, *, max_s: float) -> None:
    """Raise InvalidInput unless the duration lies between 0.1 s and `max_s`."""
    if not MIN_DURATION_S <= duration_s <= max_s:
        raise InvalidInput(
            "duration_s",
            f"expected {MIN_DURATION_S:g} to {max_s:g} s, got {duration_s:g} s. Ask for a length between the two.",
        )


def check_priority(priority: int) -> None:
    """Raise InvalidInput unless the priority lies between 0 and 9."""
    if not 0 <= priority <= MAX_PRIORITY:
        raise InvalidInput("priority", f"expected 0 to {MAX_PRIORITY}, got {priority}. 0 is the usual one.")
