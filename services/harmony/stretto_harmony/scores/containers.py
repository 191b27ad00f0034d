"""Compressed MusicXML (.mxl): a zip file in which META-INF/container.xml names the score."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib

from stretto_shared.errors import InvalidInput

from stretto_harmony.scores.xml_input import parse_xml

MAX_XML_BYTES = 64_000_000
_BROKEN_CONTAINER = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    LookupError,
    RuntimeError,
    OSError,
    ValueError,
    EOFError,
)
"""What zipfile raises on bytes that it cannot unpack."""


def unpacked(data: bytes, field: str) -> bytes:
    """The score's own file of a compressed container, or the bytes as they are.

    Args:
        data: A file of MusicXML, plain or compressed.
        field: What an error names.

    Raises:
        InvalidInput: If the container is broken, holds no score, or one of more than `MAX_XML_BYTES`.
    """
    if data[:2] != b"PK":
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = _score_name(archive, field)
            if archive.getinfo(name).file_size > MAX_XML_BYTES:
                raise InvalidInput(
                    field, f"expected up to {MAX_XML_BYTES} bytes of MusicXML, got more. Split the piece."
                )
            return archive.read(name)
    except _BROKEN_CONTAINER as error:
        raise InvalidInput(
            field, f"expected a compressed MusicXML file, got a broken one: {error}. Save it again."
        ) from error


def _score_name(archive: zipfile.ZipFile, field: str) -> str:
    names = archive.namelist()
    if "META-INF/container.xml" in names and archive.getinfo("META-INF/container.xml").file_size < 100_000:
        container = archive.read("META-INF/container.xml")
        for element in parse_xml(container, field, "META-INF/container.xml").iter():
            path = element.get("full-path")
            if path is not None and path in names:
                return path
    inner = [name for name in names if name.endswith((".xml", ".musicxml")) and not name.startswith("META-INF")]
    if not inner:
        raise InvalidInput(field, "expected a MusicXML file in the container, got none. Save it again.")
    return inner[0]
