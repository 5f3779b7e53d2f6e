"""Clips in, features out: OpenMIC-2018 layout, front end, feature store, the built-in demo set."""
