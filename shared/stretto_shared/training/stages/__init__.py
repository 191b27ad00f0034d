"""Training the stages of a token cascade: their features as windows, the loss, the run, and the export."""
