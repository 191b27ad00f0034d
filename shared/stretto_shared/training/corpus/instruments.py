"""The General MIDI instruments that the arranger uses: family, the names that a caption may use, and playable range."""

from __future__ import annotations

from dataclasses import dataclass

# Families whose notes sound as long as they are held.
SUSTAINED = frozenset(
    {"organ", "accordion", "strings", "choir", "brass", "saxophone", "woodwind", "flute", "synth lead", "synth pad"}
)


@dataclass(frozen=True)
class Instrument:
    """One General MIDI program (0-based) and how people call it; the first name is the plain one.

    `low` and `high` are the MIDI pitches between which it is written. `chordal`: it can play several notes at once;
    `melodic`: it can carry a tune alone.
    """

    program: int
    family: str
    names: tuple[str, ...]
    low: int
    high: int
    chordal: bool
    melodic: bool = True

    @property
    def sustained(self) -> bool:
        return self.family in SUSTAINED


def _table() -> tuple[Instrument, ...]:
    both, line, harmony = (True, True), (False, True), (True, False)
    rows: list[tuple[int, str, str, int, int, tuple[bool, bool]]] = [
        (0, "piano", "piano|grand piano|acoustic piano", 33, 96, both),
        (1, "piano", "piano|concert piano|acoustic piano", 33, 96, both),
        (4, "electric piano", "electric piano|Rhodes piano|e-piano", 36, 88, both),
        (5, "electric piano", "electric piano|FM electric piano|e-piano", 36, 88, both),
        (6, "harpsichord", "harpsichord|cembalo", 36, 86, both),
        (8, "mallets", "celesta", 60, 98, both),
        (9, "mallets", "glockenspiel|bells", 67, 98, line),
        (10, "mallets", "music box", 60, 96, both),
        (11, "mallets", "vibraphone|vibes", 53, 89, both),
        (12, "mallets", "marimba", 45, 88, both),
        (13, "mallets", "xylophone", 60, 96, line),
        (14, "mallets", "tubular bells|chimes", 60, 79, line),
        (16, "organ", "organ|drawbar organ|Hammond organ", 36, 88, both),
        (17, "organ", "organ|percussive organ|electric organ", 36, 88, both),
        (19, "organ", "church organ|pipe organ|organ", 36, 88, both),
        (21, "accordion", "accordion", 50, 86, both),
        (22, "accordion", "harmonica|mouth harp", 60, 86, line),
        (24, "guitar", "acoustic guitar|nylon-string guitar|classical guitar", 40, 79, both),
        (25, "guitar", "acoustic guitar|steel-string guitar|folk guitar", 40, 79, both),
        (26, "guitar", "electric guitar|jazz guitar|hollow-body guitar", 40, 82, both),
        (27, "guitar", "electric guitar|clean electric guitar", 40, 82, both),
        (29, "guitar", "overdriven guitar|overdriven electric guitar|rock guitar", 40, 82, line),
        (30, "guitar", "distorted guitar|distorted electric guitar|heavy guitar", 40, 82, line),
        (32, "bass", "acoustic bass|double bass|upright bass", 28, 55, line),
        (33, "bass", "electric bass|bass guitar|fingered bass", 28, 55, line),
        (34, "bass", "electric bass|picked bass guitar|bass guitar", 28, 55, line),
        (35, "bass", "fretless bass|bass guitar", 28, 55, line),
        (36, "bass", "slap bass|bass guitar", 28, 55, line),
        (38, "bass", "synth bass|synthesizer bass", 28, 55, line),
        (40, "strings", "violin|solo violin", 55, 93, line),
        (41, "strings", "viola", 48, 84, line),
        (42, "strings", "cello|violoncello", 36, 72, line),
        (44, "strings", "tremolo strings|strings", 40, 88, harmony),
        (45, "strings", "pizzicato strings|plucked strings", 40, 88, both),
        (48, "strings", "strings|string ensemble|string section|orchestral strings", 36, 90, both),
        (49, "strings", "strings|string ensemble|legato strings", 36, 90, harmony),
        (46, "harp", "harp|concert harp", 33, 94, both),
        (52, "choir", "choir|choir singing ah|voices", 43, 79, both),
        (53, "choir", "choir|voices singing ooh|voices", 43, 79, both),
        (56, "brass", "trumpet", 54, 82, line),
        (57, "brass", "trombone", 40, 70, line),
        (58, "brass", "tuba", 28, 58, line),
        (59, "brass", "muted trumpet", 54, 82, line),
        (60, "brass", "French horn|horn", 41, 75, both),
        (61, "brass", "brass section|brass|horn section", 40, 80, both),
        (64, "saxophone", "soprano saxophone|soprano sax|saxophone", 56, 86, line),
        (65, "saxophone", "alto saxophone|alto sax|saxophone|sax", 49, 80, line),
        (66, "saxophone", "tenor saxophone|tenor sax|saxophone|sax", 44, 75, line),
        (67, "saxophone", "baritone saxophone|baritone sax|saxophone", 36, 68, line),
        (68, "woodwind", "oboe", 58, 88, line),
        (69, "woodwind", "English horn|cor anglais", 52, 81, line),
        (70, "woodwind", "bassoon", 34, 68, line),
        (71, "woodwind", "clarinet", 50, 86, line),
        (72, "flute", "piccolo", 74, 98, line),
        (73, "flute", "flute", 60, 94, line),
        (74, "flute", "recorder", 60, 86, line),
        (75, "flute", "pan flute|panpipes", 60, 88, line),
        (79, "flute", "ocarina", 60, 86, line),
        (80, "synth lead", "synth lead|square wave synth|synthesizer", 48, 88, line),
        (81, "synth lead", "synth lead|sawtooth synth|synthesizer", 48, 88, line),
        (88, "synth pad", "synth pad|new age pad|synthesizer pad", 43, 84, both),
        (89, "synth pad", "synth pad|warm pad|synthesizer pad", 43, 84, harmony),
        (90, "synth pad", "synth pad|polysynth|synthesizer", 43, 84, both),
        (91, "synth pad", "synth pad|airy pad|synthesizer pad", 43, 84, harmony),
        (104, "plucked", "sitar", 48, 77, line),
        (105, "plucked", "banjo", 48, 81, both),
        (107, "plucked", "koto", 48, 84, both),
    ]
    return tuple(
        Instrument(program, family, tuple(names.split("|")), low, high, *roles)
        for program, family, names, low, high, roles in rows
    )


INSTRUMENTS = _table()
# Every family, in the order of the table; `drums` is a kit on the percussion channel.
FAMILIES = (*dict.fromkeys(instrument.family for instrument in INSTRUMENTS), "drums")

# Percussion kits (bank 128) with the names that a caption may use.
DRUM_KITS: dict[int, tuple[str, ...]] = {
    0: ("drums", "drum kit", "acoustic drums"),
    8: ("drums", "drum kit", "room drums"),
    16: ("drums", "drum kit", "big drums"),
    24: ("drums", "electronic drums", "drum machine"),
    25: ("drums", "drum machine", "808 drums"),
    32: ("drums", "jazz drums", "drum kit"),
    40: ("drums", "brushed drums", "drum kit played with brushes"),
}


def names_of(program: int, family: str) -> tuple[str, ...]:
    """The names that a caption may use for a sounding part, the plain one first."""
    if family == "drums":
        return DRUM_KITS[program]
    return next(instrument.names for instrument in INSTRUMENTS if instrument.program == program)
