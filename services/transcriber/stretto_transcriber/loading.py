"""Weights to verified, built models; an explicit registry for each kind. Knows nothing of requests.

Legend: N windows, S samples of a window with its contexts, T frames, P numbers that a model gives of each frame.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from stretto_shared import weights
from stretto_shared.dsp.window_grid import WindowGrid
from stretto_shared.engine.stage_loading import architecture_of
from stretto_shared.errors import InvalidInput, NotFound, NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.nn.heap import giving_memory_back
from stretto_shared.nn.lowbit import load_bands
from stretto_shared.nn.lowbit.lattice import ARITHMETIC
from stretto_shared.score import Score
from torch import Tensor

from stretto_transcriber.models.beat_tracker.decoding import detect_onsets, track_beats
from stretto_transcriber.models.beat_tracker.weights import build_beat_tracker
from stretto_transcriber.models.beats import TrackedBeats
from stretto_transcriber.models.engraving import engrave, to_musicxml, to_score
from stretto_transcriber.models.hearing import BeatListener, NoteDecoder, NoteListener
from stretto_transcriber.models.notes import NoteEnds
from stretto_transcriber.models.onsets_frames import build_onsets_frames, note_listener

_SEED = 20_021

L = TypeVar("L", NoteListener, BeatListener)
Build = Callable[[weights.ResolvedWeights], L]
"""Verified weights to what hears; RuntimeError, TypeError or ValueError where weights and config do not fit."""


def _build_onsets_frames(resolved: weights.ResolvedWeights) -> NoteListener:
    return note_listener(build_onsets_frames(resolved.config["config"], weights.load_tensors(resolved)))


def _build_beat_tracker(resolved: weights.ResolvedWeights) -> BeatListener:
    tracker = build_beat_tracker(resolved.config["config"], weights.load_tensors(resolved))

    def hear(windows: Tensor) -> Tensor:
        heard = tracker.window_activations(windows)
        return torch.stack([heard.beat, heard.downbeat, heard.onset], -1)

    return BeatListener(tracker.config, tracker, hear, partial(_track, tracker.config.frame_rate_hz))


def _track(frame_rate_hz: float, frames: NDArray[np.float32]) -> TrackedBeats:
    """Of activations [T, 3] the beats, each later than the one before, and the onsets."""
    beat, downbeat, onset = frames.T
    beats = track_beats(beat, downbeat, frame_rate_hz)
    is_later = np.diff(np.maximum.accumulate(beats.beat_s), prepend=-1.0) > 0  # two may climb to one peak
    return TrackedBeats(
        beats.beat_s[is_later],
        beats.beat_in_bar[is_later],
        beats.tempo_bpm[is_later],
        beats.numerator,
        detect_onsets(onset, frame_rate_hz),
    )


# By `architecture` of `config.json`.
NOTE_ARCHITECTURES: Mapping[str, Build[NoteListener]] = {"OnsetsFrames": _build_onsets_frames}
BEAT_ARCHITECTURES: Mapping[str, Build[BeatListener]] = {"BeatTracker": _build_beat_tracker}


@dataclass(frozen=True, eq=False)
class LoadedListener:
    """A model ready to run; `hear` belongs on its model thread.

    Args:
        info: What the service says of it.
        listener: What hears.
        max_joined: Windows that may share a pass: so many were tried at load.
    """

    info: ModelInfo
    listener: NoteListener | BeatListener
    max_joined: int = 1

    @property
    def grid(self) -> WindowGrid:
        return grid_of(self.listener)

    @property
    def sample_rate_hz(self) -> int:
        return self.listener.config.sample_rate_hz

    @property
    def window_s(self) -> float:
        """Seconds that a window gives."""
        return self.grid.window_frames * self.grid.hop_length / self.sample_rate_hz

    @torch.inference_mode()
    def hear(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mono windows [N, S] to what is heard in their own frames [N, T, P].

        Raises:
            RuntimeError: If the model gives NaN: it is broken, which is nobody's input.
        """
        heard = self.listener.hear(torch.from_numpy(samples))
        if bool(heard.isnan().any()):
            raise RuntimeError(f"model {self.info.model_id} gave what is no number")
        numbers: NDArray[np.float32] = heard.float().numpy()
        return numbers


@dataclass(frozen=True, eq=False)
class LoadedTranscriber(LoadedListener):
    """A model that hears notes, ready to run."""

    listener: NoteListener

    def new_decoder(self, ends: NoteEnds) -> NoteDecoder:
        """What makes notes of one stream's frames.

        Raises:
            InvalidInput: If the model does not hear those ends.
        """
        if ends == "sound":
            return self.listener.new_decoder()
        if self.listener.new_key_decoder is None:
            raise InvalidInput(
                "config.ends", f"model {self.info.name!r} hears when sounds end, not keys. Ask for sounds."
            )
        return self.listener.new_key_decoder()


@dataclass(frozen=True, eq=False)
class LoadedTracker(LoadedListener):
    """A model that hears beats, ready to run."""

    listener: BeatListener

    def track(self, frames: NDArray[np.float32]) -> TrackedBeats:
        """The beats of a recording of which this was heard [T, P]; takes a while for a long one."""
        return self.listener.track(frames)


def grid_of(listener: NoteListener | BeatListener) -> WindowGrid:
    """Where the windows lie that a model hears."""
    config = listener.config
    return WindowGrid(config.hop_length, config.window_frames, config.context_frames, config.context_frames)


def list_names(weights_dir: Path) -> list[str]:
    """The models that `default` finds in `weights_dir`, sorted; none where there is none."""
    known = {*NOTE_ARCHITECTURES, *BEAT_ARCHITECTURES}
    return sorted(
        path.parent.name
        for path in weights_dir.glob(f"*/{weights.CONFIG_FILE}")
        if json.loads(path.read_text(encoding="utf-8")).get("architecture") in known
    )


def tracks_beats(name: str, source: str, weights_dir: Path) -> bool:
    """Whether a model is one that hears beats; one that is not there is not, and fails when it is loaded."""
    return architecture_of(name, source, weights_dir) in BEAT_ARCHITECTURES


def load_transcriber(
    name: str,
    source: str,
    *,
    weights_dir: Path,
    is_default: bool = False,
    max_joined: int = 1,
    native_kernel_dir: Path | None = None,
) -> LoadedTranscriber:
    """Find, verify and build one model that hears notes.

    One that hears in bfloat16 has a digest of its own, and says so after its source: a receipt tells both apart.

    Args:
        name: The name that requests use.
        source: `default`, `hf://org/name@revision` or `file:///folder`.
        weights_dir: Where `default` looks.
        is_default: Whether an empty `model` field selects it.
        max_joined: Windows that may share a pass where a trial finds that they stay as alone.
        native_kernel_dir: Where the kernel for bfloat16 is compiled to; None computes in float32 with torch alone, and
            so does a machine that cannot run it.

    Raises:
        InvalidInput: If the name or the source is malformed, or the weights are pickled.
        NotFound: If the architecture is not in the registry.
        NotReady: If a file is missing or damaged, or its tensors do not fit its config.
    """
    with giving_memory_back():
        resolved, listener = _built(name, source, weights_dir, NOTE_ARCHITECTURES)
        kernel = None if native_kernel_dir is None or listener.use_kernel is None else load_bands(native_kernel_dir)
        info = _info(resolved, listener, is_default=is_default)
        if kernel is not None and listener.use_kernel is not None and listener.use_kernel(kernel):
            arithmetic = f"bfloat16 {kernel.rounded_as(ARITHMETIC)}"
            digest = hashlib.sha256(f"{info.digest_sha256} {arithmetic}".encode()).hexdigest()
            info = replace(info, digest_sha256=digest, source=f"{info.source}#bfloat16")
        return LoadedTranscriber(info, listener, find_max_joined(listener, max_joined))


def load_tracker(
    name: str, source: str, *, weights_dir: Path, is_default: bool = False, max_joined: int = 1
) -> LoadedTracker:
    """Find, verify and build one model that hears beats; arguments and errors are those of `load_transcriber`."""
    with giving_memory_back():
        resolved, listener = _built(name, source, weights_dir, BEAT_ARCHITECTURES)
        info = _info(resolved, listener, is_default=is_default)
        return LoadedTracker(info, listener, find_max_joined(listener, max_joined))


@torch.inference_mode()
def find_max_joined(listener: NoteListener | BeatListener, limit: int) -> int:
    """The most windows, at most `limit`, that get the same numbers in company as alone; so do all lesser numbers.

    A kernel may sum in another order when more rows stand beside one, and then a stream's notes would depend on its
    company (`docs/adr/0008`): tried, not believed.
    """
    if limit == 1:
        return 1
    generator = torch.Generator().manual_seed(_SEED)
    levels = torch.logspace(-3, 0, limit)[:, None]  # neighbours of very different loudness
    samples = torch.randn(limit, grid_of(listener).num_samples, generator=generator) * levels
    alone = [listener.hear(samples[:1])]
    for count in range(2, limit + 1):
        alone.append(listener.hear(samples[count - 1 : count]))
        if not torch.equal(listener.hear(samples[:count].flip(0)), torch.cat(alone[::-1])):
            return count - 1
    return limit


def _built(
    name: str, source: str, weights_dir: Path, registry: Mapping[str, Build[L]]
) -> tuple[weights.ResolvedWeights, L]:
    resolved = weights.resolve(source, name=name, default_dir=weights_dir)
    word = str(resolved.config.get("architecture"))
    if word not in registry:
        known = ", ".join(sorted([*NOTE_ARCHITECTURES, *BEAT_ARCHITECTURES])) or "no architecture yet"
        raise NotFound("model", f"expected a model of {known}, got {word!r} from {source!r}. Name another source.")
    try:
        listener = registry[word](resolved)
    except (KeyError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise NotReady(
            f"Weights of {name!r} from {source!r} do not fit together: {error} Restore them.", reason="WEIGHTS_DAMAGED"
        ) from error
    listener.module.eval().requires_grad_(False)
    return resolved, listener


def _info(resolved: weights.ResolvedWeights, listener: NoteListener | BeatListener, *, is_default: bool) -> ModelInfo:
    stated = int(resolved.config.get("parameter_count", 0))  # with the statistics of its norms
    return ModelInfo(
        name=resolved.name,
        service="transcriber",
        digest_sha256=resolved.digest_sha256,
        licence=resolved.licence,
        score=resolved.score,
        parameter_count=stated or sum(tensor.numel() for tensor in listener.module.parameters()),
        is_default=is_default,
        source=resolved.source,
        sample_rate_hz=listener.config.sample_rate_hz,
    )


def engrave_score(performance: Score, title: str) -> tuple[Score, bytes]:
    """A performance whose beats are known, as the score as written and as MusicXML."""
    engraved = engrave(performance)
    return to_score(engraved), to_musicxml(engraved, title)
