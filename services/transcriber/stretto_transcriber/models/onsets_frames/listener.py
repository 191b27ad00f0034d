"""`OnsetsFrames` as the engine asks for it."""

from __future__ import annotations

from torch import Tensor

from stretto_transcriber.models.hearing import NoteListener
from stretto_transcriber.models.onsets_frames.decoding import NoteDecoder
from stretto_transcriber.models.onsets_frames.network import OnsetsFrames


def note_listener(model: OnsetsFrames) -> NoteListener:
    """A model in eval mode, with its grid, its heads side by side, and its decoder."""

    def hear(windows: Tensor) -> Tensor:
        return model.window_heads(windows).stacked()

    def by_key() -> NoteDecoder:
        return NoteDecoder(model.config, "key")

    sounds_only = not model.config.has_key_head
    return NoteListener(model.config, model, hear, lambda: NoteDecoder(model.config), None if sounds_only else by_key)
