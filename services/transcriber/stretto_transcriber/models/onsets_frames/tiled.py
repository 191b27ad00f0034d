"""`TiledHarmonic`: a trained `HarmonicNetwork` by the native kernel, in bfloat16.

The same layers with the same weights, folded and rounded: products are of bfloat16 with sums in float32, cells of LSTMs
stay in float32, and layers give each other bfloat16. A window is heard by itself, so company changes nothing. Where
there is no kernel, the network itself hears.

Legend: B batch, T frames, P semitones or pitches, F numbers of a frame.
"""

from __future__ import annotations

import torch
from stretto_shared.nn.lowbit import NativeKernel
from stretto_shared.nn.lowbit.lattice import STRETCH, Lattice, Layer, ShiftedSum, Strands, run_layers
from torch import Tensor, nn

from stretto_transcriber.models.onsets_frames.beside import both
from stretto_transcriber.models.onsets_frames.config import NUM_PITCHES
from stretto_transcriber.models.onsets_frames.harmonic import HarmonicBranch, HarmonicNetwork, NormalisedConv
from stretto_transcriber.models.onsets_frames.heads import Heads
from stretto_transcriber.models.onsets_frames.spectrum import BINS_PER_SEMITONE, HARMONIC_WINDOWS, NUM_SEMITONES

_NUM_BANDS = BINS_PER_SEMITONE * NUM_SEMITONES


class TiledBranch:
    """Semitones to what is known of each pitch at each time, and what linear heads say of that.

    Args:
        branch: The trained branch.
        heads: That read what is known, side by side.
        kernel: One that has bands.
    """

    def __init__(self, branch: HarmonicBranch, heads: list[nn.Linear], kernel: NativeKernel) -> None:
        self._kernel = kernel
        weight, bias = branch.harmonics.folded()
        by_shift = weight.reshape(len(weight), len(branch.shifts), -1)  # [N, S, C]
        by_pitch = bias + branch.register[0, :, 0].t()
        self.shifts = branch.shifts
        self._harmonics = ShiftedSum(by_shift, by_pitch, [(0, shift) for shift in self.shifts], relu=True)
        self._others = [_shifted(conv) for conv in (branch.near, branch.octaves, branch.later)]
        self._strands = Strands(branch.lstm)
        self._heads = _joined(heads, branch.lstm.hidden_size, self._strands.width)

    def known(self, semitones: Lattice) -> Tensor:
        """What the heads say [B, T, P, their outputs]."""
        shape = semitones.shape[0], semitones.shape[1], NUM_PITCHES, self._harmonics.width
        x = [_between(shape, self._others[0])]
        layers, lag = [Layer(self._harmonics, semitones, x[0])], 0
        for sums, then in zip(self._others, [*self._others[1:], None], strict=True):
            x.append(Lattice(shape, above=1) if then is None else _between(shape, then))
            lag += max(frames for frames, _ in sums.shifts)
            layers.append(Layer(sums, x[-2], x[-1], x[-2], lag))
        run_layers(self._kernel, layers)
        known = Lattice((*shape[:3], 2 * self._strands.width))
        self._strands.run(self._kernel, x[-1], known)
        return _plain(self._kernel, self._heads, known)


class TiledHarmonic:
    """Features to probabilities, as `OnsetsFrames.forward`.

    Args:
        network: In eval mode; later changes of its weights are not seen.
        kernel: One that has bands.
    """

    def __init__(self, network: HarmonicNetwork, kernel: NativeKernel) -> None:
        self._kernel = kernel
        self._stem, self._fold = _shifted(network.stem), _shifted(network.fold)
        self._struck = TiledBranch(network.onset_branch, [network.onset_head, network.velocity_head], kernel)
        heads = [network.activation, *([] if network.offset_head is None else [network.offset_head])]
        self._sounding = TiledBranch(network.sustain_branch, heads, kernel)
        self._num_activations, self._has_offset = network.activation.out_features, network.offset_head is not None
        self._combined = Strands(network.combined)
        heads = [network.frame_head, *([] if network.key_head is None else [network.key_head])]
        self._heads = _joined(heads, network.combined.hidden_size, self._combined.width)
        self._num_heard, self._has_key = network.combined.input_size, network.key_head is not None

    def __call__(self, features: Tensor) -> Heads:
        """Log spectra [B, T, F] to probabilities."""
        heard = [self._hear(window) for window in features[:, None]]
        parts = zip(*((each.onset, each.offset, each.frame, each.velocity, each.key) for each in heard), strict=True)
        joined = [None if part[0] is None else torch.cat(part) for part in parts]
        return Heads(*joined)  # type: ignore[arg-type]

    def _hear(self, features: Tensor) -> Heads:
        semitones = self._semitones(features)
        struck, sounding = both(lambda: self._struck.known(semitones), lambda: self._sounding.known(semitones))
        onset, velocity = torch.sigmoid(struck[..., 0]), torch.sigmoid(struck[..., 1])
        offset = torch.sigmoid(sounding[..., self._num_activations]) if self._has_offset else None
        combined = self._known(sounding[..., : self._num_activations], onset, offset)
        heads = torch.sigmoid(_plain(self._kernel, self._heads, combined))
        return Heads(onset, offset, heads[..., 0], velocity, heads[..., 1] if self._has_key else None)

    def _semitones(self, features: Tensor) -> Lattice:
        shape = features.shape[0], features.shape[1]
        bands = _between((*shape, _NUM_BANDS, len(HARMONIC_WINDOWS)), self._stem, beyond=11, is_whole=True)
        bands.values.copy_(features.reshape(*shape, -1, _NUM_BANDS).transpose(-1, -2))
        fine = _between((*shape, _NUM_BANDS, self._stem.width), self._fold)
        reach = self._struck.shifts
        semitones = Lattice((*shape, NUM_SEMITONES, self._fold.width), below=-min(reach), above=max(reach))
        run_layers(self._kernel, [Layer(self._stem, bands, fine), Layer(self._fold, fine, semitones, lag=1)])
        return semitones

    def _known(self, activations: Tensor, onset: Tensor, offset: Tensor | None) -> Lattice:
        shape = *onset.shape[:2], NUM_PITCHES
        heard = Lattice((*shape, self._combined.padded_inputs))
        numbers = self._num_activations
        heard.values[..., :numbers] = activations
        for place, events in enumerate([each for each in (onset, offset) if each is not None]):
            heard.values[..., numbers + place] = events
        known = Lattice((*shape, 2 * self._combined.width))
        both(
            lambda: self._combined.run(self._kernel, heard, known, range(1)),
            lambda: self._combined.run(self._kernel, heard, known, range(1, 2)),
        )
        return known


def fits(network: HarmonicNetwork) -> bool:
    """Whether the layers that give each other numbers have whole tiles of channels."""
    config = network.config
    return all(size % 16 == 0 for size in (config.stem_channels, config.fold_channels, config.branch_channels))


def _shifted(conv: NormalisedConv) -> ShiftedSum:
    weight, bias = conv.folded()
    height, width = weight.shape[2:]
    up, across = conv.conv.dilation
    high, wide = map(int, conv.conv.padding)
    shifts = [(i * up - high, j * across - wide) for i in range(height) for j in range(width)]
    return ShiftedSum(weight.flatten(2).transpose(1, 2), bias, shifts, relu=True, stride=conv.conv.stride[1])


def _joined(heads: list[nn.Linear], hidden: int, width: int) -> ShiftedSum:
    """Linear layers side by side, of the outputs of an LSTM whose directions have room for `width` units."""
    weight = torch.cat([head.weight for head in heads]).detach()
    whole = weight.new_zeros(len(weight), 1, 2 * width)
    whole[:, 0, :hidden], whole[:, 0, width : width + hidden] = weight[:, :hidden], weight[:, hidden:]
    return ShiftedSum(whole, torch.cat([head.bias for head in heads]), [(0, 0)])


def _plain(kernel: NativeKernel, sums: ShiftedSum, x: Lattice) -> Tensor:
    out = torch.empty(*x.shape[:3], sums.width)
    run_layers(kernel, [Layer(sums, x, out)])
    return out


def _between(shape: tuple[int, int, int, int], sums: ShiftedSum, beyond: int = 1, *, is_whole: bool = False) -> Lattice:
    """What a layer reads, with room for its shifts and what its last step reads too much; as few frames as it needs."""
    frames, columns = zip(*sums.shifts, strict=True)
    kept = 0 if is_whole else STRETCH + max(frames) - min(frames)
    return Lattice(shape, below=-min(columns), above=max(columns) + beyond, kept=kept)
