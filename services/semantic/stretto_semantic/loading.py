"""Weights to verified, built models; an explicit registry by architecture. Knows nothing of requests."""
