"""Signal processing that two or more services need: numpy only, no torch, no wire, no files."""
