"""What the service speaks of: scores, harmony labels, and the numerals that name them. Numpy only."""
