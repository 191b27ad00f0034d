"""The door: who may call, what, how often and how much. Knows metadata and certificates, and nothing of music."""
