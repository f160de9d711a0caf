"""The segmenter program: frames on the disk become masks and tables."""
