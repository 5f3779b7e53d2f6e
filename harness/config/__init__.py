"""Plain, checked descriptions of trials and studies; imports no torch."""
