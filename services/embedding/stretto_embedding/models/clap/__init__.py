"""CLAP: texts and sounds in one space; `model.py` says what it is."""

from stretto_embedding.models.clap.config import ClapConfig, FrontEndConfig, config_from_hf, front_end_from_hf
from stretto_embedding.models.clap.front_end import FrontEnd
from stretto_embedding.models.clap.layout import state_from_hf
from stretto_embedding.models.clap.model import Clap

__all__ = [
    "Clap",
    "ClapConfig",
    "FrontEnd",
    "FrontEndConfig",
    "config_from_hf",
    "front_end_from_hf",
    "state_from_hf",
]
