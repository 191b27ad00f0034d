"""When notes end by their surroundings: what a note is told from, the network, its loss, and its twin in numpy."""

import math

import numpy as np
import pytest
import torch
from stretto_transcriber.models.onsets_frames.releases import (
    AFTER,
    BEFORE,
    NEIGHBOURS,
    NUM_ENDS_STEPS,
    NUM_INPUTS,
    NUM_STEPS,
    REACH,
    STRIDE,
    ReleaseNetwork,
    ReleaseReader,
    Surroundings,
    end_frames,
    hazard_loss,
)

ONSET, FRAME, KEY = 0, 2, 4


def random_network(seed=0, channels=8):
    torch.manual_seed(seed)
    network = ReleaseNetwork(channels).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def random_notes(count=5, seed=0):
    return np.random.default_rng(seed).random((count, NUM_STEPS, NUM_INPUTS)).astype(np.float32)


def heads_of(frames=BEFORE + AFTER + 1):
    return np.zeros((frames, 5, 88), np.float32)


@torch.inference_mode()
def test_the_reader_gives_what_the_network_gives():
    network, given = random_network(), random_notes()
    torch.nn.init.constant_(network.head.bias, -4.0)
    survival = torch.cumprod(1 - torch.sigmoid(network(torch.from_numpy(given)).double()), 1).numpy()
    reader = ReleaseReader(network)

    assert survival.shape == (5, NUM_ENDS_STEPS, 2)
    assert survival[:, 20].std() > 1e-3
    assert np.allclose(reader.lasting(given), survival, atol=1e-4)
    assert reader.lasting(given[:0]).shape == (0, NUM_ENDS_STEPS, 2)


def test_a_note_is_told_the_same_bytes_again():
    reader, given = ReleaseReader(random_network()), random_notes()
    alone = [reader.lasting(note[None]).tobytes() for note in given]
    together = [note.tobytes() for note in reader.lasting(np.ascontiguousarray(given[::-1]))][::-1]

    assert alone == together and len(set(alone)) == 5


def test_what_is_heard_long_after_the_onset_reaches_the_first_step():
    touched = np.zeros(NUM_STEPS, bool)
    for seed in range(8):  # of some networks a step may be cut off by rectifiers
        given = torch.from_numpy(random_notes(1)).requires_grad_()
        random_network(seed)(given)[0, 0].sum().backward()
        assert given.grad is not None
        touched |= given.grad[0].abs().sum(1).numpy() > 0
    onset = BEFORE // STRIDE

    assert touched[: onset + 60].all()  # all before it and 2.4 s after it
    assert not touched[onset + 64 :].any()


def test_a_network_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="given: expected"):
        random_network()(torch.zeros(1, NUM_STEPS, NUM_INPUTS - 1))


def test_a_note_is_told_of_its_neighbours_where_they_are():
    heads = heads_of()
    heads[BEFORE, ONSET, 60 - 21] = 0.9
    heads[BEFORE + 11, ONSET, 67 - 21] = 0.8  # the second frame of a step
    heads[BEFORE + 30, KEY, 55 - 21] = 0.7
    heads[BEFORE + 8, FRAME, 60 - 21] = 0.6
    given = Surroundings(heads).of_note(0, 60, 64, math.inf)
    onset, key, own = given[:, :NEIGHBOURS], given[:, NEIGHBOURS : 2 * NEIGHBOURS], given[:, 2 * NEIGHBOURS]

    at = BEFORE // STRIDE
    assert given.shape == (NUM_STEPS, NUM_INPUTS)
    assert np.argwhere(onset > 0).tolist() == [[at, REACH], [at + 5, REACH + 7]]
    assert np.argwhere(key > 0).tolist() == [[at + 15, REACH - 5]]
    assert np.nonzero(own)[0].tolist() == [at + 4]


@pytest.mark.parametrize("pitch", [21, 108])
def test_the_ends_of_the_keyboard_have_silent_neighbours(pitch):
    heads = heads_of()
    heads[:, KEY] = 1.0
    key = Surroundings(heads).of_note(0, pitch, 64, 10.0)[:, NEIGHBOURS : 2 * NEIGHBOURS]
    wanted = [21 <= pitch + step <= 108 for step in range(-REACH, REACH + 1)]

    assert (key == np.array(wanted, np.float32)).all()


@pytest.mark.parametrize(("sound_frames", "steps"), [(10.0, 5.0), (11.0, 5.5), (0.5, 0.25), (math.inf, 100.0)])
def test_a_note_is_told_how_long_it_sounds(sound_frames, steps):
    lasts = Surroundings(heads_of()).of_note(0, 60, 64, sound_frames)[:, -5]
    assert lasts.sum() == pytest.approx(steps)
    assert (lasts[: BEFORE // STRIDE] == 0).all()


def test_pitch_and_velocity_are_told():
    around = Surroundings(heads_of())
    first, second = around.of_note(0, 60, 64, 10.0), around.of_note(0, 72, 127, 10.0)
    assert (first[:, -2:] == 0).all()
    assert second[0, -2:].tolist() == pytest.approx([0.5, 127 / 64 - 1])


def test_the_loss_is_the_likelihood_of_the_step_in_which_a_note_ends():
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    hazard = torch.sigmoid(logits)
    ends = torch.tensor([0.4, 3.9, 25.0])
    by_hand = [hazard[0, 0], (1 - hazard[1, :3]).prod() * hazard[1, 3], (1 - hazard[2]).prod()]

    assert float(hazard_loss(logits, ends)) == pytest.approx(float(-torch.stack(by_hand).log().mean()), rel=1e-5)


def test_a_note_ends_where_its_chance_to_last_falls_to_the_level():
    lasts = np.array([1.0, 0.8, 0.4, 0.1], np.float32)
    assert end_frames(lasts, 0.6) == pytest.approx(STRIDE * 2.5)
    assert end_frames(lasts, 0.25) == pytest.approx(STRIDE * 3.5)
    assert end_frames(lasts, 0.05) == math.inf
    assert end_frames(np.array([0.2], np.float32), 0.6) == pytest.approx(STRIDE * 0.5)
