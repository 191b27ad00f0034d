"""Stretto on Kubernetes: manifests from one table of services, their validation, and the command that applies them."""
