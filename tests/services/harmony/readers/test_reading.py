"""A file is read by the reader that its suffix names."""

import pytest
from stretto_harmony.readers import READERS, read_score
from stretto_shared.errors import InvalidInput

KERN = b"**kern\n*M4/4\n=1\n1c\n*-\n"


def test_the_suffix_names_the_reader_in_any_case() -> None:
    assert read_score(KERN, "krn").num_notes == read_score(KERN, "KRN").num_notes == 1
    with pytest.raises(InvalidInput, match="no XML"):
        read_score(KERN, "musicxml")


def test_an_unknown_suffix_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="musicxml, xml, mxl, mid, midi, krn") as caught:
        read_score(KERN, "docx")
    assert caught.value.field == "format"


@pytest.mark.parametrize("suffix", READERS)
def test_nothing_is_no_score(suffix: str) -> None:
    with pytest.raises(InvalidInput):
        read_score(b"", suffix)
