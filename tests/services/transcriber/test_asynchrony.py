"""How exactly chords are struck together: pairs of onsets, counted where they are, the same from wherever one looks."""

import numpy as np
import pytest
from stretto_transcriber.models.onsets_frames import NoteDecoder, OnsetsFramesConfig
from stretto_transcriber.models.onsets_frames.asynchrony import EDGE, PARTS, PastAsynchronies, asynchronies

CONFIG = OnsetsFramesConfig(onset_threshold=0.3)


def struck(places, frames=400):
    """The onset head of notes at places between frames, each of a pitch of its own."""
    onsets = np.zeros((frames, 88), np.float32)
    for pitch, place in enumerate(places):
        onsets[:, pitch] = np.maximum(0, 1 - np.abs(np.arange(frames) - place) / 2.5)
    return onsets


def test_pairs_are_counted_in_the_frame_of_their_first_onset():
    found = asynchronies(struck([50.0, 50.5, 51.0, 90.0, 200.0, 201.9, 300.0, 302.1]), 0.3)
    at = np.nonzero(found[:, 0])[0]

    assert found.shape == (400, 2)
    assert at[0] == 50 and at[-1] == 200 and found[:, 0].sum() == 3  # a chord of three, and one of two
    assert found[:190].sum(0).tolist() == [2, pytest.approx(PARTS, abs=3)]  # .5 and .5 frames
    assert found[200].tolist() == [1, pytest.approx(1.9 * PARTS, abs=3)]  # 2.1 frames are no chord, nor is one note


def test_the_onsets_are_those_of_the_decoder():
    rng = np.random.default_rng(0)
    places = np.sort(rng.uniform(5, 390, 60))
    onsets = struck(places)
    heads = np.zeros((400, CONFIG.num_heads, 88), np.float32)
    heads[:, 0], heads[:, 2] = onsets, 0.9
    decoder = NoteDecoder(CONFIG)
    decoder.push(heads.reshape(400, -1))
    onset_s = np.sort(decoder.flush().onset_s)
    apart = np.diff(onset_s) * CONFIG.frame_rate_hz
    together = apart[apart < 2]

    count, parts = asynchronies(onsets, 0.3).sum(0).tolist()
    assert count == len(together) > 5
    assert parts == pytest.approx(together.sum() * PARTS, abs=count)


def test_they_are_the_same_wherever_the_frames_begin_and_end():
    onsets = np.random.default_rng(1).random((300, 88)).astype(np.float32)
    whole = asynchronies(onsets, 0.7)
    for start, end in ((1, 300), (17, 200), (100, 150)):
        part = asynchronies(onsets[start:end], 0.7)
        assert part[:, 0].sum() > 20
        assert np.array_equal(part[EDGE:-EDGE], whole[start + EDGE : end - EDGE])


@pytest.mark.parametrize("reach", [0, 30, 1000])
def test_what_was_forgotten_is_known_as_far_back_as_asked(reach):
    silence = np.zeros((EDGE, 88), np.float32)
    onsets = np.concatenate([silence, np.random.default_rng(2).random((400, 88)).astype(np.float32)])
    whole = asynchronies(onsets, 0.7)
    past, first = PastAsynchronies(reach), 0
    for end, forgotten in ((60, 20), (90, 0), (200, 120), (400, 3)):
        kept = asynchronies(onsets[first:end], 0.7)
        joined, before = past.joined(kept), past.num_before
        assert before == min(first, reach) and len(joined) == before + end - first
        assert np.array_equal(joined[:-EDGE], whole[first - before : end - EDGE])
        past.forget(kept, forgotten)
        first += forgotten


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_too_few_frames_have_no_chords(frames):
    assert (asynchronies(np.ones((frames, 88), np.float32), 0.3) == 0).all()


def test_silence_has_no_chords():
    assert (asynchronies(np.zeros((50, 88), np.float32), 0.3) == 0).all()
