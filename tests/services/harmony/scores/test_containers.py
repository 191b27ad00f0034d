"""Compressed MusicXML: what is inside, and what is refused before it is unpacked."""

from __future__ import annotations

import io
import zipfile

import pytest
from stretto_harmony.scores import containers
from stretto_shared.errors import InvalidInput


def packed(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_xml", ".xml"), text)
    return buffer.getvalue()


def test_the_file_that_the_container_names_is_unpacked_and_a_plain_one_left_alone() -> None:
    container = '<container><rootfiles><rootfile full-path="b.xml"/></rootfiles></container>'
    named = packed(a_xml="<a/>", b_xml="<b/>", **{"META-INF__container_xml": container})
    assert containers.unpacked(named, "f") == b"<b/>"
    assert containers.unpacked(packed(a_xml="<a/>"), "f") == b"<a/>"
    assert containers.unpacked(b"<a/>", "f") == b"<a/>"


@pytest.mark.parametrize("data", [b"PK", b"PK\x03\x04" + bytes(40), packed(notes="x")])
def test_a_broken_or_empty_container_names_its_field(data: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        containers.unpacked(data, "score.file.data")
    assert refused.value.field == "score.file.data"


def test_a_score_that_grows_beyond_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_XML_BYTES", 1_000)
    assert len(containers.unpacked(packed(a_xml=" " * 1_000), "f")) == 1_000
    with pytest.raises(InvalidInput, match="up to 1000 bytes"):
        containers.unpacked(packed(a_xml=" " * 1_001), "f")
