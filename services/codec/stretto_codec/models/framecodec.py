"""FrameCodec, the default codec of the cascades: it works at the frame rate, never at the sample rate.

Log spectra -> causal ConvNeXt at 100 Hz -> 12.5 Hz -> residual vector quantizer -> ConvNeXt -> 100 Hz -> magnitudes,
frequencies and noisiness of sinusoids, one for each bin -> inverse STFT. After Siuzdak, "Vocos: Closing the gap between
time-domain and Fourier-based neural vocoders" (2023), https://arxiv.org/abs/2306.00814, with the quantizer of
SoundStream. `docs/adr/0002` says why.

Departures from Vocos: a codec, not a vocoder (the encoder is ours). Every layer looks back only. The head does not
predict phases: a time-invariant network cannot turn a phase steadily, and a steady tone is what music is made of. It
predicts how far each bin's frequency lies from the bin's centre, and the phase is the running sum, as in a phase
vocoder; noise is a fixed pseudo-random phase, mixed in as far as the network asks for it. The synthesis frame *begins*
at its own hop, so that a hop is finished by the frames up to its own and nothing waits: a chunk of T frames gives
exactly T * hop_length samples. Encoding looks 60 ms ahead. The first window of a clip fades in (30 ms).

Legend: B batch, S samples, T token frames, F = T * stride STFT frames, N = n_fft / 2 + 1 bins, K codebooks, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from stretto_shared.nn.convnext import ConvNeXtStack
from stretto_shared.nn.rvq import Quantized, ResidualVectorQuantizer
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_codec.models.packed_matrix import PackedMatrix, pack_linears

MAX_LOG_MAGNITUDE = 7.0
MAGNITUDE_FLOOR = 0.02  # a full-scale sine has a quarter of the window's length
MAX_FRAME_PEAK = 0.6  # overlapping frames add up to four thirds of it
LIMITER_KNEE = 0.9  # louder samples bend towards full scale, and never reach it
NOISE_PERIOD = 1021  # frames after which the pseudo-random phases repeat: a prime, about ten seconds


@dataclass(frozen=True)
class FrameCodecConfig:
    """Sizes of a FrameCodec; the defaults are those at 25 Hz and 2 kb/s (`recipes/framecodec_fine.toml`)."""

    sample_rate_hz: int = 24_000
    num_channels: int = 1
    n_fft: int = 960
    stft_hop: int = 240
    analysis_window: int = 1920
    stride: int = 4
    dim: int = 256
    num_encoder_blocks: int = 4
    num_latent_blocks: int = 2
    num_decoder_blocks: int = 8
    code_dim: int = 64
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
class Sinusoids:
    """What the head says of each frame's bins, all [B, F, N]."""

    log_magnitude: Tensor  # natural logarithm
    deviation: Tensor  # radians a hop beyond the centre frequency
    noisiness: Tensor  # 0 to 1: share of the pseudo-random phase


@dataclass
class FrameDecoderState:
    """What the decoder remembers between chunks: past frames of every block, phases, and the unfinished windows."""

    latent: list[Tensor]
    fine: list[Tensor]
    phase: Tensor  # [B, N], radians
    num_frames: Tensor  # [B], STFT frames so far
    tail: Tensor  # [B, n_fft - stft_hop]


class FrameCodec(nn.Module):
    """The codec.

    Invariant: a stream of `decode_chunk` calls equals one `decode`, for any chunk sizes
    (`tests/services/codec/test_causal_codecs.py`).
    """

    window: Tensor
    analysis: Tensor
    centre_phase: Tensor
    noise: Tensor

    def __init__(self, config: FrameCodecConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.register_buffer("analysis", torch.hann_window(config.analysis_window), persistent=False)
        # The phase of each bin's centre frequency at frame t: exact, since it repeats after n_fft / stft_hop frames.
        overlap = config.n_fft // config.stft_hop
        bins = torch.arange(config.num_bins)
        turns = torch.arange(overlap)[:, None] * bins % overlap
        # Half a turn for every odd bin refers phases to the middle of the window, where the bins of a partial agree.
        centre_phase = 2 * torch.pi / overlap * turns + torch.pi * (bins % 2)
        self.register_buffer("centre_phase", centre_phase, persistent=False)
        self.max_deviation = 2 * torch.pi / overlap
        self.register_buffer("noise", _noise(config.num_bins), persistent=False)
        self.features_in = nn.Linear(config.num_bins + config.analysis_window // 2 + 1, dim)
        self.encoder_fine = ConvNeXtStack(dim, config.num_encoder_blocks)
        self.down = nn.Linear(config.stride * dim, dim)
        self.encoder_latent = ConvNeXtStack(dim, config.num_latent_blocks)
        self.quantizer = ResidualVectorQuantizer(
            dim, config.num_codebooks, config.cardinality, code_dim=config.code_dim
        )
        self.decoder_latent = ConvNeXtStack(dim, config.num_latent_blocks)
        self.up = nn.Linear(dim, config.stride * dim)
        self.decoder_fine = ConvNeXtStack(dim, config.num_decoder_blocks)
        self.head = nn.Linear(dim, 3 * config.num_bins)

    # --- analysis ---

    def features(self, audio: Tensor) -> Tensor:
        """[B, 1, S] to log spectra [B, F, features], centred where the synthesis frames are.

        First the log10 magnitudes of the synthesis window; then, of a longer window that tells partials apart, the
        log spectrum about its own envelope.
        """
        envelope_of = self._spectrum(audio, self.analysis).square().sum(-1).add(1e-6).log()
        reach = 2 * (self.config.analysis_window // 96) + 1
        envelope = F.avg_pool1d(envelope_of, reach, 1, reach // 2, count_include_pad=False)
        return torch.cat([self.log_magnitudes(audio), 0.3 * (envelope_of - envelope)], -1)

    def log_magnitudes(self, audio: Tensor) -> Tensor:
        """[B, 1, S] to log10 magnitudes [B, F, N] of the synthesis frames, above a floor."""
        return (self._spectrum(audio, self.window).square().sum(-1).sqrt() + MAGNITUDE_FLOOR).log10()

    def _spectrum(self, audio: Tensor, window: Tensor) -> Tensor:
        """[B, 1, S] to spectra [B, F, bins, 2] whose windows are centred as the synthesis windows are."""
        config, size = self.config, len(window)
        num_frames = -(-audio.shape[-1] // config.hop_length) * config.stride
        before = (size - config.n_fft) // 2
        length = (num_frames - 1) * config.stft_hop + size
        padded = F.pad(audio[:, 0].float(), (before, length - before - audio.shape[-1]))
        return torch.view_as_real(torch.fft.rfft(padded.unfold(-1, size, config.stft_hop) * window))

    def encode_latents(self, audio: Tensor) -> Tensor:
        """[B, 1, S] to latents [B, T, D] before the quantizer."""
        frames = self.encoder_fine(self.features_in(self.features(audio)))
        batch, num_frames, dim = frames.shape
        coarse = self.down(frames.reshape(batch, num_frames // self.config.stride, self.config.stride * dim))
        out: Tensor = self.encoder_latent(coarse)
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
        """Quantised latents [B, T, D] to audio [B, 1, T * hop_length]."""
        return self.synthesise(self.decode_sinusoids(latents))

    def decode_sinusoids(self, latents: Tensor) -> Sinusoids:
        """Quantised latents [B, T, D] to what the head says of every bin, for training."""
        return self._sinusoids(self.head(self.decoder_fine(self._upsample(self.decoder_latent(latents)))))

    def synthesise(self, sinusoids: Sinusoids, *, start: int = 0) -> Tensor:
        """Sinusoids [B, F, N] to audio [B, 1, F * stft_hop]; `start` numbers the first frame of the noise."""
        silence = sinusoids.deviation.new_zeros(len(sinusoids.deviation), self.config.num_bins)
        starts = torch.full((len(silence),), start, device=silence.device)
        frames, _ = self._frames(sinusoids, silence, starts)
        audio, _ = self._overlap_add(frames, None)
        return audio.unsqueeze(1)

    def init_decoder_state(self, batch_size: int) -> FrameDecoderState:
        """The state before the first frame."""
        tail = self.window.new_zeros(batch_size, self.config.n_fft - self.config.stft_hop)
        phase = self.window.new_zeros(batch_size, self.config.num_bins)
        latent, fine = self.decoder_latent.init_state(batch_size), self.decoder_fine.init_state(batch_size)
        num_frames = torch.zeros(batch_size, dtype=torch.int64, device=phase.device)
        return FrameDecoderState(latent, fine, phase, num_frames, tail)

    def decode_chunk(self, codes: Tensor, state: FrameDecoderState) -> tuple[Tensor, FrameDecoderState]:
        """The next codes [B, k, t] to audio [B, 1, t * hop_length], and the state after them."""
        coarse, latent_state = self.decoder_latent.step(self.quantizer.decode(codes), state.latent)
        fine, fine_state = self.decoder_fine.step(self._upsample(coarse), state.fine)
        heads = self.head(fine)
        # Clip by clip: functions of single values are computed in other ways at the end of a tensor than within it.
        clips = [
            self._synthesis(*clip)
            for clip in zip(*(rows.chunk(len(rows)) for rows in (heads, state.phase, state.num_frames, state.tail)))
        ]
        audio, phase, tail = (torch.cat(parts) for parts in zip(*clips))
        num_frames = state.num_frames + fine.shape[1]
        return audio.unsqueeze(1), FrameDecoderState(latent_state, fine_state, phase, num_frames, tail)

    def _synthesis(self, head: Tensor, phase: Tensor, start: Tensor, tail: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One clip's head [1, F, 3 N] to audio [1, F * stft_hop], and the phase and the tail after it."""
        frames, phase = self._frames(self._sinusoids(head), phase, start)
        audio, tail = self._overlap_add(frames, tail)
        return _limit(audio), phase, tail

    def pack_decoder(self, dtype: torch.dtype = torch.float32) -> None:
        """Lay the decoder's matrices as kernels read them that keep rows apart; it cannot be trained after that.

        The encoder stays, so that its codes do; and what says frequencies stays in float32, since phases add them up.

        Args:
            dtype: Number format of the products within the ConvNeXt blocks.
        """
        for stack in (self.decoder_latent, self.decoder_fine):
            pack_linears(stack, dtype)
        for owner, name in ((self.quantizer, "project_out"), (self, "up"), (self, "head")):
            layer = getattr(owner, name)
            if isinstance(layer, nn.Linear):
                setattr(owner, name, PackedMatrix(layer.weight, layer.bias, torch.float32))

    def _upsample(self, coarse: Tensor) -> Tensor:
        batch, num_frames, _ = coarse.shape
        fine: Tensor = self.up(coarse)
        return fine.reshape(batch, num_frames * self.config.stride, self.config.dim)

    def _sinusoids(self, head: Tensor) -> Sinusoids:
        log_magnitude, deviation, noisiness = head.float().chunk(3, -1)
        # A sinusoid lies at most one bin from the centre of its own.
        return Sinusoids(
            log_magnitude.clamp(max=MAX_LOG_MAGNITUDE),
            self.max_deviation * torch.tanh(deviation),
            torch.sigmoid(noisiness - 2.0),
        )

    def _frames(self, sinusoids: Sinusoids, phase: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Sinusoids [B, F, N] to windowed samples [B, F, n_fft], and the phases [B, N] after them.

        `phase` [B, N] is what each bin turned beyond its centre before the first frame, `start` [B] its number.
        """
        phases = phase[:, None] + sinusoids.deviation.cumsum(1)
        numbers = start[:, None] + torch.arange(phases.shape[1], device=phases.device)
        noise = sinusoids.noisiness * self.noise[numbers % NOISE_PERIOD]
        angles = phases + self.centre_phase[numbers % len(self.centre_phase)] + noise
        spectrum = torch.polar(sinusoids.log_magnitude.exp(), angles)
        frames = torch.fft.irfft(spectrum, n=self.config.n_fft) * self.window
        # Codes that no recording has may add up to any loudness: such a frame is turned down as a whole.
        frames = frames / (frames.abs().amax(-1, keepdim=True) / MAX_FRAME_PEAK).clamp(min=1.0)
        return frames, phases[:, -1] % (2 * torch.pi)

    def _overlap_add(self, frames: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        """Windowed frames [B, F, n_fft] to finished samples [B, F * hop] and the unfinished tail."""
        batch, num_frames, n_fft = frames.shape
        hop = self.config.stft_hop
        # Hop b of the output is the sum over j of hop j of frame b - j.
        overlaps = frames.view(batch, num_frames, n_fft // hop, hop).unbind(2)
        padded = [F.pad(part, (0, 0, j, len(overlaps) - 1 - j)) for j, part in enumerate(overlaps)]
        summed = sum(padded[1:], padded[0])
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


def _limit(audio: Tensor) -> Tensor:
    """Bend what is louder than the knee towards full scale."""
    excess = (audio.abs() - LIMITER_KNEE).clamp(min=0)
    room = 1.0 - LIMITER_KNEE
    return torch.where(excess > 0, audio.sign() * (LIMITER_KNEE + room * torch.tanh(excess / room)), audio)


def _noise(num_bins: int) -> Tensor:
    """Phases [NOISE_PERIOD, N], uniform in (-pi, pi) and the same in every process: a hash of frame and bin."""
    index = torch.arange(NOISE_PERIOD * num_bins, dtype=torch.int64).view(NOISE_PERIOD, num_bins)
    hashed = (index * 0x9E3779B1) & 0xFFFFFFFF
    hashed = ((hashed ^ (hashed >> 15)) * 0x85EBCA6B) & 0xFFFFFFFF
    hashed = ((hashed ^ (hashed >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    hashed = hashed ^ (hashed >> 16)
    return ((hashed.double() / 2**32 - 0.5) * 2 * torch.pi).float()
