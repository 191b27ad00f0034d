"""EnCodec: SEANet around a residual vector quantizer, at 24 kHz (causal, mono), 32 kHz (mono) and 48 kHz (stereo).

Paper: Défossez et al., High Fidelity Neural Audio Compression, 2022, https://arxiv.org/abs/2210.13438.

Departures: inference only, without the discriminators and the entropy-coding language model; a last segment shorter
than the overlap is decoded, where the published code fails.

Knows nothing of files, of requests and of chunk grids; `streaming.py` decodes piece by piece.

Legend: B batch, C channels, S samples, K codebooks, T frames, D latent, N segments.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretto_codec.models.encodec.config import EncodecConfig
from stretto_codec.models.encodec.seanet import Decoder, Encoder


class ResidualQuantizer(nn.Module):
    """K codebooks, each of which names the nearest entry to what the ones before it left over."""

    codebooks: Tensor

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        shape = (config.num_codebooks, config.cardinality, config.hidden_size)
        self.register_buffer("codebooks", torch.randn(shape) * 0.1)

    def encode(self, latents: Tensor) -> Tensor:
        """[B, D, T] to codes [B, K, T]."""
        residual = latents.transpose(1, 2)  # [B, T, D]
        codes = []
        for codebook in self.codebooks:
            flat = residual.reshape(-1, residual.shape[-1])
            columns = codebook.t()
            distance = -(flat.pow(2).sum(1, keepdim=True) - 2 * flat @ columns + columns.pow(2).sum(0, keepdim=True))
            nearest = distance.max(dim=-1).indices.view(residual.shape[:-1])
            residual = residual - F.embedding(nearest, codebook)
            codes.append(nearest)
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, K', T] of the K' coarsest codebooks to latents [B, D, T]."""
        total = F.embedding(codes[:, 0], self.codebooks[0])
        for level in range(1, codes.shape[1]):
            total = total + F.embedding(codes[:, level], self.codebooks[level])
        return total.transpose(1, 2)


class Encodec(nn.Module):
    """One EnCodec of any geometry.

    Invariant: equal codes and, within rounding, equal audio as the published implementations with the same weights;
    `tests/services/codec/test_encodec_parity.py` holds it to that.
    """

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantizer = ResidualQuantizer(config)

    def encode(self, audio: Tensor) -> Tensor:
        """[B, C, S] to codes [B, K, T]; T is ceil(S / hop) unless segments overlap."""
        return self.encode_scaled(audio)[0]

    def encode_scaled(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, S] to codes [B, K, T], segment after segment, and the loudness of each segment [B, N].

        N is 0 for a codec that does not normalise.
        """
        length, stride = self.config.segment_length, self.config.segment_stride
        if length is None or stride is None:
            return self.quantizer.encode(self.encoder(audio)), audio.new_zeros(audio.shape[0], 0)
        codes, scales = [], []
        for offset in range(0, audio.shape[-1], stride):
            segment = audio[..., offset : offset + length]
            if self.config.normalize:
                scale = segment.mean(dim=1, keepdim=True).pow(2).mean(dim=2, keepdim=True).sqrt() + 1e-8  # [B, 1, 1]
                segment = segment / scale
                scales.append(scale.view(-1, 1))
            codes.append(self.quantizer.encode(self.encoder(segment)))
        return torch.cat(codes, dim=-1), torch.cat(scales, dim=1) if scales else audio.new_zeros(audio.shape[0], 0)

    def decode(self, codes: Tensor, scales: Tensor | None = None) -> Tensor:
        """Codes [B, K', T] of a whole clip to audio [B, C, S]; S is T * hop unless segments overlap.

        Args:
            codes: The K' coarsest codebooks, 1 <= K' <= K.
            scales: Loudness of each segment [B, N]; None leaves all at 1.
        """
        frames = self.config.segment_frames
        if frames is None:
            return self.decode_segment(codes, None)
        mixer = SegmentMixer(self.config)
        parts = []
        for index, segment in enumerate(torch.split(codes, frames, dim=-1)):
            parts.append(mixer.add(self.decode_segment(segment, None if scales is None else scales[:, index])))
        return torch.cat([*parts, mixer.finish()], dim=-1)

    def decode_segment(self, codes: Tensor, scale: Tensor | None) -> Tensor:
        """Codes [B, K', T] of one segment, or of a whole clip without segments, to audio [B, C, T * hop]."""
        audio = cast(Tensor, self.decoder(self.quantizer.decode(codes)))
        return audio if scale is None else audio * scale.view(-1, 1, 1)


class SegmentMixer:
    """Adds overlapping segments with triangular weights and gives out what no later segment can change."""

    def __init__(self, config: EncodecConfig) -> None:
        if config.segment_stride is None or config.segment_frames is None:
            raise ValueError("segment_s: only a codec with segments has something to mix.")
        self._stride = config.segment_stride
        length = config.segment_frames * config.hop_length
        ramp = torch.linspace(0, 1, length + 2)[1:-1]
        self._weights = 0.5 - (ramp - 0.5).abs()
        self._sum: Tensor | None = None  # weighted audio [B, C, S] from the next segment's first sample on
        self._total = torch.zeros(0)  # its sum of weights [S]

    def add(self, audio: Tensor) -> Tensor:
        """Mix the next segment [B, C, S'] in; returns the samples before the start of the one after it."""
        num_samples = audio.shape[-1]
        weights = self._weights[:num_samples]
        tail = audio.new_zeros(*audio.shape[:-1], 0) if self._sum is None else self._sum
        length = max(num_samples, tail.shape[-1])
        total = F.pad(self._total, (0, length - self._total.shape[-1])) + F.pad(weights, (0, length - num_samples))
        mixed = F.pad(tail, (0, length - tail.shape[-1])) + F.pad(weights * audio, (0, length - num_samples))
        self._sum, self._total = mixed[..., self._stride :], total[self._stride :]
        return mixed[..., : self._stride] / total[: self._stride]

    def finish(self) -> Tensor:
        """The samples after the start of a segment that never came."""
        if self._sum is None:
            raise ValueError("expected at least one segment before the end.")
        return self._sum / self._total
