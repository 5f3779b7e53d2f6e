"""Data sets: formats, labels, splits, checks and batches of clips with their features."""
