"""The language models of the acoustic service: configurations and modules, one file or folder a model."""
