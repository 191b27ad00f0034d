"""The sizes of a `ChordGnn`, frozen. Knows no tensors."""

from __future__ import annotations

from dataclasses import dataclass

from stretto_harmony.scores.labels import NUM_KEYS, ChordType
from stretto_harmony.scores.pitch import NUM_SPELLINGS

NUM_DEGREES = 22
NUM_QUALITIES = len(ChordType)
NUM_INVERSIONS = 4
NUM_RHYTHMS = 7


@dataclass(frozen=True)
class ChordGnnConfig:
    """The sizes of a `ChordGnn`.

    Args:
        num_numerals: Classes of the head of whole numerals; the last is any other.
        pitch_dim: Width of the embedding of a note's pitch, and of that of its spelling.
        feature_dim: Width of what is made of a note's duration and place.
        hidden_dim: Width of a note after each graph convolution.
        num_convolutions: Graph convolutions. The published code's default is 2.
        onset_dim: Width of an onset before the recurrent layers.
        recurrent_dim: Width of each direction of the recurrent layers.
        num_recurrent_layers: Recurrent layers over the onsets.
        head_dim: Width of a hidden layer that the heads also read, over the recurrent layers' output and their input;
            0 has none, as the paper.
        post_dim: Width of each direction of the post-processing network; 0 has none.
        sounding: Whether an onset also sees the notes held into it, and its bass, beside those that begin on it.
        key_signature: Whether an onset sees the key signature.
        bass_spans: Whether an onset sees the lowest note of its beat and of its measure.
        note_dropout: Share of notes of which the network is told nothing but where they stand, in training.
        dropout: Share of values dropped after each convolution and before and after the recurrent layers.
    """

    num_numerals: int = 257
    pitch_dim: int = 16
    feature_dim: int = 32
    hidden_dim: int = 128
    num_convolutions: int = 2
    onset_dim: int = 128
    recurrent_dim: int = 128
    num_recurrent_layers: int = 2
    head_dim: int = 0
    post_dim: int = 36
    sounding: bool = True
    key_signature: bool = True
    bass_spans: bool = False
    note_dropout: float = 0.0
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for name in ("num_numerals", "hidden_dim", "num_convolutions", "num_recurrent_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")

    @property
    def heads(self) -> dict[str, int]:
        """The parts that are told, and how many classes each has.

        Those of the paper, but that keys are told for all spelled tonics, the pitch-class set by its root and type,
        and the numeral by this corpus' own list.
        """
        return {
            "key": NUM_KEYS,
            "tonicised": NUM_KEYS,
            "degree": NUM_DEGREES,
            "of_degree": NUM_DEGREES,
            "quality": NUM_QUALITIES,
            "inversion": NUM_INVERSIONS,
            "root": NUM_SPELLINGS,
            "bass": NUM_SPELLINGS,
            "numeral": self.num_numerals,
            "chord": 12 * NUM_QUALITIES,
            "rhythm": NUM_RHYTHMS,
        }


PUBLISHED = ChordGnnConfig(
    hidden_dim=256, onset_dim=128, post_dim=128, sounding=False, key_signature=False, dropout=0.44
)
"""Hidden 256, two convolutions, BiGRU of 128, as the paper trained it."""
