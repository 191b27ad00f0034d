"""A whole clip at once, for recipes and evals: the same windows and the same decoder as a stream has.

Legend: S samples, T frames, P numbers of a frame.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from stretto_transcriber.models.notes import NoteEnds, Notes
from stretto_transcriber.models.onsets_frames.config import NUM_PITCHES
from stretto_transcriber.models.onsets_frames.network import OnsetsFrames


@torch.inference_mode()
def hear_clip(model: OnsetsFrames, samples: NDArray[np.float32], batch_size: int = 1) -> NDArray[np.float32]:
    """The heads of a clip [S] at the model's rate, frame by frame [T, P], T = ceil(S / hop_length).

    On the model's device, `batch_size` windows at once.
    """
    config, device = model.config, next(model.parameters()).device
    hop, window, context = config.hop_length, config.window_frames, config.context_frames
    num_frames = -(-len(samples) // hop)
    num_windows = -(-num_frames // window)
    if num_windows == 0:
        return np.zeros((0, config.num_heads * NUM_PITCHES), np.float32)
    padded = np.zeros((num_windows * window + 2 * context) * hop, np.float32)
    padded[context * hop : context * hop + len(samples)] = samples
    windows = torch.from_numpy(padded).unfold(0, (window + 2 * context) * hop, window * hop)
    heads = [
        model.window_heads(part.to(device)).stacked().flatten(0, 1).cpu().numpy()
        for part in torch.split(windows, batch_size)
    ]
    return np.concatenate(heads)[:num_frames]


def transcribe_clip(model: OnsetsFrames, samples: NDArray[np.float32], ends: NoteEnds = "sound") -> Notes:
    """The notes of a clip [S] at the model's rate, with their ends as the model's decoder has them."""
    decoder = model.new_decoder(ends)
    return Notes.joined([decoder.push(hear_clip(model, samples)), decoder.flush()])
