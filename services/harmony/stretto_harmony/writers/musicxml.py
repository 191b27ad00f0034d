"""MusicXML: the score as it came, with the numerals as words below its lowest staff.

A MusicXML file is changed in nothing else; any other score is written plainly (`plain_score.py`). A numeral is a
direction at the end of its measure's elements, reached by `backup` and `forward`, since not every program reads the
`offset` of a direction; where the part's divisions do not hold its time, it stands on the last one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree

from stretto_shared.errors import InvalidInput

from stretto_harmony.scores.containers import unpacked
from stretto_harmony.scores.score import TICKS_PER_QUARTER
from stretto_harmony.scores.xml_input import parse_xml
from stretto_harmony.writers.plain_score import plain_score
from stretto_harmony.writers.written import WrittenAnalysis, numeral_of

FIELD = "score.file.data"
DOCTYPE = (
    '<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" '
    '"http://www.musicxml.org/dtds/partwise.dtd">'
)


@dataclass(frozen=True)
class _Mark:
    """Words at a time in a measure, in ticks from its start."""

    offset: int
    words: str


def write_musicxml(analysis: WrittenAnalysis) -> bytes:
    """The score with its numerals, in UTF-8, not compressed.

    Raises:
        InvalidInput: If the file is not a score-partwise, or has other measures than the score.
    """
    root = _root_of(analysis)
    parts = root.findall("part")
    if root.tag != "score-partwise" or not parts:
        raise InvalidInput(FIELD, f"expected a score-partwise with parts, got <{root.tag}>. Save it as such.")
    num_measures = max(len(part.findall("measure")) for part in parts)
    if num_measures != analysis.score.num_measures:
        raise InvalidInput(
            FIELD,
            f"expected {analysis.score.num_measures} measures, as the score has, got {num_measures}. Send the file "
            "that was analysed.",
        )
    marks, divisions, num_staves = dict(_marks(analysis)), 1, 1
    for index, measure in enumerate(parts[-1].findall("measure")):
        divisions = _last_number(measure, "divisions", divisions)
        num_staves = _last_number(measure, "staves", num_staves)
        if index in marks:
            _add(measure, marks[index], divisions, num_staves)
    try:
        body = ElementTree.tostring(root, encoding="unicode")
    except RecursionError as error:
        raise InvalidInput(FIELD, "expected elements a dozen deep, got hundreds. Export it again.") from error
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{DOCTYPE}\n{body}\n'.encode()


def _root_of(analysis: WrittenAnalysis) -> ElementTree.Element:
    """The score's own MusicXML where it has one."""
    source = analysis.source
    if source is None or analysis.source_suffix != "musicxml":
        return plain_score(analysis.score, analysis.title)
    return parse_xml(unpacked(source, FIELD), FIELD)


def _marks(analysis: WrittenAnalysis) -> Iterator[tuple[int, list[_Mark]]]:
    """The words of each measure in which a chord begins; a key is named where it begins."""
    key = ""
    for measure, placed in groupby(analysis.placed(), key=lambda each: each[0]):
        marks = []
        for _, _, label in placed:
            name = f"{label.key.name}: " if label.key.name != key else ""
            key = label.key.name
            marks.append(_Mark(label.start - int(analysis.score.measure_start[measure]), name + numeral_of(label)))
        yield measure, marks


def _add(measure: ElementTree.Element, marks: list[_Mark], divisions: int, num_staves: int) -> None:
    """Words at the end of a measure's elements; its cursor is left where it was."""
    end = _cursor(measure)
    _move(measure, -end)
    at = 0
    for mark in marks:
        place = mark.offset * divisions // TICKS_PER_QUARTER
        _move(measure, place - at)
        at = place
        direction = ElementTree.SubElement(measure, "direction", placement="below")
        kind = ElementTree.SubElement(direction, "direction-type")
        ElementTree.SubElement(kind, "words").text = mark.words
        if num_staves > 1:
            ElementTree.SubElement(direction, "staff").text = str(num_staves)
    _move(measure, end - at)


def _move(measure: ElementTree.Element, by: int) -> None:
    if by:
        element = ElementTree.SubElement(measure, "forward" if by > 0 else "backup")
        ElementTree.SubElement(element, "duration").text = str(abs(by))


def _cursor(measure: ElementTree.Element) -> int:
    """Where in a measure its last element leaves the reader, in divisions."""
    at = 0
    for element in measure:
        if element.tag == "backup":
            at -= _duration(element)
        elif element.tag == "forward" or (
            element.tag == "note" and element.find("chord") is None and element.find("grace") is None
        ):
            at += _duration(element)
    return at


def _duration(element: ElementTree.Element) -> int:
    return _number(element.findtext("duration"), 0)


def _last_number(measure: ElementTree.Element, name: str, default: int) -> int:
    """What the last `attributes` of a measure say; where it changes in between, readers count by the last too."""
    found = [element.text for element in measure.iterfind(f"attributes/{name}")]
    return _number(found[-1], default) if found else default


def _number(text: str | None, default: int) -> int:
    try:
        return round(float(text or ""))
    except (ValueError, OverflowError):
        return default
