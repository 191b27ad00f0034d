"""Documents that would unfold or reach out are refused before a tree is built, and ordinary ones open."""

from __future__ import annotations

from pathlib import Path

import pytest
from stretto_harmony.scores import xml_input
from stretto_harmony.scores.xml_input import parse_xml
from stretto_shared.errors import InvalidInput

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BOMB = f'<!DOCTYPE score-partwise [<!ENTITY l0 "{"ha" * 20}">{LAUGHS}]><score-partwise>&l9;</score-partwise>'
BLOWN_UP = f'<!DOCTYPE a [<!ENTITY b "{"x" * 50_000}">]><a>{"&b;" * 50_000}</a>'
ATTRIBUTES = "".join(f'n{number} CDATA "x" ' for number in range(20_000))
DOCTYPE = (
    '<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 3.1 Partwise//EN" '
    '"http://www.musicxml.org/dtds/partwise.dtd">'
)


def outside(secret: Path) -> dict[str, str]:
    """Documents that name a file."""
    return {
        "general": f'<!DOCTYPE a [<!ENTITY b SYSTEM "{secret.as_uri()}">]><a>&b;</a>',
        "parameter": f'<!DOCTYPE a [<!ENTITY % b SYSTEM "{secret.as_uri()}"> %b;]><a/>',
        "unparsed": f'<!DOCTYPE a [<!NOTATION n SYSTEM "n"><!ENTITY b SYSTEM "{secret.as_uri()}" NDATA n>]><a/>',
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "cp1252"])
@pytest.mark.parametrize("document", [BOMB, BLOWN_UP], ids=["a billion laughs", "quadratic"])
def test_a_document_that_would_unfold_is_refused_unread(
    document: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xml_input.ElementTree, "fromstring", lambda _: pytest.fail("the tree is built"))
    data = f'<?xml version="1.0" encoding="{encoding}"?>{document}'.encode(encoding)
    with pytest.raises(InvalidInput, match="without entities") as caught:
        parse_xml(data, "score.file.data")
    assert caught.value.field == "score.file.data"


def test_a_document_that_gives_every_element_thousands_of_attributes_is_refused() -> None:
    document = f"<!DOCTYPE a [<!ATTLIST b {ATTRIBUTES}>]><a>{'<b/>' * 10_000}</a>"
    with pytest.raises(InvalidInput, match="without attribute declarations"):
        parse_xml(document.encode(), "score")


@pytest.mark.parametrize("kind", ["general", "parameter", "unparsed"])
def test_a_document_that_names_a_file_is_refused(kind: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with pytest.raises(InvalidInput, match="without entities") as caught:
        parse_xml(outside(secret)[kind].encode(), "score")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        f'<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n{DOCTYPE}\n<score-partwise version="3.1"/>',
        "<!DOCTYPE score-partwise []><score-partwise/>",
        '<score-partwise><!-- <!ENTITY a "b"> --></score-partwise>',
        "<score-partwise><![CDATA[<!ENTITY]]>&lt;!ENTITY&amp;&#65;</score-partwise>",
    ],
)
def test_an_ordinary_document_opens(document: str) -> None:
    assert parse_xml(document.encode(), "score").tag == "score-partwise"


@pytest.mark.parametrize("document", [b"", b"<a>", b"no xml", b"<a>&undeclared;</a>", b'<?xml encoding="x"?><a/>'])
def test_what_is_no_xml_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidInput, match="expected a thing, got bytes that are no XML"):
        parse_xml(document, "score", "a thing")
