"""FluidSynth as one piano: sustain pedal, and a tuning of its own for every clip."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from piano_performances import PEDAL_DOWN, Performance
from stretto_shared.training.corpus.render import GRAIN, load_fluidsynth

SAMPLE_RATE_HZ = 16_000
GRAIN_S = GRAIN / SAMPLE_RATE_HZ
POLYPHONY = 200
_NOTE_OFF, _PEDAL, _NOTE_ON = 0, 1, 2


def drawn_tuning(random: np.random.Generator) -> NDArray[np.float64]:
    """Cents of the 128 keys: a fifth of a semitone as a whole, a stretch, and a few cents of each key's own."""
    keys = np.arange(128.0)
    stretch = random.uniform(0.0, 12.0) * ((keys - 60.0) / 44.0) ** 3
    return 100.0 * keys + random.uniform(-20.0, 20.0) + stretch + random.normal(0.0, random.uniform(0.0, 3.0), 128)


class PianoSynthesizer:
    """One preset of a SoundFont at 16 kHz, reverb and chorus off; a clip does not depend on the one before.

    Raises:
        OSError: If the library or the SoundFont is missing.
    """

    def __init__(self, soundfont: Path, program: int) -> None:
        self._library, self._program = load_fluidsynth(), program
        library, pointer, integer = self._library, ctypes.c_void_p, ctypes.c_int
        library.fluid_synth_activate_key_tuning.argtypes = [pointer, *[integer] * 2, ctypes.c_char_p, pointer, integer]
        library.fluid_synth_activate_tuning.argtypes = [pointer, *[integer] * 4]
        self._settings = library.new_fluid_settings()
        library.fluid_settings_setnum(self._settings, b"synth.sample-rate", float(SAMPLE_RATE_HZ))
        library.fluid_settings_setint(self._settings, b"synth.polyphony", POLYPHONY)
        for name in (b"synth.reverb.active", b"synth.chorus.active"):
            library.fluid_settings_setint(self._settings, name, 0)
        owner = library.new_fluid_synth(self._settings)
        font_id = library.fluid_synth_sfload(owner, str(soundfont).encode(), 0)
        if font_id < 0:
            raise OSError(f"FluidSynth cannot load the SoundFont {soundfont}. Install it or name another.")
        self._font = library.fluid_synth_get_sfont_by_id(owner, font_id)
        library.fluid_synth_remove_sfont(owner, self._font)
        library.delete_fluid_synth(owner)

    def render(self, performance: Performance, length_s: float, cents: NDArray[np.float64]) -> NDArray[np.float32]:
        """Mono audio [S]; `cents` [128] is where each key is tuned."""
        library = self._library
        synth = library.new_fluid_synth(self._settings)
        font_id = library.fluid_synth_add_sfont(synth, self._font)
        library.fluid_synth_program_select(synth, 0, font_id, 0, self._program)
        tuning = np.ascontiguousarray(cents, np.float64)
        library.fluid_synth_activate_key_tuning(synth, 0, 0, b"piano", tuning.ctypes.data, 0)
        library.fluid_synth_activate_tuning(synth, 0, 0, 0, 0)
        num_samples = round(length_s * SAMPLE_RATE_HZ)
        stereo, position = np.zeros((2, num_samples), np.float32), 0
        for grain, kind, pitch, value in _events(performance):
            time = min(grain * GRAIN, num_samples)
            if time > position:
                left, right = stereo[0, position:].ctypes.data, stereo[1, position:].ctypes.data
                library.fluid_synth_write_float(synth, time - position, left, 0, 1, right, 0, 1)
                position = time
            if kind == _NOTE_OFF:
                library.fluid_synth_noteoff(synth, 0, pitch)
            elif kind == _PEDAL:
                library.fluid_synth_cc(synth, 0, 64, value)
            else:
                library.fluid_synth_noteon(synth, 0, pitch, value)
        if num_samples > position:
            left, right = stereo[0, position:].ctypes.data, stereo[1, position:].ctypes.data
            library.fluid_synth_write_float(synth, num_samples - position, left, 0, 1, right, 0, 1)
        library.fluid_synth_remove_sfont(synth, self._font)
        library.delete_fluid_synth(synth)
        mono: NDArray[np.float32] = stereo.mean(axis=0)
        return mono


def _events(performance: Performance) -> list[tuple[int, int, int, int]]:
    """Grain, kind, pitch, value, in order: releases first, so that a repeated key is struck anew."""
    events = []
    for onset_s, release_s, pitch, velocity in performance.notes:
        events.append((round(onset_s / GRAIN_S), _NOTE_ON, int(pitch), int(velocity)))
        events.append((round(release_s / GRAIN_S), _NOTE_OFF, int(pitch), 0))
    for time_s, value in performance.pedal:
        events.append((round(time_s / GRAIN_S), _PEDAL, 0, 127 if value >= PEDAL_DOWN else 0))
    return sorted(events)
