"""Small modules with seeded weights, and small scores, for the tests of this folder."""

from __future__ import annotations

import numpy as np
import torch
from stretto_harmony.models.modular.config import ModularConfig
from stretto_harmony.models.modular.networks import Modules
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score

TINY = ModularConfig(**{name: 8 for name in vars(ModularConfig()) if name.endswith("_dim")})


def tiny_modules(seed: int = 0, *, sharpness: float = 1.5, reduction: str = "triads") -> Modules:
    """Modules whose weights are large enough that their answers differ."""
    torch.manual_seed(seed)
    modules = Modules(ModularConfig(**{**vars(TINY), "sequence_reduction": reduction}))
    for weight in modules.parameters():
        torch.nn.init.normal_(weight, std=sharpness / weight.shape[-1] ** 0.5)
    chords, minors = torch.tensor([616, 618, 616, 700]), torch.tensor([0, 0, 1, 1])
    modules.icm.fit(chords, minors)
    return modules.eval().requires_grad_(False)


def tiny_score(num_beats: int = 8, seed: int = 0, *, voices: int = 3) -> Score:
    """Quarter notes in 4/4, `voices` to a beat, of white keys."""
    random = np.random.default_rng(seed)
    white = {0: 0, 2: 2, 4: 4, 5: -1, 7: 1, 9: 3, 11: 5}
    notes = []
    for beat in range(num_beats):
        classes = random.choice(list(white), voices, replace=False)
        for place, pitch_class in enumerate(classes):
            notes.append((beat * TICKS_PER_QUARTER, 48 + 12 * (place % 2) + int(pitch_class), white[int(pitch_class)]))
    notes.sort()
    onset, midi, fifths = np.array(notes).T
    measures = -(-num_beats // 4)
    same = np.ones(measures, np.int64)
    return Score(
        onset=onset,
        duration=np.full(len(onset), TICKS_PER_QUARTER),
        midi=midi,
        fifths=fifths,
        staff=np.zeros(len(onset), np.int64),
        voice=np.zeros(len(onset), np.int64),
        measure_start=np.arange(measures) * 4 * TICKS_PER_QUARTER,
        measure_length=same * 4 * TICKS_PER_QUARTER,
        measure_offset=same * 0,
        numerator=same * 4,
        denominator=same * 4,
        key_signature=same * 0,
        measure_number=tuple(str(number + 1) for number in range(measures)),
    )
