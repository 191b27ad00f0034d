"""Sizes of the modules and parameters of the search, with the published ones by name. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ModularConfig:
    """Sizes; the defaults are those of the committed weights, `PUBLISHED` has the paper's.

    Args:
        transition_embed_dim: Of a note before the chord transition module's LSTM.
        transition_lstm_dim: Of that LSTM, each way.
        transition_hidden_dim: Of the layer after it.
        classifier_lstm_dim: Of the chord classifier's LSTM, each way.
        classifier_hidden_dim: Of the layer after it.
        sequence_embed_dim: Of a chord before the chord sequence module's LSTM.
        sequence_lstm_dim: Of that LSTM.
        sequence_hidden_dim: Of the layer after it.
        sequence_reduction: What the chord sequence module tells apart: `none` all 1,276 relative chords (CSM), `roots`
            no inversions (CSM-I, 348), `triads` neither inversions nor sevenths (CSM-T, 116).
        key_transition_embed_dim: Of a chord before the key transition module's LSTM.
        key_transition_lstm_dim: Of that LSTM.
        key_transition_hidden_dim: Of the layer after it.
        key_sequence_embed_dim: Of a chord before the key sequence module's LSTM.
        key_sequence_lstm_dim: Of that LSTM.
        key_sequence_hidden_dim: Of the layer after it.
        dropout: Before the last layer of every module; in training only.
    """

    transition_embed_dim: int = 128
    transition_lstm_dim: int = 128
    transition_hidden_dim: int = 128
    classifier_lstm_dim: int = 256
    classifier_hidden_dim: int = 128
    sequence_embed_dim: int = 128
    sequence_lstm_dim: int = 192
    sequence_hidden_dim: int = 128
    sequence_reduction: str = "triads"
    key_transition_embed_dim: int = 64
    key_transition_lstm_dim: int = 128
    key_transition_hidden_dim: int = 128
    key_sequence_embed_dim: int = 128
    key_sequence_lstm_dim: int = 128
    key_sequence_hidden_dim: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.sequence_reduction not in ("none", "roots", "triads"):
            raise ValueError(f"sequence_reduction: expected none, roots or triads, got {self.sequence_reduction!r}.")
        for name, value in asdict(self).items():
            if name.endswith("_dim") and value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}.")


PUBLISHED = ModularConfig(
    transition_embed_dim=256,
    transition_lstm_dim=128,
    transition_hidden_dim=256,
    classifier_lstm_dim=256,
    classifier_hidden_dim=256,
    sequence_embed_dim=256,
    sequence_lstm_dim=256,
    sequence_hidden_dim=128,
    key_transition_embed_dim=128,
    key_transition_lstm_dim=128,
    key_transition_hidden_dim=128,
    key_sequence_embed_dim=256,
    key_sequence_lstm_dim=256,
    key_sequence_hidden_dim=256,
)
"""The sizes of the published modules for the Functional Harmony corpus, with CSM-T."""


@dataclass(frozen=True)
class SearchConfig:
    """Parameters of the joint beam search; the defaults are the published ones for CSM-T.

    Args:
        min_chord_change: A chord may begin at an onset whose probability of a change is at least this.
        max_no_chord_change: A chord must begin where the probability is above this.
        max_chord_length: In whole notes.
        min_key_change: A key may change where the probability is at least this.
        max_no_key_change: A key must change where the probability is above this.
        beam_size: Hypotheses kept at each onset.
        chord_branches: Chords tried of each span, at most.
        chord_branch_mass: No more chords are tried once those tried have this much probability.
        key_branches: Keys tried at each change, at most.
        key_branch_mass: As `chord_branch_mass`, of keys.
        hash_length: Of hypotheses alike in this many last chords and keys only the best is kept; 0 keeps all.
        key_sequence_exponent: Of the key sequence module's probability in the score of a hypothesis.
        key_transition_exponent: Of the key transition module's; 1 as published.
        chord_sequence_exponent: Of the chord sequence module's, and the initial chord module's; 1 as published.
    """

    min_chord_change: float = 0.25
    max_no_chord_change: float = 0.45
    max_chord_length: float = 8.0
    min_key_change: float = 0.05
    max_no_key_change: float = 0.75
    beam_size: int = 50
    chord_branches: int = 5
    chord_branch_mass: float = 0.5
    key_branches: int = 2
    key_branch_mass: float = 0.5
    hash_length: int = 5
    key_sequence_exponent: float = 50.0
    key_transition_exponent: float = 1.0
    chord_sequence_exponent: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_chord_change <= self.max_no_chord_change <= 1.0:
            raise ValueError(
                "max_no_chord_change: expected 0 <= min_chord_change <= max_no_chord_change <= 1, got "
                f"{self.min_chord_change} and {self.max_no_chord_change}. An onset between would have no way on."
            )
        if not 0.0 <= self.min_key_change <= self.max_no_key_change <= 1.0:
            raise ValueError(
                "max_no_key_change: expected 0 <= min_key_change <= max_no_key_change <= 1, got "
                f"{self.min_key_change} and {self.max_no_key_change}. A chord between would have no way on."
            )
        if min(self.beam_size, self.chord_branches, self.key_branches) < 1 or not 0 <= self.hash_length <= 6:
            raise ValueError(
                "beam_size, chord_branches, key_branches: expected 1 or more, and hash_length 0 to 6, got "
                f"{self.beam_size}, {self.chord_branches}, {self.key_branches} and {self.hash_length}."
            )


PUBLISHED_FH = SearchConfig(
    min_chord_change=0.3,
    max_no_chord_change=0.4,
    min_key_change=0.1,
    max_no_key_change=0.7,
    chord_branch_mass=0.75,
    key_sequence_exponent=30.0,
)
"""As published for modules trained on the Functional Harmony corpus."""

SEARCH_PRESETS: Mapping[str, SearchConfig] = {"published": SearchConfig(), "published_fh": PUBLISHED_FH}


def search_of(preset: str, **changes: Any) -> SearchConfig:
    """The preset of that name, with `changes` to its fields.

    Raises:
        ValueError: If there is no such preset; the message names those there are.
    """
    if preset not in SEARCH_PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(SEARCH_PRESETS)}, got {preset!r}.")
    return SearchConfig(**{**asdict(SEARCH_PRESETS[preset]), **changes})
