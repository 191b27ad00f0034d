"""The analyzers: chords, keys and Roman numerals of a score. No files, threads or wire."""
