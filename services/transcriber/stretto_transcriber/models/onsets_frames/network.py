"""`OnsetsFrames`: audio to what is heard of each of the 88 keys in every frame, by either of two networks.

Hawthorne et al. 2018 and 2019 (`paper.py`), or the house's network of the same heads and gates that shares its weights
over pitch (`harmonic.py`), with the regression targets of Kong et al. 2021. `decoding.py` makes notes of them, and
where the network of `releases.py` was trained, `release_decoding.py` tells when those end.

Legend: B batch, S samples, T frames, F numbers of a frame; heads are [B, T, 88].
"""

from __future__ import annotations

import torch
from stretto_shared.nn.lowbit import NativeKernel
from torch import Tensor, nn

from stretto_transcriber.models.hearing import NoteDecoder
from stretto_transcriber.models.notes import NoteEnds
from stretto_transcriber.models.onsets_frames.config import OnsetsFramesConfig
from stretto_transcriber.models.onsets_frames.harmonic import HarmonicNetwork
from stretto_transcriber.models.onsets_frames.heads import Heads
from stretto_transcriber.models.onsets_frames.paper import PaperNetwork
from stretto_transcriber.models.onsets_frames.release_decoding import Reader, decoder_of
from stretto_transcriber.models.onsets_frames.releases import ReleaseNetwork, ReleaseReader
from stretto_transcriber.models.onsets_frames.tiled import TiledHarmonic, fits
from stretto_transcriber.models.onsets_frames.tiled_releases import TiledReleases


class OnsetsFrames(nn.Module):
    """The network with its front end.

    Invariant: a window gives the same in any batch but for rounding; `tests/services/transcriber/test_onsets_frames.py`
    holds it to that.
    """

    def __init__(self, config: OnsetsFramesConfig) -> None:
        super().__init__()
        self.config = config
        self.network = PaperNetwork(config) if config.front == "mel" else HarmonicNetwork(config)
        self.releases = ReleaseNetwork(config.release_channels) if config.release_channels else None
        self._tiled: TiledHarmonic | None = None
        self._reader: Reader | None = None

    def features(self, audio: Tensor) -> Tensor:
        """Mono audio [B, S], S a multiple of `hop_length`, to log spectra [B, T, F] with T = S / hop_length.

        Raises:
            ValueError: On another shape.
        """
        hop = self.config.hop_length
        if audio.ndim != 2 or audio.shape[1] == 0 or audio.shape[1] % hop:
            raise ValueError(f"audio: expected [B, S] with S a positive multiple of {hop}, got {tuple(audio.shape)}.")
        spectra: Tensor = self.network.spectrum(audio)
        return spectra

    def logits(self, features: Tensor) -> Heads:
        """What training compares with targets."""
        heads: Heads = self.network(features)
        return heads

    def forward(self, features: Tensor) -> Heads:
        """Log spectra [B, T, F] to probabilities."""
        if self._tiled is not None:
            return self._tiled(features)
        return self.logits(features).probabilities()

    def use_kernel(self, kernel: NativeKernel) -> bool:
        """Hear in bfloat16 by the native kernel from now on, with the weights as they are, which are to be final.

        Returns:
            Whether it does: not by the papers' network, nor with sizes that are no whole tiles. Then nothing changes.
        """
        if not isinstance(self.network, HarmonicNetwork) or not fits(self.network):
            return False
        self._tiled = TiledHarmonic(self.network, kernel)
        if self.releases is not None:
            self._reader = TiledReleases(self.releases, kernel)
        return True

    def new_decoder(self, ends: NoteEnds = "sound") -> NoteDecoder:
        """What makes notes of what is heard, for one stream; it keeps the weights of releases as they are now.

        Raises:
            ValueError: For keys, if the model does not hear them.
        """
        return decoder_of(self.config, self.release_reader, ends)

    @property
    def release_reader(self) -> Reader | None:
        """The network of releases for decoders, made once; None without one."""
        if self._reader is None and self.releases is not None:
            self._reader = ReleaseReader(self.releases)
        return self._reader

    def window_heads(self, audio: Tensor) -> Heads:
        """Windows with their contexts [B, (window + 2 * context) * hop_length] to the heads of their own frames."""
        config = self.config
        expected = (config.window_frames + 2 * config.context_frames) * config.hop_length
        if audio.ndim != 2 or audio.shape[1] != expected:
            raise ValueError(f"audio: expected windows [B, {expected}], got {tuple(audio.shape)}.")
        windows = [audio] if self._tiled is None else audio[:, None]  # the kernel hears each alone, from its samples on
        features = torch.cat([self.features(window) for window in windows])
        return self.forward(features).inner(config.context_frames, config.window_frames)
