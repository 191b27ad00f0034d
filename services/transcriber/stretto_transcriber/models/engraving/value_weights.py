"""Weights of what `values.choices` notices; `recipes/fit_note_values.py` prints this file."""

from __future__ import annotations

# 5000 chords; the likeliest choice is right for 89.5% of them
VALUE_WEIGHTS = (
    1.940,  # fills
    0.636,  # fills a long time
    0.546,  # fills a short time
    -0.781,  # fills but was let go
    -0.960,  # held shorter
    -1.449,  # held longer
    -0.008,  # shorter, squared
    -0.694,  # longer, squared
    0.481,  # ends on a beat
    0.932,  # ends the beat
    -0.827,  # is a beat
    -1.528,  # is dotted
    -0.931,  # is long
    -0.914,  # is short
    1.187,  # is as the time before
    -0.526,  # is a third
    0.391,  # overlaps as it fills
)
