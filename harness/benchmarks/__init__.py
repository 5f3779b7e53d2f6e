"""The measurements of `python -m harness.bench`, a module for each part."""
