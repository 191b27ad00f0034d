"""`WindowedW2vBert`: our w2v-BERT as the service takes tokenizers, from samples to the scores of its centroids.

A window brings enough samples beyond its outermost frames that its log-mel is that of the whole audio, and frames
outside the audio are silent ones exactly. So the tokens are those that the recipe gives for a whole clip, from which
language models learn (`tests/services/semantic/test_w2vbert_windows.py`).

Legend: N windows, S samples, T frames, M mel bands, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from stretto_shared.dsp.log_mel import HOP_LENGTH, SAMPLE_RATE_HZ, WINDOW_LENGTH, log_mel
from stretto_shared.dsp.window_grid import Silence, WindowGrid
from torch import Tensor, nn

from stretto_semantic.models.centroids import nearness
from stretto_semantic.models.w2vbert.config import FRAME_RATE_HZ, MEL_FRAMES_PER_TOKEN
from stretto_semantic.models.w2vbert.model import W2vBertTokenizer, silent_mel

_MARGIN_FRAMES = -(-(WINDOW_LENGTH - HOP_LENGTH) // (2 * HOP_LENGTH))  # of the log-mel, on either side


class WindowedW2vBert(nn.Module):
    """A tokenizer that hears samples."""

    sample_rate_hz = SAMPLE_RATE_HZ
    frame_rate_hz = FRAME_RATE_HZ
    silence: Tensor  # a frame of log-mel [M]

    def __init__(self, tokenizer: W2vBertTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.register_buffer("silence", silent_mel(), persistent=False)
        self.cardinality = tokenizer.config.num_centroids
        own = tokenizer.grid
        self.grid = WindowGrid(
            hop_length=MEL_FRAMES_PER_TOKEN * HOP_LENGTH,
            window_frames=own.window,
            left_frames=own.left,
            right_frames=own.right,
            margin=_MARGIN_FRAMES * HOP_LENGTH,
        )

    def scores(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        """[N, T * hop + 2 * margin] to [N, T, V]: the nearest centroid scores highest."""
        tokenizer = self.tokenizer
        mel = log_mel(samples)[:, _MARGIN_FRAMES:-_MARGIN_FRAMES]
        for row, (before, after) in zip(mel, silences, strict=True):
            row[: before * MEL_FRAMES_PER_TOKEN] = self.silence
            row[len(row) - after * MEL_FRAMES_PER_TOKEN :] = self.silence
        features = (tokenizer.encoder.hear(mel)[-1] - tokenizer.mean) * tokenizer.scale
        return nearness(features, tokenizer.centroids)
