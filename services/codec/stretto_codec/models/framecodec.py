"""FrameCodec, the default codec of the cascades: it works at the frame rate, never at the sample rate.

STFT features -> causal ConvNeXt at 100 Hz -> 25 Hz -> residual vector quantizer -> ConvNeXt -> 100 Hz -> inverse STFT,
after Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders" (2023),
https://arxiv.org/abs/2306.00814, with the quantizer of SoundStream. `docs/adr/0002` says why.

Departures from Vocos: a codec, not a vocoder (the encoder is ours); every layer looks back only; the synthesis frame
*begins* at its own hop, so that a hop is finished by the frames up to its own and nothing waits: a chunk of T frames
gives exactly T * hop_length samples. The analysis frame hears one window from its own hop on, so encoding looks
`n_fft - stft_hop` samples ahead. The first window of a clip fades in (30 ms).

Legend: B batch, S samples, T token frames, F = T * stride STFT frames, N = n_fft / 2 + 1 bins, K codebooks, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

from stretto_shared.nn.convnext import ConvNeXtStack
from stretto_shared.nn.rvq import Quantized, ResidualVectorQuantizer

MAX_LOG_MAGNITUDE = 7.0


@dataclass(frozen=True)
class FrameCodecConfig:
    """Sizes of a FrameCodec; the defaults are those of the committed checkpoint."""

    sample_rate_hz: int = 24_000
    num_channels: int = 1
    n_fft: int = 960
    stft_hop: int = 240
    stride: int = 4
    dim: int = 256
    num_encoder_blocks: int = 4
    num_latent_blocks: int = 2
    num_decoder_blocks: int = 8
    code_dim: int = 32
    num_codebooks: int = 8
    cardinality: int = 1024

    @property
    def hop_length(self) -> int:
        """Samples per token frame; `n_fft` is a multiple of `stft_hop`."""
        return self.stft_hop * self.stride

    @property
    def frame_rate_hz(self) -> float:
        """Token frames per second."""
        return self.sample_rate_hz / self.hop_length

    @property
    def num_bins(self) -> int:
        """Bins of one STFT frame."""
        return self.n_fft // 2 + 1


@dataclass
class FrameDecoderState:
    """What the decoder remembers between chunks: past frames of every block, and the unfinished window tails."""

    latent: list[Tensor]
    fine: list[Tensor]
    tail: Tensor  # [B, n_fft - stft_hop]


class FrameCodec(nn.Module):
    """The codec.

    Invariant: a stream of `decode_chunk` calls equals one `decode`, for any chunk sizes
    (`tests/services/codec/test_framecodec.py`).
    """

    window: Tensor

    def __init__(self, config: FrameCodecConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.features_in = nn.Linear(3 * config.num_bins, dim)
        self.encoder_fine = ConvNeXtStack(dim, config.num_encoder_blocks)
        self.down = nn.Linear(config.stride * dim, dim)
        self.encoder_latent = ConvNeXtStack(dim, config.num_latent_blocks)
        self.latent_norm = nn.LayerNorm(dim)
        self.quantizer = ResidualVectorQuantizer(
            dim, config.num_codebooks, config.cardinality, code_dim=config.code_dim
        )
        self.decoder_latent = ConvNeXtStack(dim, config.num_latent_blocks)
        self.up = nn.Linear(dim, config.stride * dim)
        self.decoder_fine = ConvNeXtStack(dim, config.num_decoder_blocks)
        self.head_norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 2 * config.num_bins)

    # --- analysis ---

    def features(self, audio: Tensor) -> Tensor:
        """[B, 1, S] to [B, F, 3 N]: log magnitude, and the spectrum with its magnitude compressed to the power 0.3."""
        config = self.config
        num_frames = -(-audio.shape[-1] // config.hop_length) * config.stride
        length = (num_frames - 1) * config.stft_hop + config.n_fft
        padded = F.pad(audio[:, 0], (0, length - audio.shape[-1]))
        windows = padded.unfold(-1, config.n_fft, config.stft_hop) * self.window
        spectrum = torch.view_as_real(torch.fft.rfft(windows))
        magnitude = spectrum.square().sum(-1).clamp(min=1e-10).sqrt()
        compressed = spectrum * magnitude.unsqueeze(-1) ** -0.7
        log_magnitude = magnitude.log() * 0.3
        return torch.cat([log_magnitude, compressed[..., 0], compressed[..., 1]], -1)

    def encode_latents(self, audio: Tensor) -> Tensor:
        """[B, 1, S] to latents [B, T, D] before the quantizer."""
        frames = self.encoder_fine(self.features_in(self.features(audio)))
        batch, num_frames, dim = frames.shape
        coarse = self.down(frames.reshape(batch, num_frames // self.config.stride, self.config.stride * dim))
        out: Tensor = self.latent_norm(self.encoder_latent(coarse))
        return out

    def encode(self, audio: Tensor) -> Tensor:
        """Audio [B, 1, S] to codes [B, K, T], T = ceil(S / hop_length)."""
        return self.quantizer.encode(self.encode_latents(audio))

    # --- synthesis ---

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, k, T] to audio [B, 1, T * hop_length]; k may be fewer than K."""
        audio, _ = self.decode_chunk(codes, self.init_decoder_state(codes.shape[0]))
        return audio

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Quantised latents [B, T, D] to audio [B, 1, T * hop_length], for training."""
        fine = self.decoder_fine(self._upsample(self.decoder_latent(latents)))
        audio, _ = self._overlap_add(self._frames(fine), None)
        return audio.unsqueeze(1)

    def init_decoder_state(self, batch_size: int) -> FrameDecoderState:
        """The state before the first frame."""
        tail = self.window.new_zeros(batch_size, self.config.n_fft - self.config.stft_hop)
        return FrameDecoderState(
            self.decoder_latent.init_state(batch_size), self.decoder_fine.init_state(batch_size), tail
        )

    def decode_chunk(self, codes: Tensor, state: FrameDecoderState) -> tuple[Tensor, FrameDecoderState]:
        """The next codes [B, k, t] to audio [B, 1, t * hop_length], and the state after them."""
        coarse, latent_state = self.decoder_latent.step(self.quantizer.decode(codes), state.latent)
        fine, fine_state = self.decoder_fine.step(self._upsample(coarse), state.fine)
        audio, tail = self._overlap_add(self._frames(fine), state.tail)
        return audio.unsqueeze(1), FrameDecoderState(latent_state, fine_state, tail)

    def _upsample(self, coarse: Tensor) -> Tensor:
        batch, num_frames, _ = coarse.shape
        fine: Tensor = self.up(coarse)
        return fine.reshape(batch, num_frames * self.config.stride, self.config.dim)

    def _frames(self, fine: Tensor) -> Tensor:
        """[B, F, D] to windowed samples [B, F, n_fft]."""
        log_magnitude, phase = self.head(self.head_norm(fine)).float().chunk(2, -1)
        spectrum = torch.polar(log_magnitude.clamp(max=MAX_LOG_MAGNITUDE).exp(), phase)
        return torch.fft.irfft(spectrum, n=self.config.n_fft) * self.window

    def _overlap_add(self, frames: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        """Windowed frames [B, F, n_fft] to finished samples [B, F * hop] and the unfinished tail."""
        batch, num_frames, n_fft = frames.shape
        hop = self.config.stft_hop
        # Hop b of the output is the sum over j of hop j of frame b - j.
        overlaps = frames.view(batch, num_frames, n_fft // hop, hop).unbind(2)
        summed = sum(F.pad(part, (0, 0, j, len(overlaps) - 1 - j)) for j, part in enumerate(overlaps))
        # Hann squared at a quarter hop sums to 1.5; other overlaps scale alike.
        samples = (summed / (0.375 * n_fft / hop)).view(batch, -1)
        if tail is not None:
            samples = torch.cat([samples[:, : n_fft - hop] + tail, samples[:, n_fft - hop :]], 1)
        return samples[:, : num_frames * hop], samples[:, num_frames * hop :]

    # --- training ---

    def forward(self, audio: Tensor, num_codebooks: Tensor | None = None) -> tuple[Tensor, Quantized]:
        """Reconstruct [B, 1, S], S a multiple of hop_length; row b keeps `num_codebooks[b]` codebooks."""
        quantized = self.quantizer(self.encode_latents(audio), num_codebooks)
        return self.decode_latents(quantized.latents), quantized
