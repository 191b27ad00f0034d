"""Kubernetes objects made of the table of services. Pure functions from values to dicts; no cluster, no files."""
