"""Helpers without any domain knowledge: command line, files, progress, text."""
