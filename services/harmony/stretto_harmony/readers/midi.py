"""Standard MIDI files as written scores: notes on the grid of the file's beats, with spellings and bars.

Own reader of formats 0 and 1. Spellings are `spelling.py`'s; bars are those of the file's time signatures, or
`metre.py`'s where it has none. Note times go to the nearest 24th or 32nd of a quarter note, so a file must be written
against its beats: a performance belongs through the transcriber's EngraveScore first. Channel 10, the drums, is left
out; tracks are staves, channels voices.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from stretto_shared.errors import InvalidInput

from stretto_harmony.readers.building import Note, ScoreBuilder
from stretto_harmony.readers.metre import infer_metre
from stretto_harmony.readers.spelling import spell
from stretto_harmony.scores.score import MAX_NOTES, TICKS_PER_QUARTER, TICKS_PER_WHOLE, Ints, Score

_FIELD = "score"
_DRUMS = 9
_GRIDS = (TICKS_PER_QUARTER // 24, TICKS_PER_QUARTER // 32)
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}

_Mark = TypeVar("_Mark")


@dataclass
class _File:
    """What the tracks hold, in the file's own ticks: notes as onset, end, pitch, track and channel."""

    division: int
    notes: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    metres: dict[int, tuple[int, int]] = field(default_factory=dict)
    keys: dict[int, int] = field(default_factory=dict)


def read_score(data: bytes) -> Score:
    """The score in `data`.

    Raises:
        InvalidInput: When it is no MIDI file with notes, or counts time in film frames.
    """
    file = _read_file(data)
    if not file.notes:
        raise InvalidInput(_FIELD, "expected a MIDI file with notes, got none. Export the score again.")
    notes = np.array(sorted(file.notes), np.int64)
    onset, end = (_snapped(notes[:, column], file.division) for column in (0, 1))
    first_key = file.keys[min(file.keys)] if file.keys else 0
    order = np.lexsort((notes[:, 2], onset))
    fifths = np.empty(len(notes), np.int64)
    fifths[order] = spell(notes[order, 2], first_key)
    builder = ScoreBuilder()
    _add_measures(builder, file, onset, end, notes[:, 2])
    tracks = {track: staff for staff, track in enumerate(sorted(set(notes[:, 3].tolist())))}
    written = [
        Note(
            int(start),
            max(int(stop - start), _GRIDS[1]),
            int(pitch),
            int(place),
            min(tracks[int(track)], 255),
            int(voice),
        )
        for start, stop, pitch, place, track, voice in zip(
            onset, end, notes[:, 2], fifths, notes[:, 3], notes[:, 4], strict=True
        )
    ]
    return builder.build(written)


def _snapped(ticks: Ints, division: int) -> Ints:
    """Our ticks of the file's, at the nearest line of either grid."""
    exact = ticks * (TICKS_PER_QUARTER / division)
    first, second = (np.rint(exact / grid) * grid for grid in _GRIDS)
    return np.where(np.abs(first - exact) <= np.abs(second - exact), first, second).astype(np.int64)


def _add_measures(builder: ScoreBuilder, file: _File, onset: Ints, end: Ints, pitch: Ints) -> None:
    """Bars from tick 0 until the last note begins, and on to where it ends."""
    last = int(max(onset.max() + 1, end.max()))
    metres, keys = (_in_our_ticks(marks, file.division) for marks in (file.metres, file.keys))
    pickup = _pickup(metres)
    if not metres:
        first = int(onset.min())
        found = infer_metre((onset - first) / TICKS_PER_QUARTER, (end - onset) / TICKS_PER_QUARTER, pitch)
        metres = [(0, (found.numerator, 4))]
        pickup = (first + round(found.pickup * TICKS_PER_QUARTER)) % (found.numerator * TICKS_PER_QUARTER)
    while builder.num_ticks < last:
        start = builder.num_ticks
        place = bisect_right(metres, start, key=_tick) - 1
        numerator, denominator = metres[max(place + (pickup > 0 and not start and len(metres) > 1), 0)][1]
        length = pickup if pickup and not start else numerator * TICKS_PER_WHOLE // denominator
        if place + 1 < len(metres):
            length = min(length, metres[place + 1][0] - start)
        key = bisect_right(keys, start, key=_tick) - 1
        builder.add_measure(
            length=length,
            offset=0,
            numerator=numerator,
            denominator=denominator,
            key_signature=keys[key][1] if key >= 0 else 0,
            number=str(builder.num_measures + (0 if pickup else 1)),
        )


def _pickup(metres: list[tuple[int, tuple[int, int]]]) -> int:
    """The ticks of a first bar that has a shorter metre all to itself, as programs write an upbeat; 0 without one."""
    if len(metres) < 2 or metres[0][0] > 0:
        return 0
    first, second = (numerator * TICKS_PER_WHOLE // denominator for _, (numerator, denominator) in metres[:2])
    return first if first == metres[1][0] and first < second else 0


def _in_our_ticks(marks: dict[int, _Mark], division: int) -> list[tuple[int, _Mark]]:
    return [(tick * TICKS_PER_QUARTER // division, mark) for tick, mark in sorted(marks.items())]


def _tick(mark: tuple[int, object]) -> int:
    return mark[0]


def _read_file(data: bytes) -> _File:
    if data[:4] != b"MThd" or len(data) < 14:
        raise InvalidInput(_FIELD, "expected a MIDI file that begins with MThd, got other bytes. Export it as MIDI.")
    size, format_, _, division = struct.unpack(">IHHH", data[4:14])
    if format_ > 1:
        raise InvalidInput(_FIELD, f"expected MIDI format 0 or 1, got {format_}. Export it in format 1.")
    if division & 0x8000 or not division:
        raise InvalidInput(_FIELD, f"expected ticks a quarter note, got the division {division}. Export it in beats.")
    file, position, track = _File(division), 8 + size, 0
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], struct.unpack(">I", data[position + 4 : position + 8])[0]
        if kind == b"MTrk":
            _read_track(data[position + 8 : position + 8 + length], track, file)
            track += 1
        position += 8 + length
    return file


def _read_track(data: bytes, track: int, file: _File) -> None:
    sounding: dict[tuple[int, int], list[int]] = {}
    time = 0
    for delta, status, content in _events(data):
        time += delta
        if time > 2**40:
            raise InvalidInput(_FIELD, f"expected times below 2**40 ticks, got {time}. Export the score again.")
        if status == 0x58 and len(content) >= 2 and content[0] and content[1] <= 7:
            file.metres[time] = (content[0], 2 ** content[1])
        elif status == 0x59 and len(content) >= 1:
            file.keys[time] = max(-7, min(7, content[0] - 256 if content[0] > 127 else content[0]))
        elif 0x80 <= status < 0xA0 and status & 15 != _DRUMS:
            _take_note(status, content, time, track, sounding, file)
    for (channel, pitch), starts in sounding.items():
        file.notes += [(start, max(time, start + 1), pitch, track, channel) for start in starts]


def _take_note(
    status: int, content: bytes, time: int, track: int, sounding: dict[tuple[int, int], list[int]], file: _File
) -> None:
    key = (status & 15, content[0])
    if status >= 0x90 and content[1]:
        sounding.setdefault(key, []).append(time)
        return
    if sounding.get(key):
        start = sounding[key].pop(0)
        if len(file.notes) >= MAX_NOTES:
            raise InvalidInput(_FIELD, f"expected up to {MAX_NOTES} notes, got more. Split the piece.")
        if time > start:
            file.notes.append((start, time, content[0], track, status & 15))


def _events(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Delta time, status (a meta event's type) and content of each event; a track that breaks off ends there."""
    position, running = 0, 0
    while position < len(data):
        delta, position = _variable(data, position)
        if position >= len(data):
            return
        status = data[position]
        if status & 0x80:
            position += 1
        else:
            status = running
        if status == 0xFF:
            kind = data[position] if position < len(data) else 0x2F
            length, position = _variable(data, position + 1)
            yield delta, kind if kind < 0x80 else 0x2F, data[position : position + length]
        elif status in (0xF0, 0xF7):
            length, position = _variable(data, position)
        elif status >> 4 in _DATA_BYTES:
            running, length = status, _DATA_BYTES[status >> 4]
            content = data[position : position + length]
            if len(content) < length or any(byte & 0x80 for byte in content):
                raise InvalidInput(_FIELD, "expected MIDI events, got data bytes above 127. Export the score again.")
            yield delta, status, content
        else:
            raise InvalidInput(_FIELD, f"expected a MIDI event, got the status {status}. Export the score again.")
        position += length


def _variable(data: bytes, position: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it."""
    value = 0
    for place in range(position, min(position + 4, len(data))):
        value = value << 7 | data[place] & 0x7F
        if not data[place] & 0x80:
            return value, place + 1
    return value, min(position + 4, len(data))
