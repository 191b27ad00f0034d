"""Weights of what `values.choices` notices; `recipes/fit_note_values.py` prints this file."""

from __future__ import annotations

VALUE_WEIGHTS = (2.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
