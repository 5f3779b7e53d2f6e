"""From audio files to arrays of features; knows paths, not data sets."""
