"""Onsets and Frames: piano audio to notes.

`network.py` is the model, `harmonic.py` and `paper.py` its two networks, `spectrum.py` what they read, `decoding.py`
what makes notes of what they give; `releases.py` is what tells when those end, and `release_decoding.py` has it do so.
"""

from stretto_transcriber.models.onsets_frames.config import OnsetsFramesConfig, maestro_config, maps_config
from stretto_transcriber.models.onsets_frames.decoding import NoteDecoder
from stretto_transcriber.models.onsets_frames.heads import Heads
from stretto_transcriber.models.onsets_frames.layouts import build_onsets_frames, from_published
from stretto_transcriber.models.onsets_frames.listener import note_listener
from stretto_transcriber.models.onsets_frames.network import OnsetsFrames
from stretto_transcriber.models.onsets_frames.release_decoding import decoder_of
from stretto_transcriber.models.onsets_frames.transcription import hear_clip, transcribe_clip

__all__ = [
    "Heads",
    "NoteDecoder",
    "OnsetsFrames",
    "OnsetsFramesConfig",
    "build_onsets_frames",
    "decoder_of",
    "from_published",
    "hear_clip",
    "maestro_config",
    "maps_config",
    "note_listener",
    "transcribe_clip",
]
