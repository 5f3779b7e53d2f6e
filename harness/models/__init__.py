"""The frozen backbone, what learns around it (reprogrammers, mappers), and the systems it is compared with."""
