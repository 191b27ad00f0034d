"""MusicGen's language model of codec tokens."""

from stretto_acoustic.models.musicgen.config import PRESETS, MusicGenConfig
from stretto_acoustic.models.musicgen.integer_stepper import IntegerStepper, is_integer
from stretto_acoustic.models.musicgen.lm import MusicGenLM
from stretto_acoustic.models.musicgen.pooled import PooledStepper
from stretto_acoustic.models.musicgen.state import MusicGenState
from stretto_acoustic.models.musicgen.stepper import MusicGenCondition, MusicGenStepper

__all__ = [
    "PRESETS",
    "IntegerStepper",
    "MusicGenCondition",
    "MusicGenConfig",
    "MusicGenLM",
    "MusicGenState",
    "MusicGenStepper",
    "PooledStepper",
    "is_integer",
]
