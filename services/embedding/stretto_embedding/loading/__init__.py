"""Weights to verified, built encoders; an explicit registry for each kind. Knows nothing of requests."""

from stretto_embedding.loading.encoders import JointEncoder, MelodyEncoder, TextTokenizer, check_length
from stretto_embedding.loading.files import Once
from stretto_embedding.loading.joint import list_default_names as list_joint_names
from stretto_embedding.loading.joint import load as load_joint
from stretto_embedding.loading.melody import list_default_names as list_melody_names
from stretto_embedding.loading.melody import load as load_melody
from stretto_embedding.loading.text import DEFAULT_NAME, TextEncoder, load, load_default

__all__ = [
    "TextEncoder",
    "JointEncoder",
    "MelodyEncoder",
    "TextTokenizer",
    "check_length",
    "Once",
    "DEFAULT_NAME",
    "load",
    "load_default",
    "load_joint",
    "load_melody",
    "list_joint_names",
    "list_melody_names",
]
