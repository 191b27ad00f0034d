"""`ReleaseDecoder`: the notes of `NoteDecoder` with the ends that a network of releases tells, in any portions."""

import dataclasses

import numpy as np
import pytest
import torch
from stretto_transcriber.models.notes import Notes
from stretto_transcriber.models.onsets_frames import NoteDecoder, OnsetsFrames, OnsetsFramesConfig, decoder_of
from stretto_transcriber.models.onsets_frames.release_decoding import ReleaseDecoder
from stretto_transcriber.models.onsets_frames.releases import (
    AFTER,
    BEFORE,
    NUM_ENDS_STEPS,
    ReleaseNetwork,
    ReleaseReader,
)

CONFIG = OnsetsFramesConfig(
    onset_threshold=0.5, offset_threshold=1.1, frame_threshold=0.5, has_key_head=True, release_channels=8,
    key_level=0.5, sound_level=0.3,
)  # fmt: skip
FRAME_S = 0.02
COLUMNS = ("onset_s", "offset_s", "pitch_midi", "velocity")


class Told:
    """A reader whose every key is released after some steps and every sound after others."""

    def __init__(self, key_steps, sound_steps=NUM_ENDS_STEPS):
        self.lasts = np.ones((NUM_ENDS_STEPS, 2), np.float32)
        self.lasts[key_steps:, 0] = 0.0
        self.lasts[sound_steps:, 1] = 0.0
        self.given = []

    def lasting(self, given):
        self.given += list(given)
        return np.stack([self.lasts] * len(given))


def crowded(seed=0, frames=900, num_notes=120):
    rng = np.random.default_rng(seed)
    heads = rng.uniform(0, 0.2, (frames, 5, 88)).astype(np.float32)
    times = (np.arange(frames) + 0.5) * FRAME_S
    for _ in range(num_notes):
        onset_s, lasts_s, pitch = rng.uniform(0, frames * FRAME_S), rng.uniform(0.05, 6.0), int(rng.integers(20, 60))
        peak = np.maximum(0, 1 - np.abs(times - onset_s) / 0.05)
        heads[:, 0, pitch] = np.maximum(heads[:, 0, pitch], peak)
        heads[(times >= onset_s) & (times < onset_s + lasts_s), 2, pitch] = 0.9
        heads[(times >= onset_s) & (times < onset_s + lasts_s / 2), 4, pitch] = 0.9
    return heads


def random_reader(seed=0):
    torch.manual_seed(seed)
    network = ReleaseNetwork(8)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    return ReleaseReader(network)


def decode(decoder, heads, cuts=()):
    parts = [decoder.push(part.reshape(len(part), 440)) for part in np.split(heads, cuts)]
    return Notes.joined([*parts, decoder.flush()])


@pytest.mark.parametrize("ends", ["key", "sound"])
@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5], [400, 800], list(range(7, 900, 7)), [0, 0, 899], [250]])
def test_portions_give_the_notes_of_the_whole(cuts, ends):
    heads, reader = crowded(), random_reader()
    whole, parts = (decode(ReleaseDecoder(CONFIG, reader, ends), heads, some) for some in ((), cuts))
    untold = decode(NoteDecoder(CONFIG), heads)

    assert len(whole) > 80
    for name in COLUMNS:
        assert getattr(whole, name).tobytes() == getattr(parts, name).tobytes()
    assert np.mean(whole.offset_s != untold.offset_s) > 0.3  # the network has its say


def test_only_ends_are_told_and_never_beyond_the_sound():
    heads = crowded(1)
    sounds, told = decode(NoteDecoder(CONFIG), heads), decode(ReleaseDecoder(CONFIG, Told(10), "key"), heads)

    for name in ("onset_s", "pitch_midi", "velocity"):
        assert np.array_equal(getattr(sounds, name), getattr(told, name))
    wanted = np.minimum(sounds.offset_s, sounds.onset_s + (10 + 0.5) * 2 * FRAME_S)
    assert told.offset_s == pytest.approx(wanted, abs=1e-6)
    assert (wanted < sounds.offset_s).any() and (wanted == sounds.offset_s).any()


def test_keys_and_sounds_have_levels_and_ends_of_their_own():
    heads = crowded(2)
    key, sound = (decode(ReleaseDecoder(CONFIG, Told(5, 50), ends), heads) for ends in ("key", "sound"))
    longest = float((sound.offset_s - sound.onset_s).max())

    assert float((key.offset_s - key.onset_s).max()) == pytest.approx(0.22, abs=1e-6)
    assert longest == pytest.approx(50.7 * 0.04, abs=1e-6)


def test_what_is_never_told_to_end_ends_with_the_frame_head():
    heads = crowded(3)
    told = decode(ReleaseDecoder(CONFIG, Told(NUM_ENDS_STEPS), "key"), heads)
    assert np.array_equal(told.offset_s, decode(NoteDecoder(CONFIG), heads).offset_s)


def test_a_note_is_told_from_the_frames_around_it():
    heads = np.zeros((600, 5, 88), np.float32)
    for frame, pitch in ((3, 40), (300, 45), (560, 50)):
        heads[frame - 1 : frame + 2, 0, pitch] = (0.4, 1.0, 0.4)
        heads[frame : frame + 20, 2, pitch] = 0.9
    reader = Told(10)
    decode(ReleaseDecoder(CONFIG, reader, "key"), heads, [100, 250, 505])
    own = 24  # of the neighbours' onsets

    assert len(reader.given) == 3
    for given in reader.given:
        assert np.nonzero(given[:, own])[0].tolist() == [BEFORE // 2 - 1, BEFORE // 2]  # the frames 2, 3 and 4
        assert given[BEFORE // 2, own] == 1.0


def test_complete_s_never_falls_and_no_note_begins_before_it():
    heads, decoder, said = crowded(4), ReleaseDecoder(CONFIG, random_reader(), "key"), 0.0
    for part in np.array_split(heads, 40):
        found = decoder.push(part.reshape(len(part), 440))
        assert (found.onset_s >= said).all()
        assert decoder.complete_s >= said
        said = decoder.complete_s
    assert said > 5.0
    assert (decoder.flush().onset_s >= said).all()


def test_what_is_kept_does_not_grow():
    decoder, sizes = ReleaseDecoder(CONFIG, random_reader(), "key"), []
    for seed in range(12):
        decoder.push(crowded(seed, 400, 50).reshape(400, 440))
        sizes.append(decoder.num_kept)
    assert max(sizes[6:]) <= max(sizes[:6]) + 400
    assert max(sizes) < BEFORE + AFTER + 400 + 6.1 / FRAME_S + 400

    silent = ReleaseDecoder(CONFIG, random_reader(), "key")
    for _ in range(5):
        silent.push(np.zeros((400, 440), np.float32))
    assert silent.num_kept <= BEFORE + 5


def test_a_model_without_the_network_or_a_level_decodes_as_before():
    without = dataclasses.replace(CONFIG, sound_level=0.0)
    assert isinstance(decoder_of(without, random_reader(), "sound"), NoteDecoder)
    assert isinstance(decoder_of(without, random_reader(), "key"), ReleaseDecoder)
    assert isinstance(decoder_of(CONFIG, None, "key"), NoteDecoder)


def test_the_network_is_part_of_the_model_and_wants_keys_to_be_heard():
    model = OnsetsFrames(dataclasses.replace(CONFIG, stem_channels=4, fold_channels=4, branch_channels=4))
    assert any(name.startswith("releases.") for name in model.state_dict())
    assert isinstance(model.new_decoder("key"), ReleaseDecoder)
    with pytest.raises(ValueError, match=r"release_channels: expected 0, or more with has_key_head"):
        OnsetsFramesConfig(release_channels=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hop_length": 160}, r"release_channels: expected 0 at 100 frames a second, got 8"),
        ({"key_level": 1.0}, r"key_level: expected a chance from 0 to below 1, got 1\.0"),
        ({"sound_level": -0.1}, r"sound_level: expected a chance"),
    ],
)
def test_what_the_network_cannot_read_or_keep_to_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)
