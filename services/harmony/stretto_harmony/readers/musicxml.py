"""MusicXML, plain or compressed (`.mxl`), as a written score at sounding pitch.

Own reader over the standard library's parser: it takes the notes, their voices and staves, time and key signatures and
transpositions, and leaves the page alone. Grace and cue notes, and notes without pitch, are left out; ties are joined;
repeats stand as written. A measure is as long as the longest of its parts, so that pickups and split measures keep
their length. Reads no external entities and nothing outside the bytes given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from xml.etree import ElementTree

from stretto_shared.errors import InvalidInput

from stretto_harmony.readers.building import Note, ScoreBuilder, fraction_of, joined, ticks_of
from stretto_harmony.scores import pitch
from stretto_harmony.scores.containers import unpacked
from stretto_harmony.scores.score import TICKS_PER_WHOLE, Score
from stretto_harmony.scores.xml_input import parse_xml

MAX_PARTS = 256
_FIELD = "score"


@dataclass
class _Part:
    """What a part carries from measure to measure.

    Args:
        first_staff: The place of its first staff among the score's.
        divisions: Of a quarter note, in which durations are counted.
        num_staves: How many staves it has.
        transposition: Fifths and semitones from the written to the sounding pitch.
        voices: The numbers of its voices by their names.
        open_ties: End, pitch and staff of the notes that say they are tied on: some programs write no stop.
    """

    first_staff: int
    divisions: int = 1
    num_staves: int = 1
    transposition: tuple[int, int] = (0, 0)
    voices: dict[str, int] = field(default_factory=dict)
    open_ties: set[tuple[int, int, int]] = field(default_factory=set)


@dataclass
class _Signatures:
    numerator: int = 4
    denominator: int = 4
    key: int = 0


def read_score(data: bytes) -> Score:
    """The score in `data`.

    Raises:
        InvalidInput: When it is not MusicXML, or holds no measure, or a value that none can be.
    """
    root = _root(unpacked(data, _FIELD))
    parts = [_measures(part) for part in _parts(root)]
    if not parts or not any(parts):
        raise InvalidInput(_FIELD, "expected MusicXML with a part and a measure, got none. Export the score again.")
    if len(parts) > MAX_PARTS:
        raise InvalidInput(_FIELD, f"expected up to {MAX_PARTS} parts, got {len(parts)}. Leave some out.")
    return _read_parts(parts)


def _read_parts(parts: Sequence[Sequence[ElementTree.Element]]) -> Score:
    builder, signatures = ScoreBuilder(), _Signatures()
    notes: list[tuple[Note, bool]] = []
    states: list[_Part] = []
    for measures in parts:
        first_staff = states[-1].first_staff + states[-1].num_staves if states else 0
        states.append(_Part(min(first_staff, 255), num_staves=_count_staves(measures)))
    before = (0, 0)
    for index in range(max(map(len, parts))):
        present = [
            (measures[index], state) for measures, state in zip(parts, states, strict=True) if index < len(measures)
        ]
        length = 0
        for measure, state in present:
            _read_attributes(measure, state, signatures, is_first_part=state is states[0])
            found, end = _read_measure(measure, state, builder.num_ticks)
            notes += found
            length = max(length, end)
        nominal = signatures.numerator * TICKS_PER_WHOLE // signatures.denominator
        length = length or nominal
        is_rest_of_bar = 0 < sum(before) < nominal and sum(before) + length <= nominal and index > 0
        offset = sum(before) if is_rest_of_bar and _is_implicit(present[0][0]) else 0
        builder.add_measure(
            length=length, offset=offset, numerator=signatures.numerator, denominator=signatures.denominator,
            key_signature=signatures.key, number=present[0][0].get("number", "")[:20],
        )  # fmt: skip
        before = (offset, length) if length < nominal else (0, 0)
    return builder.build(joined(notes))


def _is_implicit(measure: ElementTree.Element) -> bool:
    return measure.get("implicit") == "yes" or not measure.get("number", "").isdigit()


def _read_attributes(
    measure: ElementTree.Element, state: _Part, signatures: _Signatures, *, is_first_part: bool
) -> None:
    """Take divisions, transposition and, of the first part, the signatures that hold from the measure's start."""
    for attributes in measure.iter("attributes"):
        divisions = attributes.findtext("divisions")
        if divisions is not None and measure.find("attributes") is attributes:
            state.divisions = _positive("divisions", divisions)
        transpose = attributes.find("transpose")
        if transpose is not None:
            state.transposition = _transposition(transpose)
        if is_first_part:
            _read_signatures(attributes, signatures, state)


def _read_signatures(attributes: ElementTree.Element, signatures: _Signatures, state: _Part) -> None:
    beats, beat_type = attributes.findtext("time/beats"), attributes.findtext("time/beat-type")
    if beats and beat_type:
        signatures.numerator = sum(_positive("beats", beat) for beat in beats.split("+"))
        signatures.denominator = _positive("beat-type", beat_type)
    fifths = attributes.findtext("key/fifths")
    if fifths is not None:
        signatures.key = _integer("fifths", fifths) + state.transposition[0]


def _transposition(transpose: ElementTree.Element) -> tuple[int, int]:
    """Fifths and semitones from the written to the sounding pitch."""
    chromatic = _integer("chromatic", transpose.findtext("chromatic") or "0")
    diatonic = _integer("diatonic", transpose.findtext("diatonic") or str(round(chromatic * 7 / 12)))
    octaves = _integer("octave-change", transpose.findtext("octave-change") or "0")
    natural = 2 * diatonic % 7  # a step is two fifths up, whatever its size
    candidates = (natural + 7 * turn for turn in (-2, -1, 0, 1))
    fifths = next((place for place in candidates if (7 * place - chromatic) % 12 == 0), 7 * chromatic % 12)
    return fifths, chromatic + 12 * octaves


def _read_measure(measure: ElementTree.Element, state: _Part, start: int) -> tuple[list[tuple[Note, bool]], int]:
    """The notes of one part's measure, and the length that they fill."""
    notes: list[tuple[Note, bool]] = []
    position = furthest = chord_start = Fraction(0)
    for element in measure:
        if element.tag == "attributes":
            state.divisions = _positive("divisions", element.findtext("divisions") or str(state.divisions))
        elif element.tag in ("backup", "forward"):
            moved = _duration(element, state)
            position = max(Fraction(0), position - moved) if element.tag == "backup" else position + moved
        elif element.tag == "note" and element.find("grace") is None:
            duration = _duration(element, state)
            if element.find("chord") is None:
                chord_start, position = position, position + duration
            if element.find("cue") is None and element.find("pitch") is not None:
                notes.append(_note(element, state, start + ticks_of(chord_start), ticks_of(duration)))
        furthest = max(furthest, position)
    return notes, ticks_of(furthest)


def _note(element: ElementTree.Element, state: _Part, onset: int, duration: int) -> tuple[Note, bool]:
    step, octave = element.findtext("pitch/step", "").strip(), _integer("octave", element.findtext("pitch/octave", ""))
    if step not in tuple(pitch.LETTERS):
        raise InvalidInput(_FIELD, f"expected a step from A to G, got {step[:20]!r}. Correct the MusicXML.")
    alteration = round(_number("alter", element.findtext("pitch/alter") or "0"))
    written = pitch.from_step(step, alteration)
    voice = state.voices.setdefault(element.findtext("voice", "1"), len(state.voices))
    staff = state.first_staff + _positive("staff", element.findtext("staff") or "1") - 1
    fifths, semitones = state.transposition
    note = Note(
        onset, duration, pitch.midi_of(written, octave) + semitones, written + fifths, min(staff, 255), min(voice, 255)
    )
    ties = {tie.get("type") for tie in (*element.findall("tie"), *element.findall("notations/tied"))}
    is_open = (onset, note.midi, note.staff) in state.open_ties
    if "start" in ties:
        state.open_ties.add((onset + duration, note.midi, note.staff))
    return note, "stop" in ties or is_open


def _count_staves(measures: Iterable[ElementTree.Element]) -> int:
    written = (staves.text or "1" for measure in measures for staves in measure.iter("staves"))
    return max((_positive("staves", text) for text in written), default=1)


def _duration(element: ElementTree.Element, state: _Part) -> Fraction:
    """A duration in quarter notes."""
    return _number("duration", element.findtext("duration") or "0") / state.divisions


def _parts(root: ElementTree.Element) -> list[ElementTree.Element]:
    if root.tag == "score-partwise":
        return root.findall("part")
    parts: dict[str, ElementTree.Element] = {}
    for measure in root.findall("measure"):
        for part in measure.findall("part"):
            name = part.get("id", "")
            copy = ElementTree.SubElement(
                parts.setdefault(name, ElementTree.Element("part")), "measure", measure.attrib
            )
            copy.extend(list(part))
    return list(parts.values())


def _measures(part: ElementTree.Element) -> list[ElementTree.Element]:
    return part.findall("measure")


def _root(xml: bytes) -> ElementTree.Element:
    root = parse_xml(xml, _FIELD)
    if root.tag not in ("score-partwise", "score-timewise"):
        raise InvalidInput(_FIELD, f"expected the root score-partwise, got {root.tag[:40]!r}. Export it as MusicXML.")
    return root


def _number(name: str, text: str) -> Fraction:
    try:
        return fraction_of(text)
    except ValueError as error:
        raise InvalidInput(
            _FIELD, f"expected a number in <{name}>, got {text[:40]!r}. Correct the MusicXML."
        ) from error


def _integer(name: str, text: str) -> int:
    return int(_number(name, text))


def _positive(name: str, text: str) -> int:
    value = _integer(name, text)
    if value < 1:
        raise InvalidInput(_FIELD, f"expected 1 or more in <{name}>, got {text[:40]!r}. Correct the MusicXML.")
    return value
