"""Keeps the results of studies: MLflow runs, views, figures. Takes plain mappings; no torch, no Ray."""
