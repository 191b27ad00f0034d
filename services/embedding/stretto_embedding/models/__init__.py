"""Text encoders: one file a model, each a frozen config and an `nn.Module`."""
