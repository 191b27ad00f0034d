"""Two halves of a network at once: the bytes of one after the other, on two threads, and never while training."""

from __future__ import annotations

import threading

import pytest
import torch
from stretto_transcriber.models.onsets_frames import OnsetsFrames, OnsetsFramesConfig, beside
from stretto_transcriber.models.onsets_frames.beside import at_once
from stretto_transcriber.models.onsets_frames.spectrum import BINS_PER_SEMITONE, HARMONIC_WINDOWS, NUM_SEMITONES
from torch import Tensor

NUM_FEATURES = len(HARMONIC_WINDOWS) * NUM_SEMITONES * BINS_PER_SEMITONE


def where(x: Tensor) -> Tensor:
    """The thread that this runs on, and how many threads its operations have."""
    return torch.tensor([threading.get_ident(), torch.get_num_threads()])


def test_in_inference_the_halves_run_on_two_threads_of_equal_settings() -> None:
    with torch.inference_mode():
        (first, first_threads), (second, second_threads) = at_once(where, where, torch.zeros(1))
    assert second == threading.get_ident() and first != second
    assert first_threads == second_threads == torch.get_num_threads()


def test_while_gradients_are_kept_both_run_here() -> None:
    (first, _), (second, _) = at_once(where, where, torch.zeros(1))
    assert first == second == threading.get_ident()


@pytest.mark.parametrize("failing", [0, 1])
@torch.inference_mode()
def test_the_error_of_either_half_is_raised(failing: int) -> None:
    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("no kernel")

    halves = [where, where]
    halves[failing] = fail
    with pytest.raises(RuntimeError, match="no kernel"):
        at_once(halves[0], halves[1], torch.zeros(1))
    assert len(at_once(where, where, torch.zeros(1))) == 2  # and the thread is there for the next


def test_a_network_gives_the_bytes_of_one_half_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = OnsetsFramesConfig(
        stem_channels=4, fold_channels=8, branch_channels=8, lstm_size=8, combined_lstm_size=4, window_frames=50,
        context_frames=25, has_key_head=True,
    )  # fmt: skip
    model, features = OnsetsFrames(config).eval(), torch.randn(2, 60, NUM_FEATURES)
    with torch.inference_mode():
        together = model(features)
        monkeypatch.setattr(beside.torch, "is_inference_mode_enabled", lambda: False)
        apart = model(features)
    assert together.onset.abs().sum() > 0
    for name in ("onset", "frame", "velocity", "key"):
        assert torch.equal(getattr(together, name), getattr(apart, name)), name
