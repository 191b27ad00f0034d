"""Synthesizers that turn arranged parts into mono audio: FluidSynth through its C library, and symusic's own.

FluidSynth (LGPL-2.1) sounds better and is what the corpus is made with; `symusic` renders inside its wheel and needs no
system library, so tests and the one-minute recipes use it. Both are deterministic: a clip never
depends on the one before it. Event times are rounded to 64 samples, FluidSynth's own grain.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import symusic
from numpy.typing import NDArray

GRAIN = 64
DRUM_CHANNEL = 9
DRUM_BANK = 128
MELODIC_CHANNELS = tuple(channel for channel in range(16) if channel != DRUM_CHANNEL)


@dataclass(frozen=True)
class SoundFont:
    """A SoundFont file and the short name by which records state it."""

    name: str
    path: Path


SOUNDFONTS = (
    SoundFont("musescore-general", Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3")),
    SoundFont("fluidr3", Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")),
    SoundFont("timgm6mb", Path("/usr/share/sounds/sf2/TimGM6mb.sf2")),
)


@dataclass(frozen=True, eq=False)
class RenderPart:
    """One part in seconds: `notes` is float64 [N, 4] of onset_s, duration_s, pitch_midi, velocity."""

    program: int
    is_drum: bool
    notes: NDArray[np.float64]
    gain: float = 1.0


class Synthesizer(Protocol):
    """Renders parts to mono float32 [S]."""

    def render(self, parts: Sequence[RenderPart], num_samples: int) -> NDArray[np.float32]: ...

    def has_kit(self, program: int) -> bool: ...


class FluidSynthesizer:
    """FluidSynth with one SoundFont, reverb and chorus off.

    The SoundFont is loaded once and lent to a new synth for every clip: FluidSynth's own reset leaves traces of the
    clip before (a tail below -50 dB), and a clip must not depend on its neighbours.

    Raises:
        OSError: If the library or the SoundFont is missing.
    """

    def __init__(self, soundfont: Path, sample_rate_hz: int) -> None:
        self._library = load_fluidsynth()
        self._sample_rate_hz = sample_rate_hz
        self._settings = self._library.new_fluid_settings()
        self._library.fluid_settings_setnum(self._settings, b"synth.sample-rate", float(sample_rate_hz))
        self._library.fluid_settings_setnum(self._settings, b"synth.gain", 0.4)
        for name in (b"synth.reverb.active", b"synth.chorus.active"):
            self._library.fluid_settings_setint(self._settings, name, 0)
        self._library.fluid_settings_setint(self._settings, b"synth.polyphony", 96)
        owner = self._library.new_fluid_synth(self._settings)
        font_id = self._library.fluid_synth_sfload(owner, str(soundfont).encode(), 0)
        if font_id < 0:
            raise OSError(f"FluidSynth cannot load the SoundFont {soundfont}. Install it or name another.")
        self._font = self._library.fluid_synth_get_sfont_by_id(owner, font_id)
        self._kits = frozenset(
            program
            for program in range(128)
            if self._library.fluid_synth_program_select(owner, DRUM_CHANNEL, font_id, DRUM_BANK, program) == 0
        )
        self._library.fluid_synth_remove_sfont(owner, self._font)
        self._library.delete_fluid_synth(owner)

    def has_kit(self, program: int) -> bool:
        """Whether the SoundFont has this percussion kit."""
        return program in self._kits

    def render(self, parts: Sequence[RenderPart], num_samples: int) -> NDArray[np.float32]:
        """Render the parts; sound after `num_samples` is cut."""
        library = self._library
        synth = library.new_fluid_synth(self._settings)
        font_id = library.fluid_synth_add_sfont(synth, self._font)
        stereo = np.zeros((2, num_samples), np.float32)
        position = 0
        for time, kind, channel, pitch, velocity in self._events(synth, font_id, parts, num_samples):
            if time > position:
                self._write(synth, stereo, position, time)
                position = time
            if kind == 0:
                library.fluid_synth_noteoff(synth, channel, pitch)
            else:
                library.fluid_synth_noteon(synth, channel, pitch, velocity)
        self._write(synth, stereo, position, num_samples)
        library.fluid_synth_remove_sfont(synth, self._font)
        library.delete_fluid_synth(synth)
        mono: NDArray[np.float32] = stereo.mean(axis=0)
        return mono

    def _events(
        self, synth: int, font_id: int, parts: Sequence[RenderPart], num_samples: int
    ) -> list[tuple[int, int, int, int, int]]:
        library = self._library
        melodic = iter(MELODIC_CHANNELS)
        events: list[tuple[int, int, int, int, int]] = []
        rate = self._sample_rate_hz
        for part in parts:
            channel = DRUM_CHANNEL if part.is_drum else next(melodic)
            bank = DRUM_BANK if part.is_drum else 0
            library.fluid_synth_program_select(synth, channel, font_id, bank, part.program)
            library.fluid_synth_cc(synth, channel, 7, int(np.clip(round(100 * part.gain), 1, 127)))
            for onset_s, duration_s, pitch, velocity in part.notes:
                start = round(onset_s * rate / GRAIN) * GRAIN
                stop = max(start + GRAIN, round((onset_s + duration_s) * rate / GRAIN) * GRAIN)
                if start >= num_samples:
                    continue
                events.append((start, 1, channel, int(pitch), int(np.clip(velocity, 1, 127))))
                if stop < num_samples:
                    events.append((stop, 0, channel, int(pitch), 0))
        return sorted(events)

    def _write(self, synth: int, stereo: NDArray[np.float32], start: int, stop: int) -> None:
        if stop > start:
            left, right = stereo[0, start:].ctypes.data, stereo[1, start:].ctypes.data
            self._library.fluid_synth_write_float(synth, stop - start, left, 0, 1, right, 0, 1)


class SymusicSynthesizer:
    """symusic's renderer with one SoundFont, the voice that needs no install: for recipes' tests alone.

    With TimGM6mb it sounds other pitches than asked for (`docs/log.md`); corpora that train are FluidSynth's.
    """

    def __init__(self, soundfont: Path, sample_rate_hz: int) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._synthesizer = symusic.Synthesizer(str(soundfont), sample_rate_hz, 0)

    def has_kit(self, program: int) -> bool:
        return program == 0

    def render(self, parts: Sequence[RenderPart], num_samples: int) -> NDArray[np.float32]:
        """Render the parts; sound after `num_samples` is cut."""
        score: Any = symusic.Score(ttype="second")
        for part in parts:
            track: Any = symusic.Track(program=part.program, is_drum=part.is_drum, ttype="second")
            for onset_s, duration_s, pitch, velocity in part.notes:
                loudness = int(np.clip(velocity * part.gain, 1, 127))
                track.notes.append(
                    symusic.Note(float(onset_s), float(duration_s), int(pitch), loudness, ttype="second")
                )
            score.tracks.append(track)
        audio = np.asarray(self._synthesizer.render(score, stereo=False), dtype=np.float32).reshape(-1)
        return np.pad(audio[:num_samples], (0, max(0, num_samples - len(audio))))


def bundled_soundfont() -> Path:
    """The TimGM6mb SoundFont (GPL-2) inside the `pretty_midi` wheel."""
    import pretty_midi

    return Path(pretty_midi.__file__).parent / "TimGM6mb.sf2"


def load_fluidsynth() -> ctypes.CDLL:
    """FluidSynth's C library, with the signatures that are used here, and silent."""
    # FluidSynth takes the Vorbis decoder that is loaded first, and two of them differ in the last bit of compressed
    # SoundFonts: soundfile's own, always, so that a clip has the same bytes in every program.
    importlib.import_module("soundfile")
    name = ctypes.util.find_library("fluidsynth") or "libfluidsynth.so.3"
    library = ctypes.CDLL(name)
    pointer, integer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_double, ctypes.c_char_p
    signatures = {
        "new_fluid_settings": (pointer, []),
        "new_fluid_synth": (pointer, [pointer]),
        "fluid_settings_setnum": (integer, [pointer, text, number]),
        "fluid_settings_setint": (integer, [pointer, text, integer]),
        "fluid_synth_sfload": (integer, [pointer, text, integer]),
        "delete_fluid_synth": (None, [pointer]),
        "fluid_synth_get_sfont_by_id": (pointer, [pointer, integer]),
        "fluid_synth_add_sfont": (integer, [pointer, pointer]),
        "fluid_synth_remove_sfont": (integer, [pointer, pointer]),
        "fluid_synth_program_select": (integer, [pointer, *[integer] * 4]),
        "fluid_synth_cc": (integer, [pointer, *[integer] * 3]),
        "fluid_synth_noteon": (integer, [pointer, *[integer] * 3]),
        "fluid_synth_noteoff": (integer, [pointer, *[integer] * 2]),
        "fluid_synth_write_float": (integer, [pointer, integer, *[pointer, integer, integer] * 2]),
    }
    for function, (result, arguments) in signatures.items():
        getattr(library, function).restype = result
        getattr(library, function).argtypes = arguments
    library.fluid_set_log_function.argtypes = [integer, pointer, pointer]
    for level in range(5):
        library.fluid_set_log_function(level, None, None)
    return library
