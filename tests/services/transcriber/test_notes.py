import numpy as np
import pytest
from stretto_transcriber.models.notes import Notes


def notes(**columns) -> Notes:
    given = {"onset_s": [0.0, 1.0], "offset_s": [0.5, 2.0], "pitch_midi": [60, 62], "velocity": [1, 127]} | columns
    return Notes(**{name: np.array(column) for name, column in given.items()})


def test_columns_are_kept_in_their_types_and_read_only():
    kept = notes()

    assert len(kept) == 2
    assert [column.dtype for column in (kept.onset_s, kept.offset_s)] == [np.float64] * 2
    assert [column.dtype for column in (kept.pitch_midi, kept.velocity)] == [np.int32] * 2
    with pytest.raises(ValueError, match="read-only"):
        kept.onset_s[0] = 3


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"offset_s": [0.5]}, "offset_s: expected shape"),
        ({"offset_s": [0.0, 2.0]}, "offset_s: expected every note to end"),
        ({"velocity": [0, 64]}, "velocity"),
        ({"velocity": [1, 128]}, "velocity"),
        ({"onset_s": [1.0, 0.0], "offset_s": [2.0, 2.0]}, "onset_s: expected the notes in order"),
        ({"onset_s": [0.0, 0.0], "pitch_midi": [62, 60]}, "onset_s: expected the notes in order"),
    ],
)
def test_what_is_off_is_named(columns, said):
    with pytest.raises(ValueError, match=said):
        notes(**columns)


def test_sorting_keeps_the_columns_of_a_note_together():
    in_order = Notes.sorted(
        np.array([1.0, 0.0, 0.0]), np.array([1.1, 0.2, 0.3]), np.array([50, 70, 60]), np.array([1, 2, 3])
    )

    assert in_order.pitch_midi.tolist() == [60, 70, 50]
    assert in_order.offset_s.tolist() == [0.3, 0.2, 1.1]
    assert in_order.velocity.tolist() == [3, 2, 1]


def test_joined_notes_are_in_order():
    late, early = notes(), notes(onset_s=[0.2, 0.4])

    assert Notes.joined([late, early]).onset_s.tolist() == [0.0, 0.2, 0.4, 1.0]
    assert len(Notes.joined([])) == len(Notes.empty()) == 0
