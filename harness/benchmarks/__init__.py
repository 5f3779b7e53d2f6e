"""What `python -m harness.bench` measures, a module for each part."""
