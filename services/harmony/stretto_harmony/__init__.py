"""Stretto's harmony service: a score in; its chords, keys and Roman numerals out."""
