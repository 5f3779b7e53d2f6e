"""The frozen backbone and what learns around it: reprogrammers and mappers."""
