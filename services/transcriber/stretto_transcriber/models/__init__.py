"""What hears and what writes: one folder a model, each a frozen config and an `nn.Module` or plain functions."""
