"""What is remembered of a study: MLflow runs, views, figures. Takes plain mappings; no torch, no Ray."""
