"""ChordGNN (Karystinaios and Widmer 2023): the graph of a score's notes, the network over it, and its decoding."""
