"""MIDI files become written scores: on the grid, spelled, in bars, and no crash on bad bytes."""

import struct

import numpy as np
import pytest
from stretto_harmony.readers.metre import infer_metre
from stretto_harmony.readers.midi import read_score
from stretto_harmony.readers.spelling import spell
from stretto_harmony.scores.pitch import MAX_FIFTHS, MIN_FIFTHS, spelled_name
from stretto_harmony.scores.score import TICKS_PER_QUARTER
from stretto_shared.errors import InvalidInput

Q = TICKS_PER_QUARTER
DIVISION = 480
METRE, KEY = 0x58, 0x59


def variable(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def track(events: list[tuple[int, bytes]]) -> bytes:
    """Events at file ticks, in any order."""
    data, now = b"", 0
    for tick, event in sorted(events, key=lambda pair: pair[0]):
        data += variable(tick - now) + event
        now = tick
    data += b"\0\xff\x2f\0"
    return b"MTrk" + struct.pack(">I", len(data)) + data


def notes(rows: list[tuple[float, float, int]], channel: int = 0) -> list[tuple[int, bytes]]:
    """Onset, duration in quarters and pitch; an end before a beginning at the same tick."""
    ends = [(round((on + length) * DIVISION), bytes([0x80 | channel, pitch, 0])) for on, length, pitch in rows]
    return ends + [(round(on * DIVISION), bytes([0x90 | channel, pitch, 64])) for on, _, pitch in rows]


def meta(tick: int, kind: int, *content: int) -> tuple[int, bytes]:
    return tick, bytes([0xFF, kind, len(content), *content])


def smf(*tracks: bytes, format_: int = 1, division: int = DIVISION) -> bytes:
    return b"MThd" + struct.pack(">IHHH", 6, format_, len(tracks), division) + b"".join(tracks)


WALTZ = smf(
    track([meta(0, METRE, 3, 2, 24, 8), meta(0, KEY, 2, 0)]),
    track(notes([(0, 1, 66), (1, 1, 69), (2, 1, 74), (3, 2.99, 73)])),
    track(notes([(0, 3, 50), (3, 1 / 3, 45), (3 + 1 / 3, 1 / 3, 49), (3 + 2 / 3, 1 / 3, 52)], channel=1)),
    track(notes([(0, 1, 35)], channel=9)),
)


def test_tracks_signatures_and_tuplets() -> None:
    score = read_score(WALTZ)
    assert [spelled_name(fifths) for fifths in score.fifths.tolist()] == ["D", "F#", "A", "D", "A", "C#", "C#", "E"]
    assert score.onset.tolist() == [0, 0, Q, 2 * Q, 3 * Q, 3 * Q, 10 * Q // 3, 11 * Q // 3]
    assert score.duration.tolist()[-4:] == [Q // 3, 3 * Q, Q // 3, Q // 3]
    assert score.staff.tolist() == [1, 0, 0, 0, 1, 0, 1, 1]
    assert score.voice.tolist() == [1, 0, 0, 0, 1, 0, 1, 1]
    assert score.numerator.tolist() == [3, 3]
    assert score.key_signature.tolist() == [2, 2]


def test_running_status_and_ends_by_velocity_zero() -> None:
    data = b"\0\x90\x3c\x40\x83\x60\x3c\0\0\x40\x40\x83\x60\x40\0\0\xff\x2f\0"
    score = read_score(smf(b"MTrk" + struct.pack(">I", len(data)) + data, format_=0))
    assert score.midi.tolist() == [60, 64]
    assert score.onset.tolist() == [0, Q]
    assert score.duration.tolist() == [Q, Q]


def test_a_metre_that_changes_within_a_bar_cuts_it() -> None:
    changes = [meta(0, METRE, 4, 2, 24, 8), meta(2 * DIVISION, METRE, 3, 2, 24, 8)]
    score = read_score(smf(track([*changes, *notes([(0, 5, 60)])])))
    assert score.measure_length.tolist() == [2 * Q, 3 * Q]
    assert score.numerator.tolist() == [4, 3]


def test_a_short_first_bar_of_its_own_metre_is_a_pickup() -> None:
    metres = [meta(0, METRE, 1, 2, 24, 8), meta(DIVISION, METRE, 3, 2, 24, 8)]
    score = read_score(smf(track([*metres, *notes([(0, 1, 67), (1, 3, 60), (4, 3, 64)])])))
    assert score.measure_length.tolist() == [Q, 3 * Q, 3 * Q]
    assert score.measure_offset.tolist() == [2 * Q, 0, 0]
    assert score.numerator.tolist() == [3, 3, 3]
    assert score.measure_number == ("0", "1", "2")


def test_without_a_time_signature_the_bars_are_found() -> None:
    bars = [(3 * bar, 3, 36 + (7 * bar) % 12) for bar in range(1, 9)]
    above = [(3 * bar + beat, 1, 60 + (7 * bar) % 12 + (3 + beat)) for bar in range(1, 9) for beat in (1, 2)]
    score = read_score(smf(track(notes([(2, 1, 67), *bars, *above]))))
    assert set(score.numerator.tolist()) == {3}
    downbeats = set(score.measure_start[score.measure_offset == 0].tolist())
    assert {3 * bar * Q for bar in range(1, 9)} <= downbeats


@pytest.mark.parametrize(("numerator", "pickup"), [(2, 0.0), (3, 0.0), (4, 0.0), (3, 1.0), (4, 3.0)])
def test_metres_are_told_by_where_the_harmony_changes(numerator: int, pickup: float) -> None:
    rows = [(0.0, 1.0, 67)] if pickup else []
    for bar in range(12):
        start, root = pickup + numerator * bar, 40 + (5 * bar) % 12
        rows.append((start, float(numerator), root))
        rows += [(start + beat, 1.0, root + 12 + (4, 7, 12, 7)[beat]) for beat in range(numerator)]
    onset, duration, midi = (np.array(column) for column in zip(*sorted(rows), strict=True))
    metre = infer_metre(onset, duration, midi)
    assert (metre.numerator, metre.pickup) == (numerator, pickup)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ([60, 62, 64, 65, 67, 69, 71, 72], "C D E F G A B C"),
        ([69, 71, 72, 74, 76, 77, 80, 81], "A B C D E F G# A"),
        ([63, 65, 67, 68, 70, 72, 74, 75], "Eb F G Ab Bb C D Eb"),
        ([62, 64, 66, 67, 69, 71, 73, 74], "D E F# G A B C# D"),
    ],
)
def test_scales_are_spelled_with_a_letter_each(key: list[int], expected: str) -> None:
    places = spell(np.array(key * 6), 0)[-8:]
    assert " ".join(spelled_name(place) for place in places.tolist()) == expected


def test_the_key_signature_says_which_side_of_the_circle_a_piece_is_on() -> None:
    scale = np.array([66, 68, 70, 71, 73, 75, 77, 78] * 6)
    assert spelled_name(int(spell(scale, 6)[0])) == "F#"
    assert spelled_name(int(spell(scale, -6)[0])) == "Gb"


def test_spellings_are_always_of_their_pitch_and_in_range() -> None:
    random = np.random.default_rng(1)
    for _ in range(30):
        midi = random.integers(0, 128, random.integers(0, 200))
        places = spell(midi, int(random.integers(-7, 8)))
        assert np.array_equal(7 * places % 12, midi % 12)
        assert ((places >= MIN_FIFTHS) & (places <= MAX_FIFTHS)).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "MThd"),
        (b"RIFF" + bytes(20), "MThd"),
        (smf(track([]), format_=2), "format 0 or 1, got 2"),
        (smf(track([]), division=0xE728), "ticks a quarter note"),
        (smf(track([])), "with notes, got none"),
        (smf(track([(0, b"\x90\xff\x40")])), "data bytes above 127"),
        (smf(track([(0, b"\xf4")])), "the status 244"),
        (smf(track(notes([(0, 1, 60), (400_000, 1, 60)]))), "up to 10000 measures"),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_score(data)
    assert caught.value.field == "score"
    assert message in str(caught.value)


def test_damaged_bytes_never_do_worse_than_invalid_input() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(WALTZ)
        for place in random.integers(0, len(damaged), random.integers(1, 6)):
            damaged[place] = random.integers(0, 256)
        cut = bytes(damaged[: random.integers(1, len(damaged) + 1)]) if random.random() < 0.3 else bytes(damaged)
        try:
            assert read_score(cut).num_notes >= 1
        except InvalidInput as error:
            assert error.field.startswith("score")
