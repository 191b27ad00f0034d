"""`OnsetsFrames` as the engine asks for it."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from stretto_transcriber.models.hearing import NoteListener
from stretto_transcriber.models.onsets_frames.network import OnsetsFrames


def note_listener(model: OnsetsFrames) -> NoteListener:
    """A model in eval mode, with its grid, its heads side by side, and its decoder."""

    def hear(windows: Tensor) -> Tensor:
        return model.window_heads(windows).stacked()

    by_key = partial(model.new_decoder, "key") if model.config.has_key_head else None
    return NoteListener(model.config, model, hear, model.new_decoder, by_key, model.use_kernel)
