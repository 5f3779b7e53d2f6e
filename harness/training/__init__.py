"""Training of one configuration: trainer, losses, metrics, schedules."""
