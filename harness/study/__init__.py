"""Studies: Optuna proposes, Ray Tune schedules, workers train."""
