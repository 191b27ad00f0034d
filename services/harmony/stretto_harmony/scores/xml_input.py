"""XML from outside, parsed by the standard library's parser once nothing in it can grow or reach out.

A document that declares entities may say each by ten of another and so unfold to any size ("a billion laughs"), or name
files of this machine; one that declares attributes may give thousands to every element. Both are refused before the
parser that builds a tree sees them, by whatever encoding they are hidden in: expat reads the document as far as its
root. MusicXML declares neither. Its usual DOCTYPE, which names a DTD that nobody fetches, is fine.
"""

from __future__ import annotations

from typing import NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from stretto_shared.errors import InvalidInput


class _Reached(Exception):
    """The root element begins: what is declared has been seen."""


def parse_xml(data: bytes, field: str, what: str = "MusicXML") -> ElementTree.Element:
    """The root of a document.

    Args:
        data: The document.
        field: What an error names.
        what: What it should be, in the words of an error.

    Raises:
        InvalidInput: If it is no XML, or declares entities or attributes of its own.
    """
    try:
        _check_declarations(data, field, what)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise InvalidInput(field, f"expected {what}, got bytes that are no XML: {error}. Export it again.") from error


def _check_declarations(data: bytes, field: str, what: str) -> None:
    def refuse(kind: str) -> NoReturn:
        raise InvalidInput(field, f"expected {what} without {kind} of its own, got some. Export it without a DTD.")

    def begin(*_: object) -> NoReturn:
        raise _Reached

    scanner = expat.ParserCreate()
    scanner.EntityDeclHandler = lambda *_: refuse("entities")
    scanner.AttlistDeclHandler = lambda *_: refuse("attribute declarations")
    scanner.StartElementHandler = begin
    try:
        scanner.Parse(data, True)
    except _Reached:
        return
