"""w2v-BERT 2.0 as a listener: windows of audio to the output of one of its layers, 50 frames a second.

The model heard whole utterances, and its input is normalised over what is heard at once. So a window has seconds of
context, and at the audio's ends there is none rather than silence, which would move the mean.

Legend: N windows, S samples, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

from stretto_shared.dsp.window_grid import Silence, WindowGrid
from torch import Tensor, nn

from stretto_semantic.models.wav2vec2_bert.features import (
    FRAME_LENGTH,
    MEL_HOP,
    SAMPLE_RATE_HZ,
    STRIDE,
    stacked_features,
)
from stretto_semantic.models.wav2vec2_bert.model import Wav2Vec2Bert

GRID = WindowGrid(
    hop_length=STRIDE * MEL_HOP,
    window_frames=400,
    left_frames=100,
    right_frames=100,
    is_padded=False,
    margin=FRAME_LENGTH - MEL_HOP,  # the last mel frame reaches so far beyond its hop
)


class Wav2Vec2BertListener(nn.Module):
    """Hears with as many layers as the model has.

    Args:
        model: The layers.
        grid: On what windows.
    """

    sample_rate_hz = SAMPLE_RATE_HZ
    frame_rate_hz = SAMPLE_RATE_HZ / GRID.hop_length

    def __init__(self, model: Wav2Vec2Bert, grid: WindowGrid = GRID) -> None:
        super().__init__()
        self.model = model
        self.grid = grid
        self.width = model.config.hidden_size

    def features(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        """[N, T * hop + 2 * margin] to [N, T, D]; the margin before the first frame is not heard."""
        out: Tensor = self.model(stacked_features(samples[:, self.grid.margin :]))
        return out
