"""What is remembered of a study: MLflow runs, views, figures. Takes plain mappings; knows neither torch nor Ray."""
