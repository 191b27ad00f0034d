"""What a request may bring, and how much may wait; the proto states the former."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from stretto_shared.audio import Waveform, check_level
from stretto_shared.errors import InvalidInput

MAX_TEXTS = 64
MAX_TEXT_CHARACTERS = 2_000
MAX_TAGS = 256
MAX_TAG_CHARACTERS = 200
MAX_CANDIDATES = 64
MAX_POINTS = 1_024
MIN_AUDIO_S = 0.1
MAX_AUDIO_S = 600.0
MAX_MELODY_S = 60.0


@dataclass(frozen=True)
class Limits:
    """How much one encoder takes at once.

    Args:
        max_batch_size: Texts in one visit to a model thread.
        max_wait_s: How long the first text waits for company.
        max_queued: Texts that may wait for one encoder, and melodies for the extractor.
        max_requests: Requests with recordings, tags or points that one joint encoder serves at once.
    """

    max_batch_size: int = 16
    max_wait_s: float = 0.002
    max_queued: int = 256
    max_requests: int = 16


class StageMeter(Protocol):
    """Who counts what this stage does."""

    def watch_waiting(self, count_waiting: Callable[[], int]) -> None:
        """Tell whom to ask how many texts, recordings and melodies wait; asked from any thread."""

    def observe_queue_wait(self, wait_s: float) -> None:
        """Tell how long one text, recording or melody waited for its work to start."""


def check_text(text: str, field: str, max_characters: int = MAX_TEXT_CHARACTERS) -> None:
    """Refuse a text that is empty, blank or too long.

    Raises:
        InvalidInput: Naming `field`.
    """
    if not 1 <= len(text) <= max_characters or not text.strip():
        raise InvalidInput(
            field,
            f"expected 1 to {max_characters} characters that are not all blank, got {len(text)}. "
            "Describe the music in words.",
        )


async def check_recordings(recordings: Mapping[str, Waveform], max_s: float = MAX_AUDIO_S) -> None:
    """Refuse recordings that are too short, too long or too loud; samples are read beside the event loop.

    Raises:
        InvalidInput: Naming the first that is wrong by its key.
    """
    for field, waveform in recordings.items():
        if not MIN_AUDIO_S <= waveform.duration_s <= max_s:
            raise InvalidInput(
                field, f"expected {MIN_AUDIO_S:g} to {max_s:g} s of audio, got {waveform.duration_s:.3f} s. Cut it."
            )
    await asyncio.to_thread(_check_levels, recordings)


def _check_levels(recordings: Mapping[str, Waveform]) -> None:
    for field, waveform in recordings.items():
        check_level(waveform, field)


def check_count(count: int, field: str, most: int) -> None:
    """Refuse an empty list, or one that is too long.

    Raises:
        InvalidInput: Naming `field`.
    """
    if not 1 <= count <= most:
        raise InvalidInput(field, f"expected 1 to {most} {field}, got {count}. Split the request.")
