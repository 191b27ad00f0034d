"""Files as scores and analyses: each reader takes bytes and raises `InvalidInput` on what it cannot read."""
