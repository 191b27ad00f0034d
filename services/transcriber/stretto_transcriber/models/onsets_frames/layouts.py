"""An `OnsetsFrames` of a checkpoint's tensors: of this house's, or of the published PyTorch version's state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stretto_transcriber.models.onsets_frames.config import NUM_PITCHES, OnsetsFramesConfig, maestro_config
from stretto_transcriber.models.onsets_frames.network import OnsetsFrames

_COUNTER = "num_batches_tracked"


def build_onsets_frames(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> OnsetsFrames:
    """The network in eval mode, float32 whatever the tensors are. Counters of batches may be missing.

    Raises:
        ValueError: If a tensor is missing, not known, or of another shape.
    """
    module = OnsetsFrames(OnsetsFramesConfig(**config))
    own = module.state_dict()
    given = {name: value.float() for name, value in tensors.items() if not name.endswith(_COUNTER)}
    wanted = {name for name in own if not name.endswith(_COUNTER)}
    if given.keys() != wanted:
        missing, unknown = sorted(wanted - given.keys()), sorted(given.keys() - wanted)
        raise ValueError(f"tensors: {len(missing)} missing ({missing[:3]}), {len(unknown)} unknown ({unknown[:3]}).")
    for name, value in given.items():
        if value.shape != own[name].shape:
            raise ValueError(f"{name}: expected shape {tuple(own[name].shape)}, got {tuple(value.shape)}.")
    module.load_state_dict(given, strict=False)
    return module.eval()


def from_published(state: Mapping[str, Tensor]) -> OnsetsFrames:
    """The network of a state dict of jongwook/onsets-and-frames (`onset_stack.0.cnn.0.weight` and so on).

    Its sizes are those of the tensors; its grid is the published one.

    Raises:
        ValueError: If it is no such state dict.
    """
    first, fc = state.get("onset_stack.0.cnn.0.weight"), state.get("onset_stack.0.fc.0.weight")
    lstm, combined = state.get("onset_stack.1.rnn.weight_hh_l0"), state.get("combined_stack.0.rnn.weight_hh_l0")
    if first is None or fc is None or lstm is None or combined is None:
        raise ValueError("state: expected onset_stack.0.cnn.0.weight and its like, got another network's.")
    has_offset = "offset_stack.0.fc.0.weight" in state
    if state["combined_stack.0.rnn.weight_ih_l0"].shape[1] != NUM_PITCHES * (3 if has_offset else 2):
        raise ValueError("combined_stack.0.rnn.weight_ih_l0: expected the heads of 88 keys as its input.")
    config = vars(maestro_config()) | {
        "conv_channels": first.shape[0],
        "fc_size": fc.shape[0],
        "lstm_size": lstm.shape[1],
        "combined_lstm_size": combined.shape[1],
        "has_offset_head": has_offset,
    }
    return build_onsets_frames(config, {f"network.{name}": value for name, value in state.items()})
