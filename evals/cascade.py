"""The default cascade without its wire, many pieces at once: for evals that need hundreds of clips.

The same weights, formats, conditions, delay pattern and noise as the services'. Where the language model's layers treat
each row by itself, as the service tries too, its own stepper joins the pieces, and the tokens are the service's.
Elsewhere one batch joins them, which the service must not do (a piece's bytes would depend on its neighbours), and the
tokens are the service's up to the rounding of matrix products (`tests/evals/test_cascade.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from served import load_lm, stepper_of
from stretto_acoustic import loading as acoustic
from stretto_acoustic.engine import NOISE_STAGE, Stepper
from stretto_acoustic.models.musicgen import MusicGenCondition, MusicGenConfig, MusicGenLM
from stretto_codec import loading as codec
from stretto_codec.models.framecodec import MAX_FRAME_PEAK, FrameCodec
from stretto_codec.settings import CodecSettings
from stretto_embedding.loading import TextEncoder, load_default
from stretto_shared.engine.program import Program, TokenRequest
from stretto_shared.engine.sampling import Sampling, guide, stage_key
from stretto_shared.features import TextStates

DECODE_BATCH = 8
JOINED_PIECES = 16  # no more rows in a pass than the service tries at its default settings
_PEAK_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Cascade:
    """Text encoder, language model and codec of the default cascade, loaded as the services load them."""

    encoder: TextEncoder
    lm: acoustic.LoadedLM
    stepper: Stepper
    codec: codec.LoadedCodec

    @property
    def model_ids(self) -> list[str]:
        return [self.lm.info.model_id, self.codec.info.model_id, self.encoder.info.model_id]

    @property
    def default_sampling(self) -> Sampling:
        """What requests get that set nothing."""
        config = self.lm.config
        return Sampling(config.temperature, min(config.top_k, config.cardinality), config.top_p, config.guidance_scale)

    def generate(
        self, texts: Sequence[TextStates], sampling: Sampling, seeds: Sequence[int], *, duration_s: float
    ) -> NDArray[np.int64]:
        """Codes [N, K, T] of one piece for each text."""
        num_frames = round(duration_s * self.lm.config.frame_rate_hz)
        if self.stepper.is_row_invariant:
            parts = [slice(start, start + JOINED_PIECES) for start in range(0, len(texts), JOINED_PIECES)]
            return np.concatenate(
                [step_codes(self.stepper, texts[part], sampling, seeds[part], num_frames) for part in parts]
            )
        return generate_codes(self.lm.module, texts, sampling, seeds, num_frames)

    @torch.inference_mode()
    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mono samples [N, S] of codes [N, K, T]."""
        module: Any = self.codec.module
        parts = [module.decode(torch.from_numpy(part)) for part in _batches(codes)]
        samples: NDArray[np.float32] = torch.cat(parts).mean(1).numpy()
        return samples

    @torch.inference_mode()
    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.int64]:
        """Codes [N, K, T] of mono clips [N, S] at the codec's rate."""
        parts = [self.codec.encode(torch.from_numpy(part)[:, None])[0] for part in _batches(samples)]
        codes: NDArray[np.int64] = torch.cat(parts).to(torch.int64).numpy()
        return codes

    @torch.inference_mode()
    def share_at_peak(self, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share [N] of a clip's synthesis frames that the frame codec turned down; NaN for other codecs."""
        module = self.codec.module
        if not isinstance(module, FrameCodec):
            return np.full(len(codes), np.nan)
        shares = []
        for part in _batches(codes):
            sinusoids = module.decode_sinusoids(module.quantizer.decode(torch.from_numpy(part)))
            silence = sinusoids.deviation.new_zeros(len(part), module.config.num_bins)
            frames, _ = module._frames(sinusoids, silence, 0)
            shares.append((frames.abs().amax(-1) > MAX_FRAME_PEAK - _PEAK_TOLERANCE).double().mean(1).numpy())
        return np.concatenate(shares)


def load_cascade(lm: str = "", *, num_threads: int = 0) -> Cascade:
    """The default models; `lm` is `name` or `name=source` of another language model."""
    loaded, codec_settings = load_lm(lm, num_threads=num_threads), CodecSettings()
    codec_name = loaded.config.codec_id.partition("@")[0]
    return Cascade(
        load_default(),
        loaded,
        stepper_of(loaded, joins=True),
        codec.load(codec_name, "default", weights_dir=codec_settings.weights_dir),
    )


def step_codes(
    stepper: Stepper, texts: Sequence[TextStates], sampling: Sampling, seeds: Sequence[int], num_frames: int
) -> NDArray[np.int64]:
    """Codes [N, K, num_frames] of one piece for each text and its seed, all in each pass of a stepper that joins."""
    programs = _programs(stepper, texts, sampling, seeds, num_frames)
    num_steps = programs[0].num_steps
    states = [
        stepper.open(MusicGenCondition(text.states), num_steps=num_steps, guidance_scale=sampling.guidance_scale)
        for text in texts
    ]
    for _ in range(num_steps):
        logits = stepper.step(states, [program.next_columns(1) for program in programs], [True] * len(programs))
        for program, row in zip(programs, logits, strict=True):
            program.advance(row)
    return np.stack([program.take_frames().codes for program in programs]).astype(np.int64)


@torch.inference_mode()
def generate_codes(
    model: MusicGenLM, texts: Sequence[TextStates], sampling: Sampling, seeds: Sequence[int], num_frames: int
) -> NDArray[np.int64]:
    """Codes [N, K, num_frames] of one piece for each text and its seed, all in one batch."""
    config = model.config
    programs = _programs(config, texts, sampling, seeds, num_frames)
    is_guided = sampling.guidance_scale not in (0, 1)
    states, mask = _padded(texts, config.text_dim)
    if sampling.guidance_scale == 0:
        mask = torch.zeros_like(mask)
    if is_guided:
        states, mask = states.repeat(2, 1, 1), torch.cat([mask, torch.zeros_like(mask)])
    state = model.init_state(len(states), programs[0].num_steps, states, mask)
    for _ in range(programs[0].num_steps):
        columns = torch.from_numpy(np.stack([program.next_column() for program in programs]))
        logits = model.step(columns.repeat(2, 1) if is_guided else columns, state)
        assert logits is not None  # asked for
        logits = logits.float()
        if is_guided:
            logits = guide(logits[: len(programs)], logits[len(programs) :], sampling.guidance_scale)
        for program, row in zip(programs, logits, strict=True):
            program.advance(row)
    return np.stack([program.take_frames().codes for program in programs]).astype(np.int64)


def _programs(
    pattern: MusicGenConfig | Stepper,
    texts: Sequence[TextStates],
    sampling: Sampling,
    seeds: Sequence[int],
    num_frames: int,
) -> list[Program]:
    """The course of each piece through the delay pattern."""
    empty = np.zeros((len(pattern.delays), 0), np.int32)
    return [
        Program(
            TokenRequest(text, num_frames, empty, empty, sampling, seed),
            delays=pattern.delays,
            special_token=pattern.special_token,
            stage=stage_key(NOISE_STAGE),
        )
        for text, seed in zip(texts, seeds, strict=True)
    ]


def _padded(texts: Sequence[TextStates], dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States [N, L, D] and mask [N, L], 1 for a token."""
    longest = max(len(text.states) for text in texts)
    states, mask = np.zeros((len(texts), longest, dim), np.float32), np.zeros((len(texts), longest), np.float32)
    for row, text in enumerate(texts):
        states[row, : len(text.states)], mask[row, : len(text.states)] = text.states, 1
    return torch.from_numpy(states), torch.from_numpy(mask)


def _batches(array: NDArray[Any]) -> list[NDArray[Any]]:
    return [np.ascontiguousarray(array[start : start + DECODE_BATCH]) for start in range(0, len(array), DECODE_BATCH)]
