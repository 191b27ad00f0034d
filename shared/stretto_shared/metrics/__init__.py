"""Metrics: pure functions of arrays, in the style of mir_eval.

Numpy only. No function reads a file, resamples or draws from shared state; each module's docstring is the
specification of what it computes. A score that needs a sample rate takes it; signals are mono, [S], full scale 1.
"""
