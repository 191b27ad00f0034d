"""Analyzers of scores, one folder each. They know no files, threads or wire."""
