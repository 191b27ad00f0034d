"""Conditions in, token frames out: domain values only. Knows nothing of protobuf and grpc."""

from stretto_acoustic.engine.acoustic_engine import NOISE_STAGE, AcousticEngine
from stretto_acoustic.engine.models import AcousticModels
from stretto_acoustic.engine.refining import Refining
from stretto_acoustic.engine.requests import GenerateRequest
from stretto_acoustic.engine.steppers import Stepper, make_stepper

__all__ = [
    "NOISE_STAGE",
    "AcousticEngine",
    "AcousticModels",
    "GenerateRequest",
    "Refining",
    "Stepper",
    "make_stepper",
]
