"""Frozen backbones and the files their weights come from."""
