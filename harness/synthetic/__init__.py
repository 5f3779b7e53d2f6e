"""Rendered music: the demo data set, the pre-training corpus and a data set of OpenMIC-2018's size."""
