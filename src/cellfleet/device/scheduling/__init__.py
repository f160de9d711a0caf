"""Which frame is segmented next, by which segmenter, and what became of it."""
