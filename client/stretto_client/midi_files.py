"""Scores as standard MIDI files, format 1: a track of marks, then a track for each part.

A quarter note has 10,000 ticks. Where the score has no tempo, one of 120 a minute is written, so that a tick is
0.05 ms; where it has, ticks follow its tempos. Of notes of one pitch that overlap in a part, the earlier one ends where
the later one begins: MIDI cannot tell them apart.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from stretto_shared.errors import InvalidInput
from stretto_shared.score import Part, Score, Tempo

from stretto_client.files import whole_file

TICKS_PER_QUARTER = 10_000
PLAIN_TEMPO = Tempo(0.0, 120.0)
SUFFIXES = (".mid", ".midi")
DRUM_CHANNEL = 9
_Event = tuple[int, int, bytes]  # tick, order among those of one tick, message
_END_OF_TRACK = b"\xff\x2f\x00"


def check_midi_path(path: Path) -> None:
    """Refuse a file name that would hide what the file is.

    Raises:
        InvalidInput: If the suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        known = " or ".join(SUFFIXES)
        raise InvalidInput("path", f"expected a file that ends in {known}, got {str(path)!r}. Rename it.")


def write_midi(path: Path, score: Score) -> None:
    """Write a score's notes, tempos, time signatures and keys; beats and spellings have no place in the format."""
    with whole_file(path) as temporary:
        temporary.write_bytes(midi_bytes(score))


def midi_bytes(score: Score) -> bytes:
    """The file's content."""
    clock = _Clock(score.tempos)
    tracks = [_track(_marks(score, clock))]
    tracks += [_track(_part(score, clock, index)) for index in range(len(score.parts))]
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, len(tracks), TICKS_PER_QUARTER)
    return header + b"".join(tracks)


class _Clock:
    """Seconds to ticks under a score's tempos; the first one also holds before it."""

    def __init__(self, tempos: Sequence[Tempo]) -> None:
        self.tempos = tuple(tempos) or (PLAIN_TEMPO,)
        self._from_s = np.array([0.0, *(tempo.time_s for tempo in self.tempos[1:])])
        # what a file can say of a tempo is a whole number of microseconds
        self.quarter_us = [round(60e6 / tempo.tempo_bpm) for tempo in self.tempos]
        self._ticks_per_s = TICKS_PER_QUARTER * 1e6 / np.array(self.quarter_us)
        self._from_tick = np.concatenate([[0.0], np.cumsum(np.diff(self._from_s) * self._ticks_per_s[:-1])])

    def ticks(self, times_s: NDArray[np.float64] | float) -> NDArray[np.int64]:
        place = np.searchsorted(self._from_s, times_s, side="right") - 1
        ticks = self._from_tick[place] + (np.asarray(times_s) - self._from_s[place]) * self._ticks_per_s[place]
        whole: NDArray[np.int64] = np.rint(ticks).astype(np.int64)
        return whole


def _marks(score: Score, clock: _Clock) -> list[_Event]:
    events: list[_Event] = []
    for index, (tempo, quarter_us) in enumerate(zip(clock.tempos, clock.quarter_us)):
        time_s = tempo.time_s if index else 0.0
        events.append((_tick(clock, time_s), 0, b"\xff\x51\x03" + quarter_us.to_bytes(3, "big")))
    for mark in score.time_signatures:
        body = bytes([mark.numerator, mark.denominator.bit_length() - 1, 24, 8])
        events.append((_tick(clock, mark.time_s), 0, b"\xff\x58\x04" + body))
    for key in score.keys:
        if -7 <= key.signature_fifths <= 7:  # MIDI has no signature beyond
            body = struct.pack(">bB", key.signature_fifths, key.is_minor)
            events.append((_tick(clock, key.time_s), 0, b"\xff\x59\x02" + body))
    return events


def _part(score: Score, clock: _Clock, index: int) -> list[_Event]:
    part, own = score.parts[index], np.flatnonzero(score.part_index == index)
    channel = _channel(part, index)
    name = part.name.encode("utf-8")
    events: list[_Event] = [
        (0, 0, b"\xff\x03" + _varint(len(name)) + name),
        (0, 1, bytes([0xC0 | channel, part.program])),
    ]
    begins, ends = clock.ticks(score.onset_s[own]), clock.ticks(score.offset_s[own])
    following: dict[int, int] = {}  # of each pitch, where its next note begins
    for place in reversed(range(len(own))):
        pitch, velocity = int(score.pitch_midi[own[place]]), int(score.velocity[own[place]])
        begin, next_begin = int(begins[place]), following.get(pitch)
        end = max(int(ends[place]), begin + 1)
        if next_begin is not None:
            if next_begin == begin:
                continue  # the same note twice
            end = min(end, next_begin)
        following[pitch] = begin
        events.append((begin, 3, bytes([0x90 | channel, pitch, velocity])))
        events.append((end, 2, bytes([0x80 | channel, pitch, 64])))
    return events


def _channel(part: Part, index: int) -> int:
    """A channel of its own while there are any; the tenth is that of drums."""
    return DRUM_CHANNEL if part.is_drum else [*range(9), *range(10, 16)][index % 15]


def _track(events: Iterable[_Event]) -> bytes:
    body, last = bytearray(), 0
    for tick, _, message in sorted(events):
        body += _varint(tick - last) + message
        last = tick
    body += b"\x00" + _END_OF_TRACK
    return struct.pack(">4sI", b"MTrk", len(body)) + bytes(body)


def _tick(clock: _Clock, time_s: float) -> int:
    return int(clock.ticks(np.array(time_s)))


def _varint(value: int) -> bytes:
    """Seven bits a byte, the highest first; all but the last byte have the top bit."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))
