"""The demo data set and the music that it is made of."""
