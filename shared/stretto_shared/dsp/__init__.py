"""Signal processing that two or more services need: no wire, no files."""
