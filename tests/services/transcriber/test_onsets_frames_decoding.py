"""From heads to notes: where notes begin and end, and that portions change nothing."""

import dataclasses

import numpy as np
import pytest
from stretto_transcriber.models.notes import Notes
from stretto_transcriber.models.onsets_frames import NoteDecoder, OnsetsFramesConfig
from stretto_transcriber.models.onsets_frames.decoding import MAX_NOTE_S

CONFIG = OnsetsFramesConfig(onset_threshold=0.5, offset_threshold=0.5, frame_threshold=0.5)
FRAME_S = 0.02
ONSET, OFFSET, FRAME, VELOCITY = range(4)


def silence(frames):
    return np.zeros((frames, 4, 88), np.float32)


def add_peak(heads, head, pitch, time_s, height=1.0):
    """A triangle that reaches 50 ms to either side of `time_s`."""
    times = (np.arange(len(heads)) + 0.5) * FRAME_S
    triangle = height * np.maximum(0, 1 - np.abs(times - time_s) / 0.05)
    heads[:, head, pitch - 21] = np.maximum(heads[:, head, pitch - 21], triangle)


def add_note(heads, pitch, onset_s, offset_s, velocity=64, has_offset=True):
    times = (np.arange(len(heads)) + 0.5) * FRAME_S
    add_peak(heads, ONSET, pitch, onset_s)
    if has_offset:
        add_peak(heads, OFFSET, pitch, offset_s)
    heads[(times >= onset_s) & (times < offset_s), FRAME, pitch - 21] = 0.9
    heads[np.abs(times - onset_s) < 0.06, VELOCITY, pitch - 21] = velocity / 127


def decode(heads, config=CONFIG, cuts=(), ends="sound"):
    decoder = NoteDecoder(config, ends)
    parts = [decoder.push(part.reshape(len(part), heads.shape[1] * 88)) for part in np.split(heads, cuts)]
    return Notes.joined([*parts, decoder.flush()])


def test_a_note_has_its_own_times_between_frames_its_pitch_and_velocity():
    heads = silence(100)
    add_note(heads, 60, 0.433, 1.217, velocity=90)
    notes = decode(heads)

    assert notes.pitch_midi.tolist() == [60]
    assert notes.velocity.tolist() == [90]
    assert notes.onset_s[0] == pytest.approx(0.433, abs=1e-4)
    assert notes.offset_s[0] == pytest.approx(1.217, abs=1e-4)


@pytest.mark.parametrize("time_s", np.arange(0.4, 0.44, 0.005).tolist())
def test_onsets_between_frames_have_no_bias(time_s):
    heads = silence(60)
    add_note(heads, 60, time_s, 0.8)

    assert decode(heads).onset_s[0] == pytest.approx(time_s, abs=1e-4)


def test_frames_alone_are_no_note_and_a_low_onset_neither():
    heads = silence(60)
    heads[10:40, FRAME, 30] = 0.9
    add_peak(heads, ONSET, 70, 0.5, height=0.4)

    assert len(decode(heads)) == 0


def test_a_note_without_an_offset_peak_ends_where_its_frames_end():
    heads = silence(100)
    add_note(heads, 60, 0.4, 1.2, has_offset=False)

    assert decode(heads).offset_s[0] == pytest.approx(1.2, abs=FRAME_S / 2 + 1e-6)


def test_an_offset_peak_within_a_sounding_note_does_not_end_it():
    heads = silence(100)
    add_note(heads, 60, 0.4, 1.6)
    add_peak(heads, OFFSET, 60, 0.8)

    assert decode(heads).offset_s.tolist() == pytest.approx([1.6], abs=1e-4)


def test_one_frame_of_silence_does_not_end_a_note():
    heads = silence(100)
    add_note(heads, 60, 0.4, 1.6)
    heads[50, FRAME, 60 - 21] = 0.0

    assert decode(heads).offset_s.tolist() == pytest.approx([1.6], abs=1e-4)


def test_a_key_struck_again_ends_the_note_before():
    heads = silence(150)
    for onset_s in (0.4, 0.55, 0.7):
        add_note(heads, 60, onset_s, 2.0)
    notes = decode(heads)

    assert notes.onset_s.tolist() == pytest.approx([0.4, 0.55, 0.7], abs=1e-4)
    assert notes.offset_s.tolist() == pytest.approx([0.55, 0.7, 2.0], abs=1e-4)


def test_an_onset_without_frames_is_a_short_note():
    heads = silence(60)
    add_peak(heads, ONSET, 60, 0.41)
    notes = decode(heads)

    assert len(notes) == 1
    assert 0.0 < notes.offset_s[0] - notes.onset_s[0] <= 0.06


def test_a_note_at_the_very_beginning_and_one_at_the_very_end_are_found():
    heads = silence(50)
    add_note(heads, 60, 0.0, 0.3)
    add_note(heads, 64, 0.97, 5.0)
    notes = decode(heads)

    assert notes.pitch_midi.tolist() == [60, 64]
    assert notes.onset_s[0] >= 0.0
    assert notes.onset_s[1] == pytest.approx(0.97, abs=FRAME_S)
    assert notes.offset_s[1] == pytest.approx(1.0, abs=1e-6)


def test_a_note_that_never_ends_is_ended():
    heads = silence(round((MAX_NOTE_S + 4) / FRAME_S))
    add_note(heads, 60, 0.5, 100.0)
    decoder = NoteDecoder(CONFIG)
    notes = decoder.push(heads.reshape(len(heads), 352))

    assert len(notes) == 1
    assert notes.offset_s[0] - notes.onset_s[0] == pytest.approx(MAX_NOTE_S, abs=0.05)
    assert len(decoder.flush()) == 0


def crowded(seed=0, frames=600):
    rng = np.random.default_rng(seed)
    heads = silence(frames)
    for _ in range(120):
        onset_s = rng.uniform(0, frames * FRAME_S)
        add_note(heads, int(rng.integers(40, 80)), onset_s, onset_s + rng.uniform(0.05, 2.0), int(rng.integers(1, 128)))
    return np.clip(heads + rng.normal(0, 0.05, heads.shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5], [300], list(range(7, 600, 7)), [0, 0, 599]])
def test_portions_give_the_notes_of_the_whole(cuts):
    heads = crowded()
    whole, parts = decode(heads), decode(heads, cuts=cuts)

    assert len(whole) > 80
    for name in ("onset_s", "offset_s", "pitch_midi", "velocity"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))


def test_complete_s_never_falls_and_no_note_begins_before_it():
    heads, decoder, said = crowded(1), NoteDecoder(CONFIG), 0.0
    for part in np.array_split(heads, 40):
        found = decoder.push(part.reshape(len(part), 352))
        assert (found.onset_s >= said).all()
        assert decoder.complete_s >= said
        said = decoder.complete_s
    assert said > 5.0
    assert (decoder.flush().onset_s >= said).all()


def test_what_is_kept_does_not_grow():
    heads, decoder = crowded(2), NoteDecoder(CONFIG)
    sizes = []
    for _ in range(6):
        decoder.push(heads.reshape(len(heads), 352))
        sizes.append(decoder._kept.shape[0])
    assert sizes == [4] * 6
    assert len(decoder._sounding) <= 88


def test_hard_labels_leave_onsets_on_their_frames():
    config = dataclasses.replace(CONFIG, regression_s=0.0, frame_centre=0.0)
    heads = silence(50)
    heads[[10, 11], ONSET, 39] = [0.9, 0.6]
    heads[10:20, FRAME, 39] = 0.9

    assert decode(heads, config).onset_s.tolist() == pytest.approx([0.2])


def test_frames_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="frames: expected"):
        NoteDecoder(CONFIG).push(np.zeros((3, 88), np.float32))


KEYED = dataclasses.replace(CONFIG, has_key_head=True, key_threshold=0.3)


def add_key(heads, pitch, onset_s, release_s, height=0.4):
    """`heads` with keys, the one of `pitch` down for a time."""
    keys = np.zeros((len(heads), 1, 88), np.float32) if heads.shape[1] == 4 else heads[:, 4:]
    times = (np.arange(len(heads)) + 0.5) * FRAME_S
    keys[(times >= onset_s) & (times < release_s), 0, pitch - 21] = height
    return np.concatenate([heads[:, :4], keys], 1)


def test_a_note_ends_with_its_sound_or_with_its_key_as_is_asked():
    heads = silence(150)
    add_note(heads, 60, 0.41, 2.21)
    add_note(heads, 64, 0.61, 1.01)
    heads = add_key(add_key(heads, 60, 0.41, 0.8), 64, 0.61, 1.0)
    sound, key = decode(heads, KEYED), decode(heads, KEYED, ends="key")

    assert sound.offset_s.tolist() == pytest.approx([2.21, 1.01], abs=1e-3)
    assert key.offset_s.tolist() == pytest.approx([0.8, 1.0], abs=1e-3)  # no offset of the sound moves it
    assert key.onset_s.tolist() == sound.onset_s.tolist()
    assert key.velocity.tolist() == sound.velocity.tolist()


def test_keys_have_a_threshold_of_their_own():
    heads = silence(100)
    add_note(heads, 60, 0.41, 1.61)
    heads = add_key(heads, 60, 0.41, 1.21, height=0.4)

    assert decode(heads, KEYED, ends="key").offset_s[0] == pytest.approx(1.2, abs=0.011)
    deaf = dataclasses.replace(KEYED, key_threshold=0.45)
    assert decode(heads, deaf, ends="key").offset_s[0] < 0.5
    assert decode(heads, deaf).offset_s[0] == pytest.approx(1.61, abs=1e-3)


FALLING = dataclasses.replace(KEYED, key_threshold=0.6, held_key_threshold=0.3)


@pytest.mark.parametrize(
    ("height", "since_s", "held", "end_s"),
    [
        (0.65, 0.41, 0.3, 2.41),
        (0.47, 0.41, 0.3, 0.44),  # below the threshold of a key just struck
        (0.47, 1.01, 0.3, 2.41),  # which has fallen to .42 by then
        (0.47, 0.61, 0.3, 0.61),  # and here to .54 only
        (0.31, 1.45, 0.3, 2.41),
        (0.29, 1.45, 0.3, 1.45),  # and no further
        (0.47, 1.01, None, 1.01),
    ],
)
def test_a_key_that_is_held_needs_less_than_one_just_struck(height, since_s, held, end_s):
    heads = silence(150)
    add_note(heads, 60, 0.41, 2.5)
    heads = add_key(heads, 60, 0.41, 2.41, 0.65)
    times = (np.arange(len(heads)) + 0.5) * FRAME_S
    heads[(times >= since_s) & (times < 2.41), 4, 60 - 21] = height
    config = dataclasses.replace(FALLING, held_key_threshold=held)

    assert decode(heads, config, ends="key").offset_s[0] == pytest.approx(end_s, abs=0.011)
    assert decode(heads, config).offset_s[0] == pytest.approx(2.5, abs=0.011)


def test_portions_of_keys_change_nothing():
    heads = silence(150)
    add_note(heads, 60, 0.41, 2.21)
    add_note(heads, 60, 2.31, 2.61)
    heads = add_key(add_key(heads, 60, 0.41, 0.8, 0.65), 60, 2.31, 2.5, 0.65)
    heads[30:, 4] *= 0.85  # enough for a key that was held since the first cut
    whole, parts = (decode(heads, FALLING, cuts, "key") for cuts in ((), (20, 21, 39, 41, 120)))

    assert whole.offset_s.tolist() == parts.offset_s.tolist() and len(whole) == 2
    assert whole.offset_s[0] == pytest.approx(0.8, abs=0.011)


def test_a_model_that_hears_no_keys_refuses_to_tell_their_ends():
    with pytest.raises(ValueError, match="Ask for 'sound'"):
        NoteDecoder(CONFIG, "key")
